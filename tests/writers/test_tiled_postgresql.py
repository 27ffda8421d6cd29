"""Runs in a catalogue on a real PostgreSQL server; skipped where none is installed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import numpy as np
import pytest
from bluesky import RunEngine
from ophyd import Signal
from tiled.client import from_uri

from bec_bluesky.documents import find_catalog
from bec_bluesky.errors import SettingsError
from bec_bluesky.settings import Settings
from bec_bluesky.testing import running_api
from tests.ports import free_ports
from writers.tiled import TiledWriter


def _program(name: str) -> str:
    found = shutil.which(name) or next(iter(sorted(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")))), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed")
    return found


def _postgres(*command: str) -> None:
    """Run one of its programs, which refuse to be run by root."""
    as_whom = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    done = subprocess.run([*as_whom, *command], capture_output=True, text=True, check=False, timeout=60, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def postgresql() -> Iterator[str]:
    """Give the address of a database on a server of its own."""
    initdb, pg_ctl, port = _program("initdb"), _program("pg_ctl"), free_ports(1)[0]
    where = Path(f"/tmp/bec-bluesky-postgresql-{os.getpid()}")  # short, for its socket; and open to its user
    where.mkdir(mode=0o777)
    where.chmod(0o777)
    data = str(where / "data")
    _postgres(initdb, "-D", data, "-U", "tiled", "-A", "trust", "-N")
    _postgres(pg_ctl, "-D", data, "-w", "-l", str(where / "log"), "-o", f"-p {port} -k {where} -c fsync=off", "start")
    try:
        yield f"postgresql://tiled@127.0.0.1:{port}/postgres"
    finally:
        _postgres(pg_ctl, "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(where, ignore_errors=True)


@pytest.mark.slow
def test_runs_are_catalogued_in_postgresql_by_one_setting(
    run_engine: RunEngine, redis_settings: Settings, tmp_path: Path, postgresql: str
) -> None:
    settings = redis_settings.with_(beamline="postgresql", data_dir=tmp_path, catalog_url=postgresql)
    documents: list[tuple[str, dict[str, Any]]] = []
    signals = [Signal(name="whole", value=3), Signal(name="Text", value="a"), Signal(name="wave", value=np.arange(4.0))]
    for _ in range(2):  # the second start finds the catalogue of the first
        with running_api(settings):
            address = find_catalog(settings, timeout=10.0)
            assert address is not None
            writer = TiledWriter(address.uri, address.api_key)
            run_engine(bp.count(signals, 4), [writer, lambda name, doc: documents.append((name, doc))])
            assert writer.wait()
            writer.close()
            catalog = from_uri(address.uri, api_key=address.api_key)
            for uid in [doc["uid"] for name, doc in documents if name == "start"]:
                primary = catalog[uid]["primary"]
                assert primary["whole"].read().tolist() == [3] * 4
                assert primary["Text"].read().tolist() == ["a"] * 4
                assert np.array_equal(primary["wave"].read(), [np.arange(4.0)] * 4)
            catalog.context.http_client.close()
    assert not (settings.catalog_dir / "catalog.db").exists()
    script = "from bec_bluesky import documents, settings; print(len(documents.open_catalog(settings.load())))"
    read = subprocess.run(  # a process of its own, as Tiled's client in process leaves a thread behind
        [sys.executable, "-c", script],
        env=os.environ | settings.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert read.stdout.split() == ["2"], read.stderr


def test_a_catalogue_that_does_not_answer_is_told_without_its_password(tmp_path: Path) -> None:
    from bec_bluesky.documents import build_catalog_app

    settings = Settings(data_dir=tmp_path, catalog_url=f"postgresql://me:secret@127.0.0.1:{free_ports(1)[0]}/runs")
    with pytest.raises(SettingsError, match="BEC_BLUESKY_CATALOG_URL") as refused:
        build_catalog_app(settings, "key")
    assert "secret" not in str(refused.value)
