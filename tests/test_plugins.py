"""The mounted profile: the instrument's modules lie over the default ones, and a broken one stops nothing."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bec_bluesky import plugins
from bec_bluesky.errors import PlugInError, SettingsError
from bec_bluesky.settings import Settings, load


@pytest.fixture
def instrument(tmp_path: Path) -> Iterator[Settings]:
    """An instrument with a plan module of its own and a broken one."""
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "own_for_test.py").write_text("def mine():\n    yield\n")
    (tmp_path / "plans" / "broken_for_test.py").write_text("import nosuchmodule\n")
    (tmp_path / "profile_collection").mkdir()
    (tmp_path / "profile_collection" / "profile.toml").write_text('title = "x"\n')
    settings = load(profile=tmp_path)
    plugins.mount(settings)
    yield settings
    for name in [name for name in sys.modules if name.endswith("_for_test")]:
        del sys.modules[name]
    plugins.mount(load())


def test_the_instrument_s_modules_and_the_default_ones_are_both_there(instrument: Settings) -> None:
    assert {"plans.own_for_test", "plans.broken_for_test"} < set(plugins.names("plans"))
    assert "writers.nexus" in plugins.names("writers")
    assert importlib.import_module("plans.own_for_test").mine


def test_a_module_that_cannot_be_imported_is_reported_and_skipped(instrument: Settings) -> None:
    modules, problems = plugins.import_all("plans")
    assert "plans.own_for_test" in {module.__name__ for module in modules}
    assert [problem.module for problem in problems] == ["plans.broken_for_test"]
    assert "nosuchmodule" in str(problems[0])


def test_a_stranger_of_the_same_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "writers", importlib.import_module("json"))
    with pytest.raises(PlugInError, match="hides the instrument's writers/"):
        plugins.mount(load())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("titel = 'x'", "no setting 'titel': did you mean 'title'"),
        ("title = ", "profile.toml: "),
        ("[[hosted]]\nname = 'a'", "number 1: use is missing"),
        ("[metadata_schema]\ntype = 'objekt'", r"\[metadata_schema\] is no JSON schema: type: 'objekt'"),
        ("[metadata_schema]\nfile = 'gone.json'", r"\[metadata_schema\] file = 'gone.json': "),
        ("[worker]\nmemorie = 1", r"\[worker\] has no setting 'memorie': did you mean 'memory'"),
        ("[worker]\nsilence = 0.1", r"\[worker\] silence = 0.1 must be a number of seconds, 1 or more"),
        ("[worker]\nmemory = 'much'", r"\[worker\] memory = 'much' must be a number of megabytes"),
        ("[[hosted]]\nname = 'a'\nuse = 'writers.nexus'", "must be 'module:Class'"),
        ("[[hosted]]\nname = 'a'\nuse = 'm:C'\n[[hosted]]\nname = 'a'\nuse = 'm:C'", "appears twice"),
    ],
)
def test_a_wrong_profile_is_one_sentence(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "profile.toml").write_text(text)
    with pytest.raises(SettingsError, match=complaint):
        plugins.read_profile(load(profile=tmp_path))


def test_an_object_that_is_not_there_is_named_with_near_misses() -> None:
    with pytest.raises(PlugInError, match="no 'NexsWriter': did you mean 'NexusWriter'"):
        plugins.load_object("writers.nexus:NexsWriter")
