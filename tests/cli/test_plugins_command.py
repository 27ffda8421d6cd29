"""`bec-bluesky plugins`: what it lists is what may be asked for."""

from pathlib import Path

import pytest

from bec_bluesky.cli import main


def test_parts_of_plans_are_not_listed_as_plans(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--data", str(tmp_path), "plugins"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "plans.scans: grid, line_scan, time_scan" in lines
    assert "plans.one_instruction: no plans, only parts of them" in lines
