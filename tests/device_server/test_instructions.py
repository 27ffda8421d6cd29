"""Instructions on the wire, and what is answered."""

import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from event_model import StreamDatum
from ophyd.utils import LimitError, ReadOnlyError
from ophyd_async.core import FlyMotorInfo, TriggerInfo

from bec_bluesky.bus import Bus
from bec_bluesky.device_server import DeviceServer
from bec_bluesky.errors import RefusedError, UnknownDeviceError
from bec_bluesky.messages.common import Failure
from bec_bluesky.messages.devices import Completion
from tests.device_server.device_server_harness import Client, until

pytestmark = pytest.mark.usefixtures("server")


def completion(payload: Any) -> Completion:
    return msgspec.convert(payload, Completion)


@pytest.mark.parametrize(("device", "key", "value"), [("soft", "soft", 1.5), ("sig", "sig", 1.0)])
async def test_both_layers_are_read_and_described(client: Client, device: str, key: str, value: float) -> None:
    reading = await client.ask(device, "read")
    assert reading[key]["value"] == value
    assert 0 <= time.time() - reading[key]["timestamp"] < 60
    assert (await client.ask(device, "describe"))[key]["dtype"] == "number"


@pytest.mark.parametrize(("device", "key"), [("axis", "axis"), ("motor", "motor")])
async def test_both_layers_are_moved_and_say_where_they_are(client: Client, device: str, key: str) -> None:
    assert completion(await client.ask(device, "set", np.float64(2.5))) == Completion(0)
    assert (await client.ask(device, "read"))[key]["value"] == 2.5
    assert await client.ask(device, "locate") == {"setpoint": 2.5, "readback": 2.5}
    assert await client.ask(device, "get") == 2.5


async def test_parts_are_addressed_by_their_path(client: Client) -> None:
    await client.ask("motor.velocity", "set", 0.0)
    assert await client.ask("motor.velocity", "get") == 0.0
    await client.ask("axis.setpoint", "put", 1.0)
    assert await client.ask("axis.setpoint", "get") == 1.0
    failure = await client.failure("motor.velocty", "get")
    assert failure.kind == "LookupError"
    assert "'motor' has no part 'velocty'; it has user_readback, velocity" in failure.text


async def test_a_batch_is_answered_in_one_message(client: Client) -> None:
    await client.ask("", "ping")
    before = client.messages
    ops = [client.op("motor", "read") for _ in range(10)]
    await client.send(*ops)
    for op in ops:
        await client.end(op.id)
    assert client.messages - before == 1


async def test_readings_come_with_the_end_of_a_batch(client: Client) -> None:
    before = time.time()
    ops = [client.op("axis", "set", 1.0), client.op("motor", "set", 2.0)]
    await client.send(*ops, after=["axis", "motor", "det", "nothing"])
    (readings,) = await until(lambda: client.of(ops[-1].id, "readings"), "readings")
    assert readings.payload["axis"]["axis"]["value"] == 1.0
    assert readings.payload["motor"]["motor"]["value"] == 2.0
    assert readings.payload["det"]["det"]["value"] > 0
    assert msgspec.convert(readings.payload["nothing"], Failure).kind.endswith("UnknownDeviceError")
    assert [answer.code for answer in client.answers] == ["done", "done", "readings"]
    assert readings.payload["axis"]["axis"]["timestamp"] >= before


async def test_readings_of_ophyd_are_from_after_the_end_whether_it_comes_at_once_or_late(client: Client) -> None:
    for device, value in (("axis", 2.0), ("late", 3.0), ("axis", 4.0)):
        op = client.op(device, "set", value)
        await client.send(op, after=[device, "det"])
        (readings,) = await until(lambda op=op: client.of(op.id, "readings"), "readings")
        assert readings.payload[device][device]["value"] == value
        assert set(readings.payload) == {device, "det"}


async def test_nothing_is_read_after_a_batch_that_failed(client: Client) -> None:
    ops = [client.op("axis", "set", 99.0), client.op("motor", "set", 2.0)]
    await client.send(*ops, after=["axis"])
    await client.end(ops[1].id)
    await client.ask("", "ping")
    assert client.of(ops[1].id, "readings") == []


# ── refusals ──


@pytest.mark.parametrize(("device", "value"), [("axis", 5.5), ("motor", -101), ("axis.setpoint", 6), ("axis", "nan")])
async def test_limits_of_the_device_file_are_kept(client: Client, device: str, value: Any) -> None:
    name = device.partition(".")[0]
    value = float("nan") if value == "nan" else value
    with pytest.raises(LimitError, match=f"{name}: .* is outside its limits, "):
        await client.ask(device, "set", value)
    failure = await client.failure(device, "set", value)
    assert (failure.kind, failure.in_call, failure.where) == (
        "ophyd.utils.errors.LimitError",
        True,
        "device server main",
    )
    assert (await client.ask(name, "get")) == 0


