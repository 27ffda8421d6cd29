"""Every way to read a run gives the same numbers: those of its documents, and of the detector's own file."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import h5py
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from ophyd import Signal
from ophyd.sim import SynAxis, SynGauss
from ophyd_async.sim import SimBlobDetector

from bec_bluesky.documents import CatalogAddress
from bec_bluesky.settings import Settings
from tests.patience import PATIENCE
from tests.writers.readings import Readings, of_documents
from writers.nexus import NexusWriter
from writers.tiled import TiledWriter

ROOT = Path(__file__).parents[2]
TABLES = ("v1, table", "bl.data, table")
"""What gives only columns of one value a row, or leaves frames out."""
DOCUMENTS = ("v1, documents", "bl.data, documents")
"""What names frames, and does not give them."""


@pytest.fixture
def writers(address: CatalogAddress, tmp_path: Path) -> Iterator[list[Any]]:
    tiled = TiledWriter(address.uri, address.api_key)
    nexus = NexusWriter(directory=tmp_path / "files", wait_for_files=0)
    yield [tiled, nexus]
    tiled.close()
    nexus.close()


def everything(motor: SynAxis, gauss: SynGauss, blob: SimBlobDetector, *, is_aborted: bool) -> Any:
    """Scalars of each type, text, a waveform, an image, frames by reference, a monitor, baseline."""
    watched = Signal(name="watched", value=1.5)
    wave = Signal(name="wave", value=np.linspace(0, 1, 7))
    image = Signal(name="image", value=np.arange(6).reshape(2, 3))
    whole, text, switch = (
        Signal(name="whole", value=3),
        Signal(name="text", value="a"),
        Signal(name="switch", value=True),
    )

    @bpp.baseline_decorator([motor])
    @bpp.monitor_during_decorator([watched])
    @bpp.stage_decorator([blob])
    @bpp.run_decorator()
    def plan() -> Any:
        for number, position in enumerate((-1.0, 0.0, 1.0, 2.0)):
            yield from bps.checkpoint()
            yield from bps.mv(motor, position, watched, position + 0.5, whole, number, text, "abcd"[number])
            yield from bps.mv(wave, np.linspace(0, position, 7), image, number + np.arange(6).reshape(2, 3))
            yield from bps.trigger_and_read([motor, gauss, whole, text, switch, wave, image, blob])
        if is_aborted:
            yield from bps.checkpoint()
            yield from bps.pause()

    return plan()


def expected_of(documents: list[tuple[str, Any]]) -> tuple[Readings, Readings]:
    """Give what events hold, and what the detector's files hold, by stream and data key."""
    events = json.loads(json.dumps(of_documents(iter(documents)), default=lambda value: value.tolist()))
    frames: Readings = {}
    for name, doc in documents:
        if name == "stream_resource":
            with h5py.File(doc["uri"].partition("localhost")[2]) as file:
                frames.setdefault("primary", {})[doc["data_key"]] = file[doc["parameters"]["dataset"]][:].tolist()
    return events, frames


def flat(values: Any) -> list[Any]:
    """Give values in order, without their shape: frames are `(1, y, x)` or `(y, x)`, single numbers `(1,)` or `()`."""
    return np.asarray(values).reshape(-1).tolist()


def test_every_way_of_reading_gives_the_same_numbers(
    run_engine: RunEngine,
    writers: list[Any],
    address: CatalogAddress,
    served: Settings,
    motor: SynAxis,
    gauss: SynGauss,
    blob: SimBlobDetector,
    tmp_path: Path,
) -> None:
    runs: list[list[tuple[str, Any]]] = [[], []]
    run_engine(everything(motor, gauss, blob, is_aborted=False), [lambda *doc: runs[0].append(doc), *writers])
    with pytest.raises(RunEngineInterrupted):
        run_engine(everything(motor, gauss, blob, is_aborted=True), [lambda *doc: runs[1].append(doc), *writers])
    run_engine.abort("enough")
    assert writers[0].wait()
    uids = [documents[0][1]["uid"] for documents in runs]
    command = [sys.executable, "-m", "tests.writers.readings", str(served.data_dir), address.uri, *uids]
    done = subprocess.run(
        command, input=address.api_key, cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    for documents in runs:
        events, frames = expected_of(documents)
        assert set(events) == {"primary", "baseline", "watched_monitor"}
        ways = found[documents[0][1]["uid"]]
        assert len(ways) == 8
        for way, streams in ways.items():
            assert set(streams) == set(events), way
            for stream, columns in events.items():
                with_frames = columns if way in TABLES + DOCUMENTS else columns | frames.get(stream, {})
                for key, values in with_frames.items():
                    if way == "bl.data, table" and np.ndim(values) > 1:
                        assert key not in streams[stream]  # arrays come when they are asked for
                    else:
                        assert flat(streams[stream][key]) == flat(values), (way, stream, key)
        (path,) = (tmp_path / "files").rglob(f"*{documents[0][1]['scan_id']:05d}*.nxs")
        with h5py.File(path) as file:
            for stream, columns in events.items():
                for key, values in columns.items():
                    stored = file[f"entry/streams/{stream}/{key}"]
                    kept = stored.asstr()[:] if stored.dtype.kind == "O" else stored[:]
                    assert flat(kept) == flat(values), (stream, key)
