"""Runs in a Tiled server of somebody else, started by `tiled serve config` with the configuration of the docs."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import httpx
import pytest
from bluesky import RunEngine
from ophyd.sim import SynGauss

from bec_bluesky.documents import Runs, find_catalog, open_catalog
from bec_bluesky.errors import SettingsError
from bec_bluesky.settings import Settings
from bec_bluesky.testing import running_api
from callbacks.bundler import points
from tests.live_system import until
from tests.ports import free_ports
from writers.tiled import TiledWriter

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "find-runs.md"
KEY = "c0ffee"


class Elsewhere:
    """A Tiled server that can be started and stopped."""

    def __init__(self, directory: Path) -> None:
        found = re.search(r"```yaml\n(.*?)```", HOW_TO.read_text(), re.S)
        assert found is not None
        text = found.group(1).replace("/srv/tiled", str(directory)).replace("/srv/beamline", str(directory))
        (directory / "config.yml").write_text(text)
        (directory / "arrays").mkdir()
        (directory / "files").mkdir()
        (directory / "tables.db").touch()
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self._config = directory / "config.yml"

    @contextlib.contextmanager
    def served(self) -> Iterator[None]:
        command = [sys.executable, "-m", "tiled", "serve", "config", str(self._config), "--port", str(self.port)]
        process = subprocess.Popen(command, env=os.environ | {"TILED_SINGLE_USER_API_KEY": KEY})
        try:
            until(self._answers, "tiled serve did not come up")
            yield
        finally:
            process.terminate()
            process.wait(30.0)

    def _answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/healthz", trust_env=False).status_code == httpx.codes.OK
        return False


@pytest.fixture
def elsewhere(tmp_path: Path) -> Elsewhere:
    (tmp_path / "elsewhere").mkdir()
    return Elsewhere(tmp_path / "elsewhere")


@pytest.fixture
def theirs(redis_settings: Settings, elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a system whose runs go there; the environment says the same."""
    key = tmp_path / "tiled.key"
    key.write_text(f"{KEY}\n")
    key.chmod(0o600)
    settings = redis_settings.with_(
        beamline="elsewhere", data_dir=tmp_path / "data", tiled_url=elsewhere.url, tiled_key_file=key
    )
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    return settings


def test_runs_go_to_a_server_named_by_one_setting_and_are_found_as_ever(
    run_engine: RunEngine, elsewhere: Elsewhere, theirs: Settings, gauss: SynGauss
) -> None:
    writer = TiledWriter(flush_every=0.02)
    documents: list[tuple[str, Any]] = []
    with running_api(theirs) as api:  # it does not wait for a server that is away
        run_engine(bp.count([gauss], 4), [writer, lambda *document: documents.append(document)])
        assert find_catalog(theirs) is None
        with pytest.raises(SettingsError, match="does not answer"):
            open_catalog(theirs)
        uid = documents[0][1]["uid"]
        with elsewhere.served():
            assert writer.wait(60.0)
            expected = [float(doc["data"]["gauss"]) for name, doc in documents if name == "event"]
            assert read_in_a_process(theirs, uid) == [str(expected)] * 3
            moved = httpx.get(f"{api}/tiled/api/v1/metadata/{uid}?api_key={KEY}&fields=metadata", trust_env=False)
            assert moved.status_code == httpx.codes.TEMPORARY_REDIRECT
            assert moved.headers["Location"] == f"{elsewhere.url}/api/v1/metadata/{uid}?fields=metadata"
            assert httpx.get(f"{api}/healthz", trust_env=False).json() == {"status": "ready"}
        logs = "".join(path.read_text() for path in theirs.log_dir.rglob("*") if path.is_file())
        assert KEY not in logs
    writer.close()


def read_in_a_process(settings: Settings, uid: str) -> list[str]:
    """Read a column by `bl.data`'s classes, a Tiled profile, and databroker, which changes the process it is in."""
    script = f"""
from bec_bluesky.documents import Runs
from bec_bluesky.settings import load
print(Runs.open(load())[{uid!r}].table()["gauss"].tolist())
from tiled.client import from_profile
print(from_profile("bec-bluesky-elsewhere")[-1]["primary"]["gauss"].read().tolist())
import databroker
print(databroker.catalog["bec-bluesky-elsewhere"].v1[{uid!r}].table()["gauss"].tolist())
"""
    profiles = {"TILED_PROFILES": str(settings.data_dir / "tiled-profiles")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | profiles, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_server_that_is_restarted_in_mid_run_has_each_row_once(
    run_engine: RunEngine, elsewhere: Elsewhere, theirs: Settings, gauss: SynGauss
) -> None:
    documents: list[tuple[str, Any]] = []
    run_engine(bp.count([gauss], 12), lambda *document: documents.append(document))
    uid = documents[0][1]["uid"]
    writer = TiledWriter(flush_every=0.02)
    with elsewhere.served():
        for name, doc in documents[:7]:
            writer(name, doc)
        until(lambda: rows(theirs, uid) == [1, 2, 3, 4, 5], "rows were not written")
    for name, doc in documents[7:10]:
        writer(name, doc)
    with elsewhere.served():
        for point in points(documents):
            writer.take_point(point)
        for name, doc in documents[10:]:
            writer(name, doc)
        assert writer.wait(60.0)
        assert rows(theirs, uid) == list(range(1, 13))
        assert_points_are_no_documents(theirs, uid, [name for name, _ in documents])
        again = TiledWriter()
        assert again.holds(uid)
        again.close()
    writer.close()


def assert_points_are_no_documents(settings: Settings, uid: str, names: list[str]) -> None:
    """Their server's exporter knows nothing of derived streams."""
    runs = Runs.open(settings)
    run = runs[uid]
    try:
        assert run.points.index.tolist() == list(range(1, 13))
        assert [name for name, _ in run.documents()] == names
        assert [name for name, _ in run.client.documents()].count("event") == 24
    finally:
        runs.close()


def rows(settings: Settings, uid: str) -> list[int]:
    try:
        runs = Runs.open(settings)
        try:
            return runs[uid].table().index.tolist()
        finally:
            runs.close()
    except (LookupError, SettingsError, ValueError):
        return []


def test_a_key_is_taken_from_a_private_file_or_the_environment(
    theirs: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bec_bluesky.documents import external_catalog

    address = external_catalog(theirs)
    assert address is not None
    assert (address.uri, address.api_key) == (f"{theirs.tiled_url}/api/v1", KEY)
    assert KEY not in repr(address)
    monkeypatch.setenv("TILED_API_KEY", "decade")
    other = Settings(data_dir=tmp_path, tiled_url=theirs.tiled_url, tiled_key_file=None)
    address = external_catalog(other)
    assert address is not None
    assert address.api_key == "decade"
    assert theirs.tiled_key_file is not None
    theirs.tiled_key_file.chmod(0o644)
    with pytest.raises(SettingsError, match="others may read"):
        external_catalog(theirs)
    for wrong in (f"http://me:{KEY}@host", f"http://host?api_key={KEY}", "host:8000"):
        with pytest.raises(SettingsError, match="BEC_BLUESKY_TILED_URL") as refused:
            theirs.with_(tiled_url=wrong)
        assert KEY not in str(refused.value)
