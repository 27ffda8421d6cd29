"""Suspenders on signals of both kinds that trip within a scan, and let it go on: with what they do before and after."""

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import pytest
from bluesky.suspenders import (
    SuspendBoolHigh,
    SuspendBoolLow,
    SuspendCeil,
    SuspenderBase,
    SuspendFloor,
    SuspendWhenOutsideBand,
)

from tests.conformance.comparison import Devices, Pair, differences
from tests.proxy.conftest import Bench, Outcome

SUSPENDERS: dict[str, tuple[Callable[..., SuspenderBase], tuple[Any, ...], float, float]] = {
    "SuspendBoolHigh": (SuspendBoolHigh, (), 0.0, 1.0),
    "SuspendBoolLow": (SuspendBoolLow, (), 1.0, 0.0),
    "SuspendFloor": (SuspendFloor, (0.5,), 1.0, 0.25),
    "SuspendCeil": (SuspendCeil, (2.5,), 1.0, 3.0),
    "SuspendWhenOutsideBand": (SuspendWhenOutsideBand, (0.5, 1.5), 1.0, 7.0),
}
"""{class: (what makes it, its limits, a good value, a bad value)}"""


def suspended(bench: Bench, name: str, suspender: str) -> Outcome:
    """Scan three points; at the second one, with its motors moved, the signal becomes bad; the pre-plan mends it."""
    make, limits, good, bad = SUSPENDERS[suspender]
    devices: Devices = bench.devices
    signal = devices[name]
    did: list[str] = []
    released = asyncio.Event()

    async def trip() -> None:
        """Make the signal bad once, and stay here; when the point is taken again, go on."""
        if "tripped" not in did:
            did.append("tripped")
            signal.set(bad)
            await released.wait()

    def before() -> Any:
        did.append("before")
        released.set()
        yield from bps.mv(devices["motor2"], 7.0)
        yield from bps.mv(signal, good)

    def after() -> Any:
        did.append("after")
        yield from bps.mv(devices["motor2"], 8.0)

    guard = make(signal, *limits, sleep=0, pre_plan=before, post_plan=after, tripped_message="no beam")

    @bpp.run_decorator()
    def scan() -> Any:
        for number in range(3):
            yield from bps.checkpoint()
            yield from bps.mv(devices["motor"], number, devices["sim_x"], -number)
            yield from bps.trigger_and_read([devices["counter"]], name="counts")
            if number == 1:
                yield from bps.wait_for([trip])
            yield from bps.trigger_and_read([devices[n] for n in ("det", "motor", "sim_x", "motor2")])
            did.append("point")

    def plan() -> Any:
        yield from bps.mv(devices["motor"], 5, devices["sim_x"], 5, devices["motor2"], 0, signal, good)
        yield from bps.mv(devices["counter"].value, 0)
        yield from bps.install_suspender(guard)
        yield from bpp.finalize_wrapper(scan(), bps.remove_suspender(guard))
        return did

    bench.RE.md["scan_id"] = 0
    bench.RE.record_interruptions = True
    try:
        return bench.run(plan())
    finally:
        bench.RE.record_interruptions = False


@pytest.mark.parametrize("suspender", SUSPENDERS)
def test_a_point_is_taken_again_after_a_suspension(suspender: str, pair: Pair) -> None:
    at_home = suspended(pair.local, "sig", suspender)
    assert at_home.errors == []
    assert at_home.value == ["point", "tripped", "before", "after", "point", "point"]
    counts = [document["data"]["counter_value"] for document in events(at_home) if "counter_value" in document["data"]]
    assert counts == [1, 2, 3, 4]
    assert any("no beam" in str(document["data"]) for document in events(at_home))
    assert not list(differences("", asdict(at_home), asdict(suspended(pair.remote, "sig", suspender))))


@pytest.mark.parametrize("suspender", SUSPENDERS)
def test_a_signal_of_ophyd_async_suspends_as_one_of_ophyd(suspender: str, pair: Pair) -> None:
    """In process such a signal cannot: bluesky subscribes as ophyd does. So the other kind says what is expected."""
    expected = asdict(suspended(pair.local, "sig", suspender))
    far_away = asdict(suspended(pair.remote, "temperature", suspender))
    pair.remote.run(bps.mv(pair.remote.devices["temperature"], 1.5))  # as at home again, for other tests
    assert not list(differences("", without_names(expected), without_names(far_away)))


def events(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """Give the event documents."""
    return (document for name, document in outcome.documents if name == "event")


def without_names(value: Any) -> Any:
    """Leave out the name of the signal, which stands in the justification."""
    if isinstance(value, dict):
        return {key: without_names(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_names(item) for item in value]
    return re.sub("Signal (sig|temperature)", "Signal", value) if isinstance(value, str) else value
