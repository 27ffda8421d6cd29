"""Every plan of `bluesky.plans`, of which a later bluesky may have more: a plan without a case fails the suite."""

import inspect
from collections.abc import Callable
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import pytest
from cycler import cycler

from tests.conformance.comparison import Devices, Pair

CASES: dict[str, Callable[[Devices], Any]] = {
    "count": lambda d: bp.count([d["det"], d["sim_x"], d["temperature"]], num=3),
    "count with delays": lambda d: bp.count([d["det"], d["wave"]], num=3, delay=[0.001, 0.0]),
    "count with a shot of its own": lambda d: bp.count([d["det"]], num=2, per_shot=_two_streams),
    "scan": lambda d: bp.scan([d["det"], d["det2"]], d["motor"], -1, 1, 5),
    "scan of ophyd-async": lambda d: bp.scan([d["temperature"], d["mode"]], d["sim_x"], -1, 1, 5),
    "scan of both kinds": lambda d: bp.scan([d["det"]], d["motor"], -1, 1, d["sim_x"], 0, 2, 4),
    "scan with files": lambda d: bp.scan([d["blob"], d["image"]], d["sim_x"], 0, 2, 3),
    "scan with a step of its own": lambda d: bp.scan([d["det"]], d["motor"], 0, 1, 2, per_step=_step_and_look),
    "rel_scan": lambda d: _displaced(d, bp.rel_scan([d["det"]], d["motor"], -1, 1, d["sim_x"], 0, 1, 3)),
    "list_scan": lambda d: bp.list_scan([d["det"]], d["motor"], [0, 1, 5, 2], d["sim_x"], [3, 2, 1, 0]),
    "rel_list_scan": lambda d: _displaced(d, bp.rel_list_scan([d["det"]], d["motor"], [0, 1, 2])),
    "list_grid_scan": lambda d: bp.list_grid_scan(
        [d["det"]], d["motor"], [0, 1, 5], d["sim_x"], [3, 2], snake_axes=True
    ),
    "rel_list_grid_scan": lambda d: _displaced(
        d, bp.rel_list_grid_scan([d["det"]], d["motor"], [0, 1], d["sim_x"], [3, 2])
    ),
    "log_scan": lambda d: bp.log_scan([d["det"]], d["sim_x"], 1, 100, 3),
    "rel_log_scan": lambda d: _displaced(d, bp.rel_log_scan([d["det"]], d["motor"], 1, 100, 3)),
    "grid_scan": lambda d: bp.grid_scan(
        [d["det"], d["det2"]], d["motor"], -1, 1, 3, d["motor2"], 0, 2, 2, d["sim_x"], 0, 1, 2, snake_axes=[d["motor2"]]
    ),
    "rel_grid_scan": lambda d: _displaced(d, bp.rel_grid_scan([d["det"]], d["motor"], -1, 1, 2, d["sim_x"], 0, 1, 2)),
    "inner_product_scan": lambda d: bp.inner_product_scan([d["det"]], 3, d["motor"], -1, 1, d["motor2"], 0, 5),
    "relative_inner_product_scan": lambda d: _displaced(
        d, bp.relative_inner_product_scan([d["det"]], 3, d["motor"], -1, 1, d["sim_x"], 0, 5)
    ),
    "scan_nd": lambda d: bp.scan_nd([d["det"]], cycler(d["sim_x"], [10, 20, 5])),  # of several axes: `list_grid_scan`
    "spiral": lambda d: bp.spiral([d["det"]], d["motor"], d["motor2"], 0.0, 0.0, 2.0, 2.0, 0.8, 4),
    "rel_spiral": lambda d: _displaced(d, bp.rel_spiral([d["det"]], d["motor"], d["sim_x"], 2.0, 2.0, 1.0, 3)),
    "spiral_fermat": lambda d: bp.spiral_fermat([d["det"]], d["sim_x"], d["sim_y"], 0.0, 0.0, 2.0, 2.0, 0.8, 1.0),
    "rel_spiral_fermat": lambda d: _displaced(
        d, bp.rel_spiral_fermat([d["det"]], d["motor"], d["sim_x"], 2.0, 2.0, 1.0, 1.0)
    ),
    "spiral_square": lambda d: bp.spiral_square(
        [d["det"]], d["motor"], d["sim_x"], x_center=0, y_center=0, x_range=1, y_range=1, x_num=3, y_num=3
    ),
    "rel_spiral_square": lambda d: _displaced(
        d, bp.rel_spiral_square([d["det"]], d["motor"], d["sim_x"], x_range=1, y_range=1, x_num=3, y_num=3)
    ),
    "adaptive_scan": lambda d: bp.adaptive_scan([d["det"]], "det", d["motor"], -2, 2, 0.1, 1.0, 1.0, True),
    "rel_adaptive_scan": lambda d: _displaced(
        d, bp.rel_adaptive_scan([d["det"]], "det", d["motor"], -2, 2, 0.1, 1.0, 1.0, False)
    ),
    "tune_centroid": lambda d: _then_position(
        d, bp.tune_centroid([d["det"]], "det", d["motor"], -3, 3, 0.3, 9, 3.0, False)
    ),
    "tweak": lambda d: _answering(bp.tweak(d["det"], "det", d["motor"], 0.5), ["0.25", "", "stop"]),
    "ramp_plan": lambda d: bp.ramp_plan(
        bps.abs_set(d["motor"], 3.0, wait=True), d["sig"], lambda: bps.trigger_and_read([d["det"], d["motor"]])
    ),
    "fly": lambda d: bp.fly([d["flyer"]]),
    "x2x_scan": lambda d: _displaced(d, bp.x2x_scan([d["det"]], d["motor"], d["sim_x"], -1, 1, 3)),
}
"""{plan, and what is special in this case: how to make it}"""


