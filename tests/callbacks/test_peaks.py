import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import bluesky.plans as bp
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.callbacks.fitting import PeakStats
from event_model import compose_run, pack_event_page
from ophyd.sim import SynAxis, SynGauss, SynSignal
from scipy.special import erf

from bec_bluesky.documents import AnalysisResult, Document
from callbacks import _peak
from callbacks.peaks import PeakAnalysis

X = np.linspace(-5, 5, 51)
Documents = list[tuple[str, Document]]


def bell(x: Any, center: float, sigma: float) -> Any:
    return np.exp(-0.5 * ((x - center) / sigma) ** 2)


def step_up(x: Any, center: float, sigma: float) -> Any:
    return 0.5 * (1 + erf((x - center) / (sigma * math.sqrt(2))))


def run(engine: RunEngine, plan: Any, *others: Any) -> list[AnalysisResult]:
    made: list[Any] = []
    engine(plan, [PeakAnalysis(emit=made.append), *others])
    return made


def composed(x: Any, y: Any, *, seq_nums: Any = None, seconds: float = 1.0) -> Documents:
    """A line scan over `x` with a signal `y`, one point each so many seconds."""
    run = compose_run(metadata={"scan_id": 3, "hints": {"dimensions": [[["x"], "primary"]]}}, time=0.0)
    number = {"dtype": "number", "shape": [], "source": "test"}
    keys = {"x": number, "y": number}
    stream = run.compose_descriptor(
        name="primary", data_keys=keys, hints={"d": {"fields": ["x", "y"]}}, object_keys={"d": ["x", "y"]}
    )
    documents: Documents = [("start", run.start_doc), ("descriptor", stream.descriptor_doc)]
    for n, (a, b) in enumerate(zip(x, y, strict=True)):
        event = stream.compose_event(
            data={"x": a, "y": b},
            timestamps={"x": 0.0, "y": 0.0},
            seq_num=n + 1 if seq_nums is None else seq_nums[n],
            time=n * seconds,
        )
        documents.append(("event", event))
    return [*documents, ("stop", run.compose_stop())]


def analysed(documents: Documents, **settings: Any) -> list[Any]:
    made: list[Any] = []
    analysis = PeakAnalysis(emit=made.append, **settings)
    for name, doc in documents:
        analysis(name, doc)
    return made


def test_a_scan_over_a_gaussian_gives_its_centre_and_width(
    run_engine: RunEngine, motor: SynAxis, gauss: SynGauss
) -> None:
    statistics = PeakStats("motor", "gauss")
    *_, final = run(run_engine, bp.scan([gauss], motor, -5, 5, 51), statistics)
    assert (final.x, final.y, final.points, final.final, final.note) == ("motor", "gauss", 51, True, "")
    assert final.fit == pytest.approx(
        {"amplitude": 100, "center": 0.7, "sigma": 0.8, "fwhm": 0.8 * 2.3548200, "background": 0}, abs=1e-6
    )
    expected = {
        "center": statistics.cen,
        "center_of_mass": statistics.com,
        "fwhm": statistics.fwhm,
        "max": statistics.max[1],
        "max_position": statistics.max[0],
        "min": statistics.min[1],
        "min_position": statistics.min[0],
    }
    assert final.values == pytest.approx({name: float(value) for name, value in expected.items()}, rel=1e-9)
    assert final.values["fwhm"] == pytest.approx(final.fit["fwhm"], rel=0.02)


def test_exactly_one_result_is_final_and_comes_last(run_engine: RunEngine, motor: SynAxis, gauss: SynGauss) -> None:
    made = run(run_engine, bp.scan([gauss], motor, -5, 5, 21))
    assert [result.final for result in made] == [False] * (len(made) - 1) + [True]


