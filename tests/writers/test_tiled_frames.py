"""Frames in files that hold more of them than their run has announced, out of a real Tiled server."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import h5py
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from ophyd_async.core import TriggerInfo
from ophyd_async.sim import SimBlobDetector

from bec_bluesky.documents import CatalogAddress, Runs, open_catalog
from bec_bluesky.settings import Settings
from writers.tiled import TiledWriter


@pytest.mark.parametrize("exposures", [1, 3])
def test_frames_of_a_run_aborted_in_mid_exposure_are_read_by_every_client(
    run_engine: RunEngine, address: CatalogAddress, served: Settings, blob: SimBlobDetector, exposures: int
) -> None:
    def plan() -> Any:
        yield from bps.stage(blob)
        yield from bps.open_run()
        yield from bps.prepare(blob, TriggerInfo(collections_per_event=exposures, livetime=0.01), wait=True)
        for _ in range(4):
            yield from bps.trigger_and_read([blob])
        yield from bps.trigger(blob, wait=True)  # exposed, and never read
        yield from bps.pause()

    documents: list[tuple[str, Any]] = []
    writer = TiledWriter(address.uri, address.api_key)
    with pytest.raises(RunEngineInterrupted):
        run_engine(plan(), [lambda name, doc: documents.append((name, doc)), writer])
    run_engine.abort("enough")
    assert writer.wait()
    writer.close()
    uid = documents[0][1]["uid"]
    expected = frames(documents)
    assert len(expected) == 5 * exposures
    expected = expected[: 4 * exposures].reshape(4, exposures, *expected.shape[1:])
    catalog = open_catalog(served, address)
    try:
        stored = catalog[uid]
        assert stored.metadata["stop"]["exit_status"] == "abort"
        assert np.array_equal(stored["primary"]["blob"].read(), expected)
        assert np.array_equal(stored["primary"]["blob"][3], expected[3])
        read = Runs(catalog, address, served)[uid].xarray(columns=["blob", "blob-sum"])
        assert np.array_equal(read["blob"], expected)
        assert np.array_equal(read["blob-sum"].values.ravel(), expected.sum((-1, -2), dtype=int).ravel())
    finally:
        catalog.context.http_client.close()
    assert by_databroker(address, uid) == [str(expected.shape), str(int(expected.sum(dtype=int)))]


def frames(documents: list[tuple[str, Any]]) -> Any:
    """Give all frames of the detector's file."""
    resource = next(doc for name, doc in documents if name == "stream_resource" and doc["data_key"] == "blob")
    with h5py.File(Path(resource["uri"].partition("localhost")[2])) as file:
        return file[resource["parameters"]["dataset"]][:]


def by_databroker(address: CatalogAddress, uid: str) -> list[str]:
    """Read the frames in a process of its own: `.v2` of a client changes what every client of the process gives."""
    script = f"""
from tiled.client import from_uri
read = from_uri({address.uri!r}, api_key={address.api_key!r}).v2[{uid!r}]["primary"]["data"]["blob"].read()
print(read.shape, int(read.sum(dtype=int)), sep="\\n")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
