"""Devices are built each on its own, described, and come up by themselves."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ophyd import Signal

from bec_bluesky.bus import Bus
from bec_bluesky.channels import DEVICE_CHANGES, DEVICES
from bec_bluesky.device_server import DeviceServer, _registry, _service
from bec_bluesky.device_server._layers import set_signal
from bec_bluesky.errors import DeviceFailed, SettingsError
from bec_bluesky.settings import Settings
from tests.device_server import odd_devices
from tests.device_server.device_server_harness import Client, info, serving, until, with_devices

ODD = "tests.device_server.odd_devices"


async def test_a_device_that_fails_says_why_and_the_others_serve(
    settings: Settings, bus: Bus, client: Client, tmp_path: Path
) -> None:
    devices = f"""
    good: {{class: "ophyd.sim:SynAxis"}}
    unreachable: {{class: "{ODD}:Unreachable", timeout: 0.2}}
    missing: {{class: "no_such_package:Thing"}}
    mistaken: {{class: "ophyd_async.sim:SimMotor", kwargs: {{velocity: 1}}}}
    raising: {{class: "ophyd.sim:SynGauss", args: [raising, {{$ref: good}}, nothing], kwargs: {{center: 0, Imax: 1}}}}
    number: {{class: "{ODD}:not_a_device"}}
    unset: {{class: "ophyd_async.sim:SimMotor", set: {{speed: 3}}}}
    dependent: {{class: "ophyd.sim:SynGauss", args: [dependent, {{$ref: raising}}, x], kwargs: {{center: 0, Imax: 1}}}}
    switched_off: {{class: "ophyd.sim:SynAxis", enabled: false}}
    made: {{class: "{ODD}:made_later"}}
    """.replace("\n    ", "\n")
    async with serving(with_devices(settings, tmp_path, devices), bus) as server:
        table = await bus.fields(DEVICES, server="main")
        states = {name: found.state for name, found in table.items() if found.parent is None}
        assert {name for name, state in states.items() if state == "connected"} == {"good", "made"}
        assert states["switched_off"] == "disabled"
        reasons = {name: table[name].reason for name, state in states.items() if state == "failed"}
        assert set(reasons) == {"unreachable", "missing", "mistaken", "raising", "number", "unset", "dependent"}
        assert reasons["unreachable"] == "it did not connect within 0.2 s"
        assert "missing: class no_such_package:Thing: no_such_package could not be imported" in reasons["missing"]
        assert "devices.yaml:6: device mistaken" in reasons["mistaken"]
        assert "takes no argument 'velocity': there are initial_value, instant, units" in reasons["mistaken"]
        assert reasons["raising"] == "KeyError: 'nothing'"
        assert "gave a int, which is no device" in reasons["number"]
        assert reasons["unset"] == "`set: speed`: unset has no signal and no attribute 'speed'"
        assert reasons["dependent"] == "it needs 'raising', which is disabled or failed"
        assert server.note == "failed: unreachable, missing, mistaken, raising, number, unset, dependent"
        assert all("\n" not in reason for reason in reasons.values())
        assert (await client.ask("good", "read"))["good"]["value"] == 0
        assert (await client.ask("made", "read"))["made"]["value"] == 3.0
        failure = await client.failure("raising", "read")
        assert (failure.kind, failure.text) == (
            *("bec_bluesky.errors.DeviceFailed", "device raising is failed: KeyError: 'nothing'"),
        )


async def test_a_device_that_failed_comes_up_by_itself(
    settings: Settings, bus: Bus, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_service, "RETRY_PERIOD", 0.05)
    odd_devices.attempts.clear()
    devices = f"""
    late: {{class: "{ODD}:ThirdTime"}}
    dependent: {{class: "ophyd.sim:SynSignalRO", needs: [late]}}
    """.replace("\n    ", "\n")
    async with serving(with_devices(settings, tmp_path, devices), bus):

        async def state() -> bool:
            return (await info(bus, "late")).state == "connected"

        await until(state, "the third try")
        assert odd_devices.attempts["late"] == 3
        assert (await client.ask("late", "read"))["late_value"]["value"] == 1.0
        changes = [change for _, change in await bus.read(DEVICE_CHANGES)]
        assert [(change.state, change.reason) for change in changes if change.path == "late"] == [
            ("failed", "ConnectionError: controller busy, try 1"),
            ("failed", "ConnectionError: controller busy, try 2"),
            ("connected", ""),
        ]


async def test_devices_are_served_while_others_still_connect(
    settings: Settings, bus: Bus, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_service, "_PATIENCE", 0.05)
    devices = f"""
    unreachable: {{class: "{ODD}:Unreachable", timeout: 1}}
    good: {{class: "ophyd.sim:SynAxis"}}
    """.replace("\n    ", "\n")
    async with serving(with_devices(settings, tmp_path, devices), bus):
        assert (await info(bus, "unreachable")).reason == "it is being built and connected"
        assert (await client.ask("good", "read"))["good"]["value"] == 0

        async def is_told() -> bool:
            return (await info(bus, "unreachable")).reason == "it did not connect within 1 s"

        await until(is_told, "the reason")


async def test_a_driver_that_hangs_keeps_one_thread_and_no_other_device(
    settings: Settings, bus: Bus, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_service, "RETRY_PERIOD", 0.02)
    monkeypatch.setattr(_registry, "_BUILD_MORE", 0.1)
    odd_devices.attempts.clear()
    odd_devices.let_go.clear()
    devices = f"""
    hanging: {{class: "{ODD}:Hanging", timeout: 0.1}}
    good: {{class: "ophyd.sim:SynAxis"}}
    """.replace("\n    ", "\n")
    try:
        async with serving(with_devices(settings, tmp_path, devices), bus):
            assert "does not return: its driver hangs" in (await info(bus, "hanging")).reason
            for _ in range(20):
                assert (await client.ask("good", "read"))["good"]["value"] == 0
            assert odd_devices.attempts == {"hanging": 1}
            odd_devices.let_go.set()

            async def is_there() -> bool:
                return (await info(bus, "hanging")).state == "connected"

            await until(is_there, "the device")
    finally:
        odd_devices.let_go.set()


async def test_a_lazy_device_is_connected_at_its_first_use(
    settings: Settings, bus: Bus, client: Client, tmp_path: Path
) -> None:
    odd_devices.attempts.clear()
    devices = f'lazy: {{class: "{ODD}:Counting", connect: lazy}}'
    async with serving(with_devices(settings, tmp_path, devices), bus):
        assert (await info(bus, "lazy")).reason == "connects when it is first used"
        assert odd_devices.attempts == {}
        ops = [client.op("lazy", "read") for _ in range(5)]
        await client.send(*ops)
        assert [(await client.end(op.id))["lazy-value"]["value"] for op in ops] == [7.0] * 5
        assert odd_devices.attempts == {"lazy": 1}

        async def is_said() -> bool:
            return (await info(bus, "lazy")).reason == ""

        await until(is_said, "news of the connection")


async def test_without_a_required_device_the_server_does_not_start(
    settings: Settings, bus: Bus, tmp_path: Path
) -> None:
    devices = f'needed: {{class: "{ODD}:Unreachable", timeout: 0.1, connect: required}}'
    server = DeviceServer(with_devices(settings, tmp_path, devices))
    with pytest.raises(ExceptionGroup) as caught:
        await server.run()
    (error,) = caught.value.exceptions
    assert isinstance(error, DeviceFailed)
    assert str(error) == "device needed is required and failed: it did not connect within 0.1 s"


async def test_with_a_malformed_file_the_server_does_not_start(settings: Settings, bus: Bus, tmp_path: Path) -> None:
    server = DeviceServer(with_devices(settings, tmp_path, "x: {clas: 'a:B'}"))
    with pytest.raises(ExceptionGroup) as caught:
        await server.run()
    (error,) = caught.value.exceptions
    assert isinstance(error, SettingsError)
    assert "devices.yaml:3: device x: no key 'clas': did you mean 'class' or 'labels'?" in str(error)


async def test_devices_and_their_parts_are_described(bus: Bus, server: DeviceServer) -> None:
    motor = await info(bus, "motor")
    assert (motor.name, motor.layer, motor.parent, motor.limits) == ("motor", "ophyd-async", None, (-100.0, 100.0))
    assert {"Movable", "Locatable", "Stoppable", "Preparable", "Flyable", "Readable"} <= set(motor.protocols)
    assert {"set", "stop", "prepare", "locate"} <= set(motor.methods)
    assert motor.hints == {"fields": ["motor"]}
    assert motor.children == ["user_readback", "velocity", "acceleration_time", "user_setpoint"]
    velocity = await info(bus, "motor.velocity")
    assert (velocity.name, velocity.parent, velocity.limits) == ("motor-velocity", "motor", None)
    axis = await info(bus, "axis")
    assert (axis.layer, axis.hints) == ("ophyd", {"fields": ["axis"]})
    assert axis.properties["position"] == 0
    assert "Movable" not in (await info(bus, "blob")).protocols
    assert (await info(bus, "fixed")).read_only


async def test_limits_that_change_in_the_control_system_are_told_anew(
    bus: Bus, client: Client, server: DeviceServer
) -> None:
    assert (await info(bus, "confined")).properties["limits"] == [-2, 2]
    await client.ask("confined", "confine", -7, 7)

    async def told() -> bool:
        return (await info(bus, "confined")).properties["limits"] == [-7, 7]

    await until(told, "the new limits")


async def test_what_the_file_sets_is_set(server: DeviceServer, client: Client) -> None:
    assert await client.ask("slow.velocity", "get") == 1.0
    assert await client.ask("slow2.velocity", "get") == 1.0
    assert await client.ask("slow.acceleration_time", "get") == 0.1


async def test_a_whole_number_of_the_file_is_set_as_the_signal_has_numbers() -> None:
    velocity, counts = Signal(name="velocity", value=0.5), Signal(name="counts", value=1)
    with ThreadPoolExecutor() as pool:
        for signal in (velocity, counts):
            await set_signal(signal, 2, 10.0, pool)
    assert [(signal.get(), signal.describe()[signal.name]["dtype"]) for signal in (velocity, counts)] == [
        (2.0, "number"),
        (2, "integer"),
    ]
