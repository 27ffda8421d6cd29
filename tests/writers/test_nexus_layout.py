"""Layouts: what an instrument adds to the tree of its files."""

import json
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import bluesky.preprocessors as bpp
import h5py
import pytest
from bluesky import RunEngine
from ophyd import Signal
from ophyd.sim import SynAxis, SynGauss

import writers
from bec_bluesky.errors import PlugInError, SettingsError
from tests.writers.nexus_harness import Documents, feed, recorded, run, texts
from writers.nexus import NexusWriter, read_documents

EXAMPLE = Path(writers.__path__[0]) / "example_layout.yaml"


def as_json(documents: Documents) -> Documents:
    """Make lists of tuples, as a file's documents have them."""
    return [(name, doc) for name, doc in json.loads(json.dumps(documents))]


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "layout.yaml"
    path.write_text(text)
    return str(path)


def test_the_example_adds_a_source_and_a_sample(
    run_engine: RunEngine, root: Path, emitted: list[Any], gauss: SynGauss
) -> None:
    writer = NexusWriter(directory=root, emit=emitted.append, layouts=[str(EXAMPLE)])
    samx, ring = SynAxis(name="samx"), Signal(name="ring_current", value=401.5)
    plan = bpp.baseline_wrapper(bp.scan([gauss], samx, 0, 2, 3), [ring])
    documents = run(run_engine, plan, writer, sample="Si", sample_description="a wafer")
    assert emitted[0].problems == []
    with h5py.File(emitted[0].path) as file:
        source, sample = file["entry/instrument/source"], file["entry/sample"]
        assert source.attrs["NX_class"] == "NXsource"
        assert source["energy"][()] == 2.4
        assert source["energy"].attrs["units"] == "GeV"
        assert source["current"][()] == 401.5
        assert sample["name"].asstr()[()] == "Si", "what was there stays"
        assert sample["description"].asstr()[()] == "a wafer"
        assert sample["x"] == file["entry/streams/primary/samx"]
    assert list(read_documents(emitted[0].path)) == as_json(documents)


def test_a_layout_by_code_has_the_run_at_hand(root: Path, emitted: list[Any]) -> None:
    writer = NexusWriter(directory=root, emit=emitted.append, layouts=["writers.example_layout:count_rate"])
    feed(writer, recorded([1.0, 2.0, 3.0]))
    feed(writer, recorded([1.0]))
    with h5py.File(emitted[0].path) as file:
        assert file["entry/rates/primary"][()] == 1.0
        assert file["entry/rates/primary"].attrs["units"] == "Hz"
    problems = [ready.problems for ready in emitted if hasattr(ready, "problems")]
    assert problems == [[], ["no stream has two events, so that there are no rates"]]


def test_a_layout_is_for_the_runs_that_it_names(root: Path, emitted: list[Any], tmp_path: Path) -> None:
    layout = written(tmp_path, "when: {plan_name: grid*}\ngroups: {/entry/extra: {fields: {answer: 42}}}")
    writer = NexusWriter(directory=root, emit=emitted.append, layouts=[layout])
    feed(writer, recorded([1.0], plan_name="grid_scan"))
    feed(writer, recorded([1.0], plan_name="count"))
    with h5py.File(emitted[0].path) as file:
        assert file["entry/extra/answer"][()] == 42
        assert file["entry/extra"].attrs["NX_class"] == "NXcollection"
    with h5py.File(emitted[1].path) as file:
        assert "extra" not in file["entry"]


def test_a_layout_can_change_what_opens_first_and_fields_that_are_there(
    run_engine: RunEngine, root: Path, emitted: list[Any], tmp_path: Path, motor: SynAxis, gauss: SynGauss
) -> None:
    text = "default: data_gauss\ngroups: {/entry: {fields: {title: {start: purpose}}}}"
    writer = NexusWriter(directory=root, emit=emitted.append, layouts=[written(tmp_path, text)])
    run(run_engine, bp.scan([gauss], motor, 0, 1, 3), writer, purpose="alignment")
    with h5py.File(emitted[0].path) as file:
        assert file["entry"].attrs["default"] == "data_gauss"
        assert file["entry/title"].asstr()[()] == "alignment"


def test_what_a_layout_cannot_find_is_said(root: Path, emitted: list[Any], tmp_path: Path) -> None:
    fields = "{a: {last: baseline/ring}, b: {link: /entry/no}, c: {start: no.no}}"
    text = f"default: gone\ngroups: {{/entry/extra: {{fields: {fields}}}}}"
    writer = NexusWriter(directory=root, emit=emitted.append, layouts=[written(tmp_path, text)])
    feed(writer, recorded([1.0]))
    assert emitted[0].problems == [
        "layout layout.yaml: /entry/extra/a has nothing to show",
        "layout layout.yaml: /entry/extra/b has nothing to show",
        "layout layout.yaml: /entry/extra/c has nothing to show",
        "layout layout.yaml: there is no /entry/gone to open first",
    ]
    with h5py.File(emitted[0].path) as file:
        assert texts(file["entry/run/problems"]) == emitted[0].problems


def test_a_layout_that_fails_costs_nothing_else(
    root: Path, emitted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import writers.example_layout

    def fails(_: Any) -> None:
        raise ZeroDivisionError("by the layout")

    monkeypatch.setattr(writers.example_layout, "count_rate", fails)
    layouts = ["writers.example_layout:count_rate", str(EXAMPLE)]
    writer = NexusWriter(directory=root, emit=emitted.append, layouts=layouts)
    feed(writer, documents := recorded([1.0], plan_name="scan"))
    assert emitted[0].problems == [
        "layout writers.example_layout:count_rate: failed (ZeroDivisionError('by the layout'))"
    ]
    assert list(read_documents(emitted[0].path)) == documents
    with h5py.File(emitted[0].path) as file:
        assert "source" in file["entry/instrument"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("groups: {/entry/streams/primary: {}}", "not in /entry/documents or /entry/streams"),
        ("groups: {/entry/../x: {}}", "a path below /entry is needed"),
        ("groups: {/entry/x: {class: dog}}", "String should match pattern"),
        ("groups: {/entry/x: {fields: {y: {}}}}", "one of value, start, stop"),
        ("groups: {/entry/x: {fields: {y: {last: ring}}}}", "is not STREAM/KEY"),
        ("group: {}", "Extra inputs are not permitted"),
        ("groups: [", "while parsing"),
    ],
)
def test_a_layout_file_that_is_wrong_is_refused_at_once(root: Path, tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        NexusWriter(directory=root, layouts=[written(tmp_path, text)])


@pytest.mark.parametrize("where", ["writers.example_layout:nothing", "writers.example_layout", "no_module:f"])
def test_a_layout_function_that_is_not_there_is_refused(root: Path, where: str) -> None:
    with pytest.raises(PlugInError):
        NexusWriter(directory=root, layouts=[where])


def test_several_writers_stand_side_by_side(
    run_engine: RunEngine, root: Path, emitted: list[Any], motor: SynAxis, gauss: SynGauss
) -> None:
    one = NexusWriter(directory=root / "one", emit=emitted.append, layouts=[str(EXAMPLE)])
    two = NexusWriter(directory=root / "two", emit=emitted.append, template="{plan_name}.h5")
    documents = run(run_engine, bp.scan([gauss], motor, 0, 1, 3), one, two)
    assert [list(read_documents(ready.path)) for ready in emitted] == [as_json(documents)] * 2
