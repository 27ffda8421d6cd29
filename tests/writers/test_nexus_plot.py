"""The default plot of NeXus files, found by h5py and by nexusformat as a reader finds it."""

import time
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import h5py
import numpy as np
from bluesky import RunEngine
from bluesky.utils import RequestAbort
from nexusformat.nexus import nxload
from ophyd import Signal
from ophyd.sim import Syn2DGauss, SynAxis, SynGauss, SynSignal
from ophyd_async.sim import SimBlobDetector

from bec_bluesky.documents import FileReady
from tests.writers.nexus_harness import column, default_plot, run
from writers.nexus import NexusWriter


def test_a_scan_opens_with_its_signal_over_its_motor(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], motor: SynAxis, gauss: SynGauss
) -> None:
    documents = run(run_engine, bp.scan([gauss], motor, -2, 2, 21), writer)
    (ready,) = emitted
    data = default_plot(ready.path)
    with data.file:
        assert data.attrs["NX_class"] == "NXdata"
        assert data.attrs["signal"] == "gauss"
        assert list(data.attrs["axes"]) == ["motor"]
        assert data.attrs["motor_indices"] == 0
        assert data["gauss"][()].tolist() == column(documents, "gauss")
        assert data["motor"][()].tolist() == column(documents, "motor")
    plotted = nxload(ready.path).plottable_data
    assert plotted.nxsignal.nxdata.tolist() == column(documents, "gauss")
    assert plotted.nxaxes[0].nxdata.tolist() == column(documents, "motor")
    assert ready.writer == "nexus"
    assert ready.size == Path(ready.path).stat().st_size
    assert ready.shapes == {"/entry/data/gauss": [21]}
    assert ready.problems == []


def test_a_snaked_grid_is_put_in_order(run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady]) -> None:
    y, x = SynAxis(name="y"), SynAxis(name="x")
    peak = Syn2DGauss("peak", y, "y", x, "x", center=(0.3, -0.2), Imax=10, sigma=1)
    run(run_engine, bp.grid_scan([peak], y, -1, 1, 4, x, -2, 2, 5, snake_axes=True), writer)
    ys, xs = np.linspace(-1, 1, 4), np.linspace(-2, 2, 5)
    expected = 10 * np.exp(-((ys[:, None] - 0.3) ** 2 + (xs[None, :] + 0.2) ** 2) / 2)
    plotted = nxload(emitted[0].path).plottable_data
    assert plotted.nxsignal.nxname == "peak"
    np.testing.assert_allclose(plotted.nxsignal.nxdata, expected)
    np.testing.assert_allclose(plotted.nxaxes[0].nxdata, ys)
    np.testing.assert_allclose(plotted.nxaxes[1].nxdata, xs)
    assert emitted[0].shapes == {"/entry/data/peak": [4, 5]}


def test_three_snaked_axes_are_put_in_order(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady]
) -> None:
    z, y, x = SynAxis(name="z"), SynAxis(name="y"), SynAxis(name="x")
    where = Code("where", z, y, x)
    run(run_engine, bp.grid_scan([where], z, 0, 2, 3, y, 0, 1, 2, x, 0, 3, 4, snake_axes=True), writer)
    expected = [[[100 * k + 10 * j + i for i in range(4)] for j in range(2)] for k in range(3)]
    assert nxload(emitted[0].path).plottable_data.nxsignal.nxdata.tolist() == expected


class Code(Signal):
    """Reads as 100 z + 10 y + x, and is hinted."""

    def __init__(self, name: str, z: SynAxis, y: SynAxis, x: SynAxis) -> None:
        super().__init__(name=name, value=0.0)
        self._axes = (z, y, x)

    @property
    def hints(self) -> dict[str, list[str]]:
        return {"fields": [self.name]}

    def get(self, **_: Any) -> float:
        z, y, x = (axis.position for axis in self._axes)
        return float(100 * z + 10 * y + x)

    def read(self) -> Any:
        return {self.name: {"value": self.get(), "timestamp": time.time()}}


