"""Remote devices look like the real ones: to protocols, to plans, to people."""

import asyncio
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.protocols
import numpy as np
import pytest
from bluesky.protocols import Locatable, Movable, Status, Subscribable
from ophyd.utils import LimitError

from bec_bluesky.errors import DeviceServerLost, DeviceTimeout, UnknownDeviceError
from bec_bluesky.proxy import DeviceLink, RemoteStatus, prepare_engine
from tests.engines import running_engine
from tests.proxy import conformance_devices
from tests.proxy.conftest import DEADLINE, Bench, Server, wait_for

_ADDRESS_OR_TIME = re.compile(r" at 0x[0-9a-f]+|timestamp=[0-9.]+")
PROTOCOLS = [
    protocol
    for name, protocol in vars(bluesky.protocols).items()
    if getattr(protocol, "_is_runtime_protocol", False) and name not in ("Status", "Locatable")
]
"""`Locatable` is more than some devices of ophyd are; every movable proxy is."""


def in_loop(bench: Bench, function: Any, *args: Any) -> Any:
    """Call in the RunEngine's thread, await what comes."""

    async def call() -> Any:
        result = function(*args)
        return await result if asyncio.iscoroutine(result) or asyncio.isfuture(result) else result

    return asyncio.run_coroutine_threadsafe(call(), bench.RE.loop).result(DEADLINE)


@pytest.mark.parametrize("name", conformance_devices.TABLE)
def test_a_proxy_supports_the_protocols_of_its_device(name: str, local: Bench, remote: Bench) -> None:
    real, proxy = local.devices[name], remote.devices[name]
    for protocol in PROTOCOLS:
        assert isinstance(proxy, protocol) == isinstance(real, protocol), protocol.__name__
    if isinstance(real, Movable):
        assert isinstance(proxy, Locatable)


@pytest.mark.parametrize("name", conformance_devices.TABLE)
def test_what_plans_read_without_asking_is_the_same(name: str, local: Bench, remote: Bench) -> None:
    real, proxy = local.devices[name], remote.devices[name]
    assert proxy.name == real.name
    assert proxy.parent is None
    assert _ADDRESS_OR_TIME.sub("", repr(proxy)) == _ADDRESS_OR_TIME.sub("", repr(real))
    if hasattr(real, "hints"):
        assert proxy.hints == real.hints
    for attribute in ("pause", "rewindable", "RealPosition", "collect_asset_docs", "get_index", "anything"):
        assert hasattr(proxy, attribute) == hasattr(real, attribute)


def test_parts_are_attributes_and_one_object_each(remote: Bench) -> None:
    motor = remote.devices["motor"]
    assert motor.velocity is motor.velocity is remote.devices["motor.velocity"]
    assert motor.velocity.name == "motor_velocity"
    assert motor.velocity.parent is motor
    assert remote.devices["sim_x"].velocity.name == "sim_x-velocity"
    with pytest.raises(AttributeError):
        motor.velosity
    with pytest.raises(UnknownDeviceError, match="did you mean 'motor'"):
        remote.devices["moter"]


def test_devices_alike_share_a_class(remote: Bench) -> None:
    assert type(remote.devices["motor"]) is type(remote.devices["motor2"])
    assert type(remote.devices["motor"]) is not type(remote.devices["det"])


def test_a_value_beyond_the_limits_is_refused_before_anything_is_sent(remote: Bench) -> None:
    link: DeviceLink = remote.devices["limited"]._link
    sent = link.operations.round_trips
    for call in (remote.devices["limited"].set, remote.devices["limited"].check_value):
        with pytest.raises(LimitError, match=r"position=3.5 not within limits \(-2, 2\)"):
            call(np.float64(3.5))
    assert link.operations.round_trips == sent
    assert remote.devices["limited"].limits == (-2, 2)


def test_what_is_asked_at_once_travels_together(remote: Bench) -> None:
    link: DeviceLink = remote.devices["det"]._link

    async def ask() -> int:
        before = link.operations.round_trips
        statuses = [remote.devices["motor"].set(1.0), remote.devices["sim_x"].set(2.0)]
        futures = [remote.devices["det"].describe(), remote.devices["det"].read_configuration()]
        await asyncio.gather(*futures, *(_ended(status) for status in statuses))
        return link.operations.round_trips - before

    assert in_loop(remote, ask) == 1


async def _ended(status: RemoteStatus) -> None:
    await status


def test_one_argument_that_cannot_cross_does_not_harm_others(remote: Bench) -> None:
    async def ask() -> Any:
        good = remote.devices["motor"].set(1.0)
        bad = remote.devices["sim_x"].set(object())
        await good
        with pytest.raises(TypeError, match="cannot cross the bus"):
            await bad
        return good.success, bad.success

    assert in_loop(remote, ask) == (True, False)


