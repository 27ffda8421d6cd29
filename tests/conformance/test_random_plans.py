"""Random plans: any order of valid messages gives the same at home and remotely."""

from typing import Any

import bluesky.plan_stubs as bps
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.comparison import Devices, Pair, seen

MOVABLE = ["motor", "sim_x", "temperature", "limited", "turned.along"]
READABLE = ["motor", "sim_x", "temperature", "limited", "det", "counter", "faulty_async"]

names = st.lists(st.sampled_from(READABLE), min_size=1, max_size=4, unique=True)
STEPS = st.one_of(
    st.tuples(
        st.just("move"), st.lists(st.sampled_from(MOVABLE), min_size=1, max_size=3, unique=True), st.integers(-5, 5)
    ),
    st.tuples(st.just("set"), st.sampled_from(MOVABLE), st.integers(-5, 5)),
    st.tuples(st.just("wait")),
    st.tuples(st.just("point"), names),
    st.tuples(st.just("event moved in"), names, st.sampled_from(MOVABLE), st.booleans()),
    st.tuples(st.just("read"), st.sampled_from(READABLE)),
    st.tuples(st.just("locate"), st.sampled_from(["sim_x", "temperature", "faulty_async"])),
    st.tuples(st.just("trigger"), st.sampled_from(["det", "counter", "broken", "refusing"])),
    st.tuples(st.just("stop"), st.sampled_from(["sim_x"])),
    st.tuples(st.just("checkpoint")),
    st.tuples(st.just("pause")),
    st.tuples(st.just("new run")),
)


def part(d: Devices, path: str) -> Any:
    name, _, child = path.partition(".")
    return getattr(d[name], child) if child else d[name]


def one_step(d: Devices, step: tuple[Any, ...]) -> Any:
    """Do a step; give what the plan sees of it."""
    match step:
        case ("move", names, value):
            yield from bps.mv(*(item for name in names for item in (part(d, name), value / 2.5)))
        case ("set", name, value):
            yield from bps.abs_set(part(d, name), value / 2.5, group="moves")
        case ("wait",):
            yield from bps.wait("moves")
        case ("point", names):
            yield from bps.wait("moves")
            yield from bps.trigger_and_read([d[name] for name in names], name="+".join(sorted(names)))
        case ("event moved in", names, moved, is_saved):
            yield from bps.wait("moves")
            yield from bps.create("+".join(sorted(names)))
            for name in names:
                yield from bps.read(d[name])
                yield from bps.mv(part(d, moved), 0.5)
            yield from bps.save() if is_saved else bps.drop()
        case ("read", name):
            yield from bps.wait("moves")
            return (yield from bps.rd(d[name])) if name not in ("det", "counter", "faulty_async") else None
        case ("locate", name):
            yield from bps.wait("moves")
            return (yield from bps.locate(d[name]))
        case ("trigger", name):
            yield from bps.trigger(d[name], wait=True)
        case ("stop", name):
            yield from bps.wait("moves")
            yield from bps.stop(d[name])
        case ("checkpoint",):
            yield from bps.checkpoint()
        case ("pause",):
            yield from bps.wait("moves")
            yield from bps.pause()
        case _:
            yield from bps.close_run()
            yield from bps.open_run()


def plan_of(d: Devices, steps: list[tuple[Any, ...]]) -> Any:
    """Do the steps in a run, with what goes wrong noted."""
    results: list[Any] = []
    yield from bps.mv(*(item for name in MOVABLE for item in (part(d, name), 0.0)), d["counter"].value, 0)
    yield from bps.mv(d["faulty_async"].gain, 2, d["faulty_async"].value, 1.0)
    yield from bps.open_run()
    yield from bps.checkpoint()
    for step in steps:
        try:
            results.append((yield from one_step(d, step)))
        except Exception as error:  # noqa: BLE001  # what the plan sees is compared
            results.append(seen(error))
    yield from bps.close_run()
    return results


@settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEPS, min_size=1, max_size=12))
def test_random_messages_give_the_same_with_remote_devices(steps: list[tuple[Any, ...]], pair: Pair) -> None:
    pair.compare(lambda d: plan_of(d, steps))