def test_every_hinted_scalar_signal_gets_a_result_and_no_other(
    run_engine: RunEngine, motor: SynAxis, gauss: SynGauss
) -> None:
    second = SynGauss("second", motor, "motor", center=-1, Imax=10, sigma=1)
    wave = SynSignal(name="wave", func=lambda: np.arange(3.0))
    wave.trigger().wait(timeout=5)
    made = run(run_engine, bp.scan([gauss, second, wave], motor, -5, 5, 31))
    assert {(result.x, result.y) for result in made} == {("motor", "gauss"), ("motor", "second")}
    assert made[-1].fit["center"] == pytest.approx(-1, abs=1e-6)


def test_a_count_gives_nothing(run_engine: RunEngine, gauss: SynGauss) -> None:
    assert run(run_engine, bp.count([gauss], 5)) == []


def test_a_grid_gives_extremes_and_centre_of_mass_along_each_axis(
    run_engine: RunEngine, motor: SynAxis, gauss: SynGauss
) -> None:
    slow = SynAxis(name="slow")
    made = run(run_engine, bp.grid_scan([gauss], slow, 0, 2, 3, motor, -3, 3, 31))
    along_slow, along_motor = (result for result in made if result.final)
    assert (along_slow.x, along_motor.x) == ("slow", "motor")
    assert along_motor.points == 93
    assert along_motor.values["max_position"] == pytest.approx(0.6, abs=0.11)
    assert along_motor.values["center_of_mass"] == pytest.approx(0.7, abs=0.02)
    assert along_slow.values["center_of_mass"] == pytest.approx(1.0)
    assert "fwhm" not in along_motor.values
    assert along_motor.fit == {}
    assert "grid" in along_motor.note


@pytest.mark.parametrize(("height", "background"), [(100.0, 7.0), (-100.0, 107.0)])
def test_an_edge_is_recognised(height: float, background: float) -> None:
    *_, final = analysed(composed(X, background + height * step_up(X, 1.3, 0.5)))
    assert "edge" in final.note
    assert final.fit == pytest.approx(
        {"amplitude": height, "center": 1.3, "sigma": 0.5, "fwhm": 0.5 * 2.3548200, "background": background}, abs=1e-5
    )
    assert final.values["center"] == pytest.approx(1.3, abs=0.02)
    assert "fwhm" not in final.values


def test_a_dip_has_a_negative_amplitude() -> None:
    *_, final = analysed(composed(X, 1_000 - 100 * bell(X, -1, 0.5)))
    assert final.fit["amplitude"] == pytest.approx(-100, rel=1e-6)
    assert final.values["center"] == pytest.approx(-1, abs=0.01)
    assert final.values["fwhm"] == pytest.approx(0.5 * 2.35482, rel=0.02)


def test_nan_and_infinity_are_left_out() -> None:
    y = 100 * bell(X, 1, 0.7)
    clean = analysed(composed(X, y))[-1]
    x_extra, y_extra = np.append(X, [1.0, math.nan, 2.0]), np.append(y, [math.nan, 5.0, math.inf])
    dirty = analysed(composed(x_extra, y_extra))[-1]
    assert dirty.points == 51
    assert (dirty.values, dirty.fit) == (clean.values, clean.fit)


def test_points_out_of_order_give_the_same() -> None:
    y = 100 * bell(X, 1, 0.7)
    order = np.random.default_rng(4).permutation(len(X))
    shuffled, ordered = analysed(composed(X[order], y[order]))[-1], analysed(composed(X, y))[-1]
    assert shuffled.values == pytest.approx(ordered.values)
    assert shuffled.fit == pytest.approx(ordered.fit, abs=1e-9)


def test_a_point_taken_again_replaces_the_earlier_one() -> None:
    *_, final = analysed(composed([0, 1, 2, 1, 2], [1, 99, 98, 5, 2], seq_nums=[1, 2, 3, 2, 3]))
    assert final.points == 3
    assert (final.values["max"], final.values["max_position"]) == (5, 1)


def test_a_page_gives_the_same_as_its_events() -> None:
    documents = composed(X, 100 * bell(X, 1, 0.7))
    page = pack_event_page(*(doc for name, doc in documents if name == "event"))
    paged = [*documents[:2], ("event_page", page), documents[-1]]
    assert analysed(paged)[-1] == analysed(documents)[-1]


