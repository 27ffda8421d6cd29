"""Run files in h5web, in a browser without a screen; needs node, npm (which installs h5web) and chromium."""

import json
import shutil
import subprocess
from pathlib import Path

import bluesky.plans as bp
import pytest
from bluesky import RunEngine
from ophyd.sim import SynAxis, SynGauss

from tests.writers.nexus_harness import run
from writers.nexus import NexusWriter

PARTS = Path(__file__).parent / "h5web"


def call(*command: str, cwd: Path) -> str:
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_h5web_opens_run_files_with_their_plot(run_engine: RunEngine, motor: SynAxis, tmp_path: Path) -> None:
    tools = {name: shutil.which(name) for name in ("node", "npm", "chromium")}
    if not all(tools.values()):
        pytest.skip(f"not all are installed: {tools}")
    root, other = tmp_path / "files", SynAxis(name="other")
    det = SynGauss("det", motor, "motor", center=0, Imax=10, sigma=1)
    writer = NexusWriter(directory=root, template="{plan_name}.nxs")
    run(run_engine, bp.scan([det], motor, -1, 1, 21), writer)
    run(run_engine, bp.grid_scan([det], motor, -1, 1, 5, other, 0, 1, 7, snake_axes=True), writer)
    writer.close()
    place = tmp_path / "h5web"
    shutil.copytree(PARTS, place)
    call("npm", "install", "--no-audit", "--no-fund", "--legacy-peer-deps", cwd=place)
    bundle = ("--bundle", "--format=esm", "--outdir=dist", "--jsx=automatic")
    call("node_modules/.bin/esbuild", "page.jsx", *bundle, cwd=place)
    files = [str(root / "scan.nxs"), str(root / "grid_scan.nxs")]
    shown = json.loads(call("node", "show.mjs", str(tools["chromium"]), *files, cwd=place).splitlines()[-1])
    assert "NX Line" in shown["scan.nxs"]
    assert all(word in shown["scan.nxs"] for word in ("n 21", "motor", "det"))
    assert "NX Heatmap" in shown["grid_scan.nxs"]
    assert all(word in shown["grid_scan.nxs"] for word in ("n 5 7", "motor", "other"))
