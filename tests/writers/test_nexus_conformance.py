"""Run files of every kind of run, as pynxtools, nexusformat and silx see them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import h5py
import pytest
from bluesky import RunEngine
from bluesky.utils import FailedStatus, RunEngineInterrupted
from ophyd.sim import SynAxis, SynGauss
from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider, soft_signal_rw
from ophyd_async.plan_stubs import ensure_connected
from ophyd_async.sim import PatternGenerator, SimBlobDetector

from bec_bluesky.documents import FileReady
from plans.fly import fly_scan
from tests.engines import running_engine
from tests.writers.readers import complaints
from writers.nexus import NexusWriter

KINDS = ("scan", "grid", "snake", "fly", "frames", "count", "streams", "aborted", "failed", "resumed")
Take = Callable[[str, Any], None]


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The file of a run of each kind."""
    root = tmp_path_factory.mktemp("conformance")
    ready: list[FileReady] = []
    writer = NexusWriter(directory=root, emit=lambda made: isinstance(made, FileReady) and ready.append(made))
    paths: dict[str, Path] = {}

    def take(kind: str, plan: Any) -> None:
        try:
            engine(plan, sample="CuO", user="ada")
        except RunEngineInterrupted:
            engine.resume()
        except (RuntimeError, FailedStatus):
            assert kind in ("aborted", "failed")
        paths[kind] = Path(ready[-1].path)

    with running_engine() as engine:
        engine.subscribe(writer)
        try:
            take_all(engine, root, take)
            yield paths
        finally:
            writer.close()


def take_all(engine: RunEngine, root: Path, take: Take) -> None:
    x, y = SynAxis(name="x"), SynAxis(name="y")
    det = SynGauss("det", x, "x", center=0, Imax=10, sigma=1)
    folder = root / "frames"
    folder.mkdir()
    blob = SimBlobDetector(StaticPathProvider(UUIDFilenameProvider(), folder), PatternGenerator(), name="blob")
    temperature = soft_signal_rw(float, 21.5, name="temperature", units="degC")
    engine(ensure_connected(blob, temperature))

    def broken(error: Exception | None) -> Any:
        yield from bps.open_run()
        for position in (0, 1, 2):
            yield from bps.mv(x, position)
            yield from bps.trigger_and_read([det, x])
        if error is not None:
            raise error
        yield from bps.close_run("abort", "enough")

    def paused() -> Any:
        yield from bps.checkpoint()
        yield from bp.scan([det], x, 0, 1, 3, per_step=halting())

    def halting() -> Any:
        seen: list[int] = []

        def step(detectors: Any, step: Any, pos_cache: Any) -> Any:
            seen.append(1)
            if len(seen) == 2:
                yield from bps.pause()
            yield from bps.one_nd_step(detectors, step, pos_cache)

        return step

    take("scan", bp.scan([det], x, -1, 1, 5))
    take("grid", bp.grid_scan([det], x, -1, 1, 3, y, 0, 1, 2, snake_axes=False))
    take("snake", bp.grid_scan([det], x, -1, 1, 3, y, 0, 1, 4, snake_axes=True))
    take("fly", fly_scan([blob], 4, 0.01))
    take("frames", bp.scan([det, blob], x, -1, 1, 3))
    take("count", bp.count([det], 3))
    monitored = bpp.monitor_during_wrapper(bp.scan([det], x, -1, 1, 3), [temperature])
    take("streams", bpp.baseline_wrapper(monitored, [y, temperature]))
    take("aborted", broken(None))
    take("failed", broken(RuntimeError("no beam")))
    take("resumed", paused())


@pytest.fixture(scope="module")
def found(taken: dict[str, Path]) -> dict[str, dict[str, list[str]]]:
    answers = complaints(taken.values())
    return {kind: answers[path] for kind, path in taken.items()}


@pytest.mark.parametrize("reader", ["pynxtools", "nexusformat", "silx"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_finds_no_error(found: dict[str, dict[str, list[str]]], kind: str, reader: str) -> None:
    assert found[kind][reader] == []


def test_the_readers_do_complain_of_a_file_that_is_wrong(taken: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.nxs"
    broken.write_bytes(taken["scan"].read_bytes())
    with h5py.File(broken, "r+") as file:
        del file["entry/start_time"]
        file["entry/start_time"] = "yesterday"
        file["entry/data"].attrs["signal"] = "nothing"
        file["entry/data"].attrs["axes"] = ["x", "y", "z"]
    said = complaints([broken])[broken]
    assert all(said.values()), said