async def test_limits_hold_for_a_flight_too(client: Client) -> None:
    with pytest.raises(LimitError, match="motor: 101 is outside its limits, -100 to 100"):
        await client.ask("motor", "prepare", FlyMotorInfo(start_position=0, end_position=101, time_for_move=1))


@pytest.mark.parametrize(
    ("positions", "error"), [({"axis": [0, 6]}, LimitError), ({"axis": [0], "fixed": [1]}, ReadOnlyError)]
)
async def test_what_the_file_forbids_holds_for_a_burst_too(
    client: Client, positions: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"axis: 6 is outside its limits, -5 to 5|fixed is read-only"):
        await client.ask("burst", "prepare", {"positions": positions})
    await client.ask("burst", "prepare", {"positions": {"axis": [0, 5], "motor": [0, 100]}, "detectors": ["det"]})
    await client.ask("burst", "kickoff")
    await client.ask("burst", "complete")
    pages = await client.ask("burst", "collect_pages")
    assert [page["data"]["motor"] for page in pages] == [[0, 100]]


async def test_a_read_only_device_is_read_and_not_set(client: Client) -> None:
    assert await client.ask("fixed", "get") == 1.5
    with pytest.raises(ReadOnlyError, match="fixed is read-only"):
        await client.ask("fixed", "set", 2.0)


async def test_unknown_devices_and_verbs_are_refused_with_what_there_is(client: Client) -> None:
    with pytest.raises(UnknownDeviceError, match="no device 'axs': did you mean 'axis'"):
        await client.ask("axs", "read")
    with pytest.raises(RefusedError, match="axis: no verb 'destroy'") as caught:
        await client.ask("axis", "destroy")
    assert caught.value.code == "unknown_verb"
    with pytest.raises(RefusedError, match="no verb 'dance': there are add, change, claim, client_lost"):
        await client.ask("", "dance")
    assert (await client.failure("soft", "trigger")).kind == "AttributeError"


async def test_what_was_meant_for_another_incarnation_is_not_carried_out(client: Client, server: DeviceServer) -> None:
    op = client.op("motor", "set", 3.0)
    await client.send(op, epoch="0" * 32)
    with pytest.raises(RefusedError, match="earlier start of this device server") as caught:
        await client.end(op.id)
    assert caught.value.code == "epoch"
    assert await client.ask("motor", "get") == 0.0
    op = client.op("motor", "set", 3.0)
    await client.send(op, epoch=server.incarnation)
    await client.end(op.id)


async def test_what_comes_after_its_deadline_is_not_carried_out(client: Client) -> None:
    op = client.op("motor", "set", 3.0)
    await client.send(op, deadline=time.time() - 1.0)
    with pytest.raises(RefusedError, match=r"came 1\.\d s after its deadline"):
        await client.end(op.id)
    assert await client.ask("motor", "get") == 0.0


async def test_what_comes_twice_is_carried_out_once(client: Client) -> None:
    op = client.op("lingering", "trigger")
    await client.send(op)
    await client.send(op)
    await client.end(op.id)
    assert await client.ask("lingering", "history") == ["triggered"]
    assert len(client.of(op.id)) == 1


async def test_what_cannot_be_read_does_no_harm(client: Client, bus: Bus) -> None:
    from bec_bluesky.channels import INSTRUCTIONS

    assert await bus.redis.publish(bus.key(INSTRUCTIONS, server="main"), b"\xc1 nonsense") == 1
    assert await client.ask("soft", "get") == 1.5


# ── readings that fail ──


async def test_a_failing_reading_is_treated_as_the_device_file_says(client: Client) -> None:
    for policy in ("raise", "retry", "buffer", "ignore"):
        await client.ask(f"f_{policy}", "read")
        await client.ask(f"f_{policy}", "fail_after", 0)
    with pytest.raises(OSError, match="saturated"):
        await client.ask("f_raise", "read")
    assert (await client.ask("f_retry", "read"))["f_retry_value"]["value"] == 1.0
    buffered = (await client.ask("f_buffer", "read"))["f_buffer_value"]
    assert (buffered["value"], buffered["alarm_severity"]) == (1.0, -1)
    assert await client.ask("f_ignore", "read") == {}


async def test_a_fresh_reading_goes_past_the_cache_of_a_monitor(client: Client) -> None:
    subscription = await client.start("fresh", "subscribe")
    await until(lambda: client.of(subscription, "value"), "the present value")
    await client.ask("fresh", "set", 4.0)
    assert (await client.ask("fresh", "read"))["fresh"]["value"] == 4.0


# ── statuses ──