def _two_streams(detectors: Any, take_reading: Any = None) -> Any:
    yield from bps.one_shot(detectors)
    yield from bps.trigger_and_read(detectors, name="again")


def _step_and_look(detectors: Any, step: Any, pos_cache: Any) -> Any:
    yield from bps.one_nd_step(detectors, step, pos_cache)
    for motor in step:
        yield from bps.rd(motor)


def _displaced(d: Devices, plan: Any) -> Any:
    """Give where the motors are after a plan that is to bring them back."""
    yield from bps.mv(d["motor"], 3, d["sim_x"], 2)
    yield from plan
    return (yield from bps.rd(d["motor"])), (yield from bps.rd(d["sim_x"]))


def _then_position(d: Devices, plan: Any) -> Any:
    yield from plan
    return (yield from bps.rd(d["motor"]))


def _answering(plan: Any, answers: list[str]) -> Any:
    """Answer what a plan asks people."""
    left = iter(answers)
    response = None
    while True:
        try:
            msg = plan.send(response)
        except StopIteration as end:
            return end.value
        response = next(left) if msg.command == "input" else (yield msg)


@pytest.mark.parametrize("case", CASES)
def test_a_plan_of_bluesky_gives_the_same_with_remote_devices(case: str, pair: Pair) -> None:
    outcome = pair.compare(lambda d: _at_rest(d, CASES[case](d)))
    assert outcome.errors == []
    assert outcome.documents[-1][0] == "stop"


def _at_rest(d: Devices, plan: Any) -> Any:
    yield from bps.mv(d["motor"], 0, d["motor2"], 0, d["sim_x"], 0, d["sim_y"], 0, d["sig"], 1.0)
    return (yield from plan)


def test_every_plan_of_bluesky_has_a_case() -> None:
    plans = {
        plan.__name__
        for name, plan in vars(bp).items()
        if inspect.isfunction(plan) and plan.__module__ == bp.__name__ and not name.startswith("_")
    }
    not_plans = {"derive_default_hints"}
    assert plans - not_plans <= {case.partition(" ")[0] for case in CASES}
