"""Plans of libraries, modules and start-up files, and importing them anew beside those that run."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bec_bluesky import plugins
from bec_bluesky.errors import RefusedError
from bec_bluesky.scan_server.worker._plans import PlanRegistry
from bec_bluesky.settings import Settings, load

MODULE = "plans.dunes_for_test"
PLAN = """from plans._grains_for_test import grain


def dune(height: float = {height}):
    yield grain()
    return {height}
"""
BROKEN = (
    ("import nosuchmodule\n", 1),
    ("x = 1\ndef dune(:\n", 2),
    (f"{PLAN.format(height=3)}1 / 0\n", 7),
)


class Instrument:
    """A profile whose files are edited, and the plans that a worker has of it."""

    def __init__(self, settings: Settings, root: Path) -> None:
        self.plans = root / "plans"
        self.startup = root / "profile_collection" / "startup"
        self.plans.mkdir(parents=True)
        self.startup.mkdir(parents=True)
        (root / "profile_collection" / "profile.toml").write_text('title = "test"\n')
        (self.plans / "_grains_for_test.py").write_text("def grain():\n    return 'quartz'\n")
        self.write(PLAN.format(height=1))
        (self.startup / "10-first.py").write_text("step = 1\n\n\ndef walk():\n    yield step\n")
        (self.startup / "20-second.py").write_text("def run_fast():\n    yield 10 * step\n")
        self.registry = PlanRegistry()
        self.registry.load(settings.with_(profile=root), {})

    def write(self, text: str, name: str = "dunes_for_test.py") -> None:
        (self.plans / name).write_text(text)

    def first(self, plan: str) -> Any:
        return next(self.registry[plan].function())


@pytest.fixture
def instrument(settings: Settings, tmp_path: Path) -> Iterator[Instrument]:
    yield Instrument(settings, tmp_path / "instrument")
    for name in [name for name in sys.modules if name.endswith("_for_test")]:
        del sys.modules[name]
    plugins.mount(load())


def test_an_edited_module_is_imported_anew_and_what_runs_keeps_its_old_code(instrument: Instrument) -> None:
    running = instrument.registry["dune"].function()
    next(running)
    instrument.write(PLAN.format(height=2) + "\n\ndef valley():\n    yield\n")
    assert instrument.registry.reload(MODULE) == ["dune"]
    assert instrument.registry["dune"].info.parameters[0].default == "2"
    assert "valley" in instrument.registry
    with pytest.raises(StopIteration) as old:
        next(running)
    assert old.value.value == 1
    instrument.write(PLAN.format(height=2))
    assert instrument.registry.reload("dunes_for_test") == []
    assert "valley" not in instrument.registry
    assert instrument.registry.problems == []


def test_a_module_that_fails_is_told_with_file_and_line_and_the_old_one_stays(instrument: Instrument) -> None:
    before = instrument.registry["dune"]
    for text, line in BROKEN:
        instrument.write(text)
        assert instrument.registry.reload(MODULE) == []
        [problem] = instrument.registry.problems
        assert f"dunes_for_test.py, line {line})" in problem
        assert problem.endswith("the version before it stays")
        assert instrument.registry["dune"] is before
        assert sys.modules[MODULE].dune is before.function  # pyright: ignore[reportAttributeAccessIssue]
    instrument.write(PLAN.format(height=3))
    assert instrument.registry.reload(MODULE) == ["dune"]


def test_what_uses_an_edited_part_is_imported_anew_with_it(instrument: Instrument) -> None:
    instrument.write("def grain():\n    return 'basalt'\n", "_grains_for_test.py")
    instrument.registry.reload("plans._grains_for_test")
    assert instrument.first("dune") == "basalt"


def test_reloading_all_takes_new_and_edited_files_leaves_out_broken_ones_and_forgets_those_that_are_gone(
    instrument: Instrument,
) -> None:
    instrument.write(PLAN.format(height=5))
    instrument.write("def lagoon():\n    yield\n", "lagoon_for_test.py")
    instrument.write("import nosuchmodule\n", "broken_for_test.py")
    (instrument.startup / "20-second.py").write_text("def run_fast():\n    yield 20 * step\n")
    assert instrument.registry.reload() == ["dune", "run_fast"]
    [problem] = instrument.registry.problems
    assert problem.startswith("plans.broken_for_test cannot be imported: ModuleNotFoundError")
    assert problem.endswith("it offers no plans")
    assert instrument.first("run_fast") == 20
    assert "lagoon" in instrument.registry
    for name in ("lagoon_for_test.py", "broken_for_test.py"):
        (instrument.plans / name).unlink()
    assert instrument.registry.reload() == []
    assert "lagoon" not in instrument.registry
    assert {"dune", "count", "hexagonal_scan"} <= set(instrument.registry)


def test_a_start_up_file_is_executed_again_in_the_namespace_of_all(instrument: Instrument) -> None:
    text = "step = 3\n\n\ndef stroll():\n    yield step\n"
    (instrument.startup / "10-first.py").write_text(text)
    instrument.registry.reload("10-first.py")
    assert instrument.first("run_fast") == 30
    assert "walk" not in instrument.registry
    (instrument.startup / "10-first.py").write_text("step = 7\ndef stride():\n    yield\n1 / 0\n")
    instrument.registry.reload("startup/10-first")
    [problem] = instrument.registry.problems
    assert "10-first.py, line 4)" in problem
    assert "stride" not in instrument.registry
    assert (instrument.first("run_fast"), instrument.first("stroll")) == (30, 3)


def test_an_unknown_module_is_refused_with_its_neighbours(instrument: Instrument) -> None:
    with pytest.raises(RefusedError, match=r"No module of plans 'plans\.dunes_for_tset': did you mean"):
        instrument.registry.reload("plans.dunes_for_tset")


def test_an_instrument_s_module_lies_over_the_default_one(instrument: Instrument) -> None:
    instrument.write("def own_scan():\n    yield\n", "scans.py")
    instrument.registry.reload("plans.scans")
    assert "own_scan" in instrument.registry
    assert "line_scan" not in instrument.registry
    (instrument.plans / "scans.py").unlink()
    instrument.registry.reload("plans.scans")
    assert "own_scan" not in instrument.registry
    assert "line_scan" in instrument.registry


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Path]]:
    """Put a distribution with an entry point for plans where Python finds it."""
    site = tmp_path / "site"

    def installed(module: str, text: str) -> Path:
        information = site / f"{module}-1.0.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[bec_bluesky.plans]\nbeach = {module}\n")
        (site / f"{module}.py").write_text(text)
        return site / f"{module}.py"

    monkeypatch.syspath_prepend(site)
    yield installed
    for name in [name for name in sys.modules if name.endswith("_for_test")]:
        del sys.modules[name]


def test_plans_of_an_installed_library_are_offered_and_imported_anew_when_it_is_named(
    install: Callable[[str, str], Path], instrument: Instrument, settings: Settings
) -> None:
    text = "def surf(waves: int = 3):\n    yield\n\n\ndef dune():\n    yield\n"
    file = install("beach_for_test", text)
    importlib.invalidate_caches()
    registry = PlanRegistry()
    registry.load(settings.with_(profile=instrument.plans.parent), {})
    assert registry.problems == []
    assert registry["surf"].info.module == "beach_for_test"
    assert registry["dune"].info.module == MODULE  # the instrument's lies over it
    file.write_text(text.replace("3", "4"))
    registry.reload()
    assert registry["surf"].info.parameters[0].default == "3"
    registry.reload("beach_for_test")
    assert registry["surf"].info.parameters[0].default == "4"