@pytest.mark.parametrize(
    "y",
    [
        pytest.param(np.ones(51), id="flat"),
        pytest.param(np.where(np.arange(51) == 20, 1.0, 0.0), id="one spike"),
        pytest.param(2 * X, id="line"),
        pytest.param(np.where(X > 0, 1e308, -1e308), id="overflow"),
        pytest.param(np.random.default_rng(1).normal(0, 1, 51), id="noise"),
    ],
)
def test_what_is_no_peak_has_no_fit_and_only_finite_numbers(y: Any) -> None:
    *_, final = analysed(composed(X, y))  # warnings are errors here
    assert final.fit == {}
    assert final.values["max"] == y.max()
    assert all(math.isfinite(value) for value in final.values.values())


def test_fewer_than_five_points_have_no_fit() -> None:
    assert analysed(composed(X[20:24], bell(X[20:24], 0, 1)))[-1].fit == {}
    assert analysed(composed(X[23:28:1], bell(X[23:28], 0, 0.3)))[-1].fit != {}


def test_a_noisy_peak_is_a_peak_and_a_noisy_edge_an_edge() -> None:
    random = np.random.default_rng(7)
    for _ in range(50):
        center, sigma = random.uniform(-2, 2), random.uniform(0.3, 1.0)
        for model, shape in (("gaussian", bell), ("edge", step_up)):
            found = _peak.fit(X, random.poisson(200 * shape(X, center, sigma) + 5).astype(float))
            assert found is not None
            assert found.model == model
            assert found.parameters["center"] == pytest.approx(center, abs=0.15)


def test_a_hundred_thousand_points_are_fitted_as_well() -> None:
    x = np.linspace(-5, 5, 100_001)
    found = _peak.fit(x, 100 * bell(x, 1, 0.7) + 3)
    assert found is not None
    assert found.parameters["center"] == pytest.approx(1, abs=1e-3)
    assert found.parameters["amplitude"] == pytest.approx(100, rel=1e-3)


def test_without_ticks_results_come_by_the_documents_time() -> None:
    documents = composed(X, 100 * bell(X, 1, 0.7), seconds=0.05)  # 2.5 s
    made = analysed(documents)
    assert 10 <= len(made) - 1 <= 13
    assert all(result.fit == {} for result in made[:-1])
    assert len(analysed(documents, rate=0)) == 1


def test_ticks_give_fits_while_the_run_goes_on(until: Callable[[Callable[[], bool]], None]) -> None:
    made: list[Any] = []
    analysis = PeakAnalysis(emit=made.append, rate=100.0)
    analysis.tick()
    *documents, stop = composed(X, 100 * bell(X, 1, 0.7))
    for name, doc in documents:
        analysis(name, doc)
    assert made == []

    def has_fit() -> bool:
        analysis.tick()
        return bool(made)

    until(has_fit)
    analysis.tick()
    assert [result.final for result in made] == [False]  # nothing new, nothing said
    assert made[0].fit["center"] == pytest.approx(1, abs=1e-6)
    analysis(*stop)
    assert [result.final for result in made] == [False, True]
    assert made[1].fit == made[0].fit


def test_ticks_that_begin_in_mid_run_go_on_from_there() -> None:
    made: list[Any] = []
    analysis = PeakAnalysis(emit=made.append)
    *documents, _ = composed(X, 100 * bell(X, 1, 0.7), seconds=1e9)  # their time is far ahead of the monotonic clock
    for name, doc in documents:
        analysis(name, doc)
    before = len(made)
    analysis.tick()
    assert len(made) == before
    analysis("event", {**documents[-1][1], "uid": "another", "seq_num": 52})
    analysis.tick()
    assert len(made) == before + 1


def test_importing_the_analysis_does_not_import_scipy() -> None:
    code = (
        "import sys; from bec_bluesky import plugins, settings; plugins.mount(settings.load()); "
        "import callbacks.peaks; sys.exit('scipy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