async def test_progress_is_told_at_most_ten_times_a_second(client: Client) -> None:
    began = time.monotonic()
    number = await client.start("slow", "set", 1.0)
    await client.end(number)
    duration = time.monotonic() - began
    progress = client.of(number, "progress")
    assert 4 <= len(progress) <= duration / 0.1
    assert [each.payload["target"] for each in progress] == [1.0] * len(progress)
    current = [each.payload["current"] for each in progress]
    assert current == sorted(current)
    assert client.answers[-1].code == "done"


async def test_a_short_move_tells_no_progress(client: Client) -> None:
    number = await client.start("motor", "set", 1.0)
    await client.end(number)
    assert [answer.code for answer in client.of(number)] == ["done"]


async def test_a_failing_status_is_told_with_its_error(client: Client) -> None:
    failure = await client.failure("slow2", "set", "far away")
    assert not failure.in_call
    assert failure.device == "slow2"
    assert "Traceback" in failure.traceback


async def test_nothing_overtakes_an_unstage_that_is_under_way(client: Client) -> None:
    """The RunEngine does not wait for it: a new plan's first trigger may come meanwhile."""
    await client.start("lingering", "unstage")
    await client.ask("lingering", "trigger")
    assert await client.ask("lingering", "history") == ["unstaged", "triggered"]


async def test_order_holds_for_a_device_that_blocks(client: Client) -> None:
    first = await client.start("napper", "trigger")
    second = await client.start("napper", "read")
    await client.end(second)
    codes = [answer.id for answer in client.answers]
    assert codes.index(first) < codes.index(second)


@pytest.mark.parametrize("device", ["napper", "dozer"])
async def test_a_device_that_blocks_holds_up_no_other(client: Client, device: str) -> None:
    slow = await client.start(device, "nap", 0.5)
    assert (await client.ask("sig", "read"))["sig"]["value"] == 1.0
    assert await client.ask("soft", "get") == 1.5
    assert client.of(slow) == []
    assert await client.end(slow) == "slept"


async def test_blocking_devices_of_one_batch_have_threads_of_their_own(client: Client) -> None:
    ops = [client.op("dozer", "nap", 0.5), client.op("sig", "read")]
    await client.send(*ops)
    await client.end(ops[1].id)
    assert client.of(ops[0].id) == []
    await client.end(ops[0].id)


# ── detectors that write files, flights ──


async def test_a_camera_is_triggered_and_says_what_it_wrote(client: Client, server: DeviceServer) -> None:
    await client.ask("blob", "stage")
    done = completion(await client.ask("blob", "trigger"))
    assert done.describe_generation == 1
    assert done.hints == {"fields": ["blob-sum"]} or done.hints is None
    assert await client.ask("blob", "read") == {}
    described = await client.ask("blob", "describe")
    assert described["blob"]["external"] == "STREAM:"
    documents = await client.ask("blob", "collect_asset_docs")
    assert [name for name, _ in documents] == ["stream_resource", "stream_resource", "stream_datum", "stream_datum"]
    path = Path(documents[0][1]["uri"].removeprefix("file://localhost"))
    assert path.is_relative_to(server.settings.files_dir)
    assert path.is_file()  # noqa: ASYNC240  # a test has the time
    datum: StreamDatum = documents[2][1]
    assert datum["indices"] == {"start": 0, "stop": 1}
    await client.ask("blob", "unstage")


async def test_arguments_become_pydantic_models_again(client: Client) -> None:
    await client.ask("blob", "stage")
    prepared = completion(await client.ask("blob", "prepare", TriggerInfo(number_of_events=3, livetime=0.01)))
    assert prepared.describe_generation == 2
    assert prepared.hints == {"fields": ["blob"]} or prepared.hints is None
    await client.ask("blob", "kickoff")
    await client.ask("blob", "complete")
    assert await client.ask("blob", "get_index") == 3
    documents = await client.ask("blob", "collect_asset_docs", 2)
    assert documents[-1][1]["indices"] == {"start": 0, "stop": 2}
    await client.ask("blob", "unstage")
    failure = await client.failure("blob", "prepare", {"number_of_events": "many"})
    assert failure.kind == "ValueError"
    assert "number_of_events" in failure.text


async def test_a_motor_flies(client: Client) -> None:
    await client.ask("slow2", "prepare", FlyMotorInfo(start_position=0, end_position=0.4, time_for_move=0.2))
    await client.ask("slow2", "kickoff")
    await client.ask("slow2", "complete")
    assert await client.ask("slow2", "get") >= 0.4


async def test_a_flyer_of_ophyd_is_collected(client: Client) -> None:
    await client.ask("flyer", "kickoff")
    await client.ask("flyer", "complete")
    events = await client.ask("flyer", "collect")
    assert len(events) == 5
    assert (await client.ask("flyer", "describe_collect")).keys() == {"flyer"}


async def test_the_server_tells_its_devices(client: Client) -> None:
    infos = await client.ask("", "list")
    assert {each["path"] for each in infos} >= {"axis", "motor.velocity", "blob"}
    assert abs(await client.ask("", "ping") - time.time()) < 5
