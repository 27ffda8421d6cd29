"""What a Status offers besides its end: progress, callbacks from any thread, timeouts, a readable `repr`."""

import asyncio
import threading
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import pytest
from bluesky.utils import FailedStatus, maybe_await

from bec_bluesky.errors import DeviceTimeout
from tests.conformance.comparison import Devices, Pair, seen
from tests.proxy.conftest import DEADLINE, Bench

CREEPING = {"ophyd": "creeping", "ophyd-async": "slow"}
"""{layer: a device that takes for ever}"""


def in_loop(bench: Bench, coroutine: Any) -> Any:
    """Do something in the RunEngine's loop."""
    return asyncio.run_coroutine_threadsafe(coroutine, bench.RE.loop).result(DEADLINE)


def start(bench: Bench, name: str) -> Any:
    """Let a device creep; give its status."""
    device = bench.devices[name]

    async def begin() -> Any:
        if hasattr(device, "velocity"):
            await device.velocity.set(0.5)
        return device.set(500.0)

    return in_loop(bench, begin())


def stop(bench: Bench, name: str) -> None:
    async def end() -> None:
        await maybe_await(bench.devices[name].stop())

    in_loop(bench, end())


@pytest.mark.parametrize("layer", CREEPING)
def test_progress_says_the_same_things(layer: str, pair: Pair) -> None:
    name = CREEPING[layer]
    keys = []
    for bench in (pair.local, pair.remote):
        told: list[dict[str, Any]] = []
        heard = threading.Event()

        def watcher(told: list[dict[str, Any]] = told, heard: threading.Event = heard, **progress: Any) -> None:
            told.append(progress)
            heard.set()

        status = start(bench, name)
        status.watch(watcher)
        assert heard.wait(DEADLINE)
        stop(bench, name)
        assert told[0]["name"] == name
        assert told[0]["target"] == 500.0
        assert 0.0 <= told[0]["current"] < 500.0
        keys.append({key for key, value in told[0].items() if value is not None})
    assert keys[0] == keys[1]


@pytest.mark.parametrize("layer", CREEPING)
def test_callbacks_of_any_thread_are_called_once_before_and_after_the_end(layer: str, pair: Pair) -> None:
    name = CREEPING[layer]
    status = start(pair.remote, name)
    called: list[str] = []
    ended = [threading.Event() for _ in range(8)]

    def add(number: int) -> None:
        def callback(done: Any) -> None:
            called.append(f"{number} {done is status} {done.done}")
            ended[number].set()

        status.add_callback(callback)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert called == []
    with pytest.raises(DeviceTimeout, match=f"{name}.set.*not done after 0.05 s"):
        status.exception(timeout=0.05)
    assert status.exception() is None and not status.done
    stop(pair.remote, name)
    assert all(each.wait(DEADLINE) for each in ended[:7])
    add(7)  # at once
    assert sorted(called) == [f"{number} True True" for number in range(8)]
    assert status.exception(timeout=None) is not None
    assert not status.success


def test_a_timeout_of_a_status_is_the_same(pair: Pair) -> None:
    def plan(d: Devices) -> Any:
        device = d["creeping"]  # ophyd-async's simulated motor knows no timeout; TimeoutError: test_failing_devices
        try:
            yield from bps.abs_set(device, 500.0, timeout=0.05, wait=True)
        except FailedStatus as error:
            yield from bps.stop(device)
            return seen(error)
        return "it arrived"

    assert "Timeout" in pair.compare(plan).value[2][0]


@pytest.mark.parametrize("layer", CREEPING)
def test_a_wait_that_times_out_is_the_same(layer: str, pair: Pair) -> None:
    def plan(d: Devices) -> Any:
        device = d[CREEPING[layer]]
        if hasattr(device, "velocity"):
            yield from bps.mv(device.velocity, 0.5)
        yield from bps.abs_set(device, 500.0, group="move")
        try:
            yield from bps.wait("move", timeout=0.05)
        except TimeoutError as error:
            return type(error).__name__
        return "it arrived"

    assert pair.compare(plan).value == "WaitForTimeoutError"


@pytest.mark.parametrize("name", ["faulty", "faulty_async"])
def test_the_reason_in_a_stop_document_can_be_read(name: str, pair: Pair) -> None:
    reasons: list[str] = []

    def plan(d: Devices) -> Any:
        device = d[name]

        @bpp.run_decorator()
        def inner() -> Any:
            yield from bps.abs_set(device, 1.0, wait=True)

        yield from bps.mv(device.fault, "set status RuntimeError")
        yield from bpp.finalize_wrapper(inner(), lambda: bps.mv(device.fault, ""))

    RE = pair.remote.RE
    token = RE.subscribe(lambda _, document: reasons.append(document["reason"]), "stop")
    try:
        pair.compare(plan)
    finally:
        RE.unsubscribe(token)
    (reason,) = reasons
    assert reason == f"<Status of {name}.set(1.0): RuntimeError: the shutter is stuck [{name} on device server main]>"