def test_a_status_is_blueskys_and_says_what_it_is_about(remote: Bench) -> None:
    status = remote.devices["motor"].set(2.0)
    assert isinstance(status, Status)
    called: list[tuple[str, bool]] = []
    status.add_callback(lambda done: called.append((threading.current_thread().name, done is status)))
    status.wait(DEADLINE)
    wait_for(lambda: called, lambda: "the callback")
    assert called[0][1] and status.done and status.success and status.exception() is None
    assert repr(status) == "<Status of motor.set(2.0): done>"

    failed = remote.devices["broken"].trigger()
    with pytest.raises(RuntimeError, match="the shutter is stuck"):
        failed.wait(DEADLINE)
    assert repr(failed).startswith("<Status of broken.trigger(): RuntimeError: the shutter is stuck")


def test_progress_of_a_move_is_told(remote: Bench) -> None:
    slow = remote.devices["slow"]
    slow.velocity.set(20.0).wait(DEADLINE)
    told: list[dict[str, Any]] = []
    status = slow.set(10.0)
    status.watch(lambda **progress: told.append(progress))
    status.wait(DEADLINE)
    slow.velocity.set(0.0).wait(DEADLINE)
    slow.set(0.0).wait(DEADLINE)
    assert told
    assert told[-1]["name"] == "slow" and told[-1]["target"] == 10.0


def test_waiting_in_the_loops_own_thread_is_refused(remote: Bench) -> None:
    def wait() -> None:
        status = remote.devices["slow"].set(0.0)
        with pytest.raises(RuntimeError, match="await it"):
            status.wait(1.0)

    in_loop(remote, wait)


def test_a_value_is_pushed_to_both_kinds_of_callback(remote: Bench) -> None:
    signal = remote.devices["sig"]
    assert isinstance(signal, Subscribable)
    readings: list[Any] = []
    values: list[Any] = []
    at_hand: list[Any] = []
    heard = readings.append

    def like_ophyd(*, value: Any, obj: Any, **_: Any) -> None:
        values.append(value)
        at_hand.append(obj.read())

    signal.subscribe(heard)
    signal.subscribe(like_ophyd, event_type="value", run=True)
    signal.set(42.0).wait(DEADLINE)
    wait_for(lambda: readings and readings[-1]["sig"]["value"] == 42.0, lambda: str(readings))
    assert values[-1] == 42.0
    assert at_hand[-1]["sig"]["value"] == 42.0
    assert signal.get() == 42.0
    signal.clear_sub(heard)
    signal.clear_sub(like_ophyd)
    told = len(values)
    signal.set(43.0).wait(DEADLINE)
    assert len(values) == told
    assert signal.get() == 43.0


def test_get_and_position_are_exact_in_plain_code_of_a_plan(remote: Bench) -> None:
    def plan() -> Any:
        seen = []
        for target in (1.0, 2.5):
            yield from bps.mv(remote.devices["motor"], target, remote.devices["sig"], target)
            seen.append((remote.devices["motor"].position, remote.devices["sig"].get()))
        return seen

    assert remote.RE(plan()).plan_result == [(1.0, 1.0), (2.5, 2.5)]


def test_asking_waits_no_longer_than_it_may(remote: Bench) -> None:
    link: DeviceLink = remote.devices["slow"]._link
    link.ask("slow.velocity", "set", 0.1)
    with pytest.raises(DeviceTimeout, match=r"slow.set: no answer within 0.2 s"):
        link.ask("slow", "set", 5.0, timeout=0.2)
    link.ask("slow", "stop")
    link.ask("slow.velocity", "set", 0.0)


def test_an_engine_in_another_loop_is_refused(remote: Bench) -> None:
    with running_engine() as RE, pytest.raises(ValueError, match="another loop"):
        prepare_engine(RE, remote.devices["det"]._link)


async def test_closing_ends_what_is_under_way(server: Server, remote: Bench) -> None:
    link = await DeviceLink.connect(server.settings.redis_url or "", server.settings.beamline)
    await link.devices["slow"].velocity.set(0.5)
    status = link.devices["slow"].set(10.0)
    await asyncio.sleep(0)
    await link.close()
    with pytest.raises(DeviceServerLost, match="closed"):
        await status
    remote.devices["slow"]._link.ask("slow", "stop")
    remote.devices["slow"]._link.ask("slow.velocity", "set", 0.0)


def test_importing_proxies_imports_neither_bluesky_nor_ophyd() -> None:
    code = "import sys, bec_bluesky.proxy; print(*[m for m in ('bluesky', 'ophyd', 'ophyd_async') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert found.stdout.strip() == ""