def test_an_incomplete_grid_has_nan_where_nothing_was_measured(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady]
) -> None:
    y, x = SynAxis(name="y"), SynAxis(name="x")
    peak = Syn2DGauss("peak", y, "y", x, "x", center=(0, 0), Imax=10)
    seen = 0

    def after_five(detectors: Any, step: Any, pos_cache: Any) -> Any:
        nonlocal seen
        if seen == 5:
            raise RequestAbort
        seen += 1
        yield from bps.one_nd_step(detectors, step, pos_cache)

    run(run_engine, bp.grid_scan([peak], y, 0, 2, 3, x, 0, 3, 4, snake_axes=True, per_step=after_five), writer)
    data = default_plot(emitted[0].path)
    with data.file as file:
        measured = ~np.isnan(data["peak"][()])
        assert measured.tolist() == [[True] * 4, [False, False, False, True], [False] * 4]
        np.testing.assert_allclose(data["y"][()], [0, 1, 2])
        assert file["entry/run/exit_status"].asstr()[()] == "abort"
        assert file["entry/run/num_points_measured"][()] == 5
        assert file["entry/run/num_points_planned"][()] == 12
        assert "num_points" not in file["entry/run"]


def test_a_count_is_plotted_over_time(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], gauss: SynGauss
) -> None:
    documents = run(run_engine, bp.count([gauss], 4), writer)
    times = [doc["time"] - documents[0][1]["time"] for name, doc in documents if name == "event"]
    plotted = nxload(emitted[0].path).plottable_data
    assert plotted.nxaxes[0].nxname == "time"
    assert plotted.nxaxes[0].nxdata.tolist() == times
    assert plotted.nxsignal.nxdata.tolist() == column(documents, "gauss")


def test_a_waveform_is_plotted_by_position(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], motor: SynAxis
) -> None:
    trace = SynSignal(name="trace", func=lambda: np.arange(8) * motor.position, kind="hinted")
    run(run_engine, bp.scan([trace], motor, 1, 3, 3), writer)
    plotted = nxload(emitted[0].path).plottable_data
    assert plotted.nxsignal.nxdata.tolist() == [[i * position for i in range(8)] for position in (1, 2, 3)]
    assert list(plotted.attrs["axes"]) == ["motor", "."]


def test_every_detector_has_a_plot_of_its_own(
    run_engine: RunEngine,
    writer: NexusWriter,
    emitted: list[FileReady],
    motor: SynAxis,
    gauss: SynGauss,
    frames: SimBlobDetector,
) -> None:
    other = SynGauss("other", motor, "motor", center=0, Imax=5)
    trace = SynSignal(name="trace", func=lambda: np.arange(8) * motor.position, kind="hinted")
    documents = run(run_engine, bp.scan([gauss, other, trace, frames], motor, 1, 3, 3), writer)
    with h5py.File(emitted[0].path) as file:
        entry = file["entry"]
        assert set(entry) >= {"data", "data_gauss", "data_other", "data_trace", "data_blob"}
        assert entry["data_other"].attrs["signal"] == "other"
        assert list(entry["data_other"].attrs["axes"]) == ["motor"]
        assert entry["data_other/other"] == entry["streams/primary/other"], "a link, not a copy"
        assert entry["data_blob/blob"].shape == (3, 240, 320)
    entry = nxload(emitted[0].path)["entry"]
    assert entry["data_other"].nxsignal.nxdata.tolist() == column(documents, "other")
    assert entry["data_trace"].nxsignal.shape == (3, 8)
    assert entry["data_blob"].nxsignal.shape == (3, 240, 320)
    assert entry["data_blob"].nxaxes[0].nxdata.tolist() == [1, 2, 3]


def test_detectors_of_a_grid_are_plotted_on_it(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady]
) -> None:
    y, x = SynAxis(name="y"), SynAxis(name="x")
    first = Syn2DGauss("first", y, "y", x, "x", center=(0, 0), Imax=10)
    second = Syn2DGauss("second", y, "y", x, "x", center=(1, 1), Imax=3)
    run(run_engine, bp.grid_scan([first, second], y, -1, 1, 3, x, -2, 2, 5, snake_axes=True), writer)
    entry = nxload(emitted[0].path)["entry"]
    ys, xs = np.linspace(-1, 1, 3), np.linspace(-2, 2, 5)
    expected = 3 * np.exp(-((ys[:, None] - 1) ** 2 + (xs[None, :] - 1) ** 2) / 2)
    np.testing.assert_allclose(entry["data_second"].nxsignal.nxdata, expected)
    np.testing.assert_allclose(entry["data_second"].nxaxes[1].nxdata, xs)
    assert entry["data"].nxsignal.nxname == "first"


def test_detectors_of_a_count_share_the_time(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], gauss: SynGauss, motor: SynAxis
) -> None:
    other = SynGauss("other", motor, "motor", center=0, Imax=5)
    run(run_engine, bp.count([gauss, other], 2), writer)
    with h5py.File(emitted[0].path) as file:
        assert file["entry/data_gauss/time"] == file["entry/data_other/time"]
        assert file["entry/data_other"].attrs["time_indices"] == 0
