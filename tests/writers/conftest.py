"""A real Tiled server, and detectors that write files."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from bluesky import RunEngine
from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider
from ophyd_async.plan_stubs import ensure_connected
from ophyd_async.sim import PatternGenerator, SimBlobDetector

from bec_bluesky.documents import CatalogAddress, FileReady, Product, RunProblem, find_catalog
from bec_bluesky.settings import Settings
from bec_bluesky.testing import running_api
from writers.nexus import NexusWriter


@pytest.fixture(scope="package")
def served(redis_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a system whose API all tests here share."""
    return redis_settings.with_(beamline="tiled", data_dir=tmp_path_factory.mktemp("tiled"))


@pytest.fixture(scope="package")
def address(served: Settings) -> Iterator[CatalogAddress]:
    """A Tiled server that runs for all of them."""
    with running_api(served):
        found = find_catalog(served)
        assert found is not None
        yield found


@pytest.fixture
def blob(run_engine: RunEngine, served: Settings) -> SimBlobDetector:
    """An ophyd-async detector that writes frames to HDF5 files where Tiled may read them."""
    frames: Path = served.files_dir
    frames.mkdir(parents=True, exist_ok=True)
    blob = SimBlobDetector(StaticPathProvider(UUIDFilenameProvider(), frames), PatternGenerator(), name="blob")
    run_engine(ensure_connected(blob))
    return blob


@pytest.fixture
def emitted() -> list[FileReady]:
    return []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def alarms() -> list[RunProblem]:
    return []


@pytest.fixture
def writer(root: Path, emitted: list[FileReady], alarms: list[RunProblem]) -> Iterator[NexusWriter]:
    def take(product: Product) -> None:
        if isinstance(product, FileReady):
            emitted.append(product)
        elif isinstance(product, RunProblem):
            alarms.append(product)

    writer = NexusWriter(directory=root, emit=take, wait_for_files=0)
    yield writer
    writer.close()


@pytest.fixture
def frames(run_engine: RunEngine, root: Path) -> SimBlobDetector:
    folder = root / "frames"
    folder.mkdir(parents=True)
    blob = SimBlobDetector(StaticPathProvider(UUIDFilenameProvider(), folder), PatternGenerator(), name="blob")
    run_engine(ensure_connected(blob))
    return blob
