"""What NeXus files make of values, and how documents come out again."""

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import bluesky.preprocessors as bpp
import h5py
import numpy as np
import pytest
from bluesky import RunEngine
from event_model import pack_event_page
from ophyd import Signal
from ophyd.sim import SynAxis, SynGauss, SynSignal

from bec_bluesky.documents import FileReady
from tests.writers.nexus_harness import as_lists, column, default_plot, feed, recorded, run, texts
from writers._nexus_column import GrowingDataset
from writers._tiled_column import Column
from writers.nexus import NexusWriter, read_documents


def test_documents_come_back_equal(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], motor: SynAxis, gauss: SynGauss
) -> None:
    plan = bpp.baseline_wrapper(bp.scan([gauss], motor, 0, 1, 3), [Signal(name="word", value="ünïcode\0")])
    documents = run(run_engine, plan, writer)
    found = list(read_documents(emitted[0].path))
    assert [name for name, _ in found] == [name for name, _ in documents]
    for (_, stored), (_, doc) in zip(found, documents, strict=True):
        assert stored == as_lists(doc)


def test_nan_and_numpy_are_kept_in_documents(writer: NexusWriter, emitted: list[FileReady]) -> None:
    feed(writer, recorded([math.nan, np.float64(2.5), np.float32(0.5), -math.inf], note=np.arange(3)))
    found = list(read_documents(emitted[0].path))
    values = column(found, "x")
    assert math.isnan(values[0])
    assert values[1:] == [2.5, 0.5, -math.inf]
    assert found[0][1]["note"] == [0, 1, 2]
    with h5py.File(emitted[0].path) as file:
        np.testing.assert_array_equal(file["entry/streams/primary/x"], [math.nan, 2.5, 0.5, -math.inf])


@pytest.mark.parametrize("last", [np.full((256, 1024), 0.5), np.zeros((2, 2), np.uint8)])
def test_a_column_of_frames_that_changes_its_type_is_never_in_memory_as_a_whole(
    tmp_path: Path, last: np.ndarray
) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as file:
        column = GrowingDataset(file, "x", Column("array"), {"units": "counts"})
        for number in range(60):
            column.append([np.full((256, 1024), number, np.uint8)])
        file.flush()
        tracemalloc.start()
        column.append([last])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 40e6, "the frames are 16 MB, as lists 130 MB and as floats 130 MB"
        stored = file["x"]
        assert stored.attrs["units"] == "counts"
        assert len(stored) == 61
        for number in (0, 30, 59):
            frame = json.loads(stored[number]) if "encoding" in stored.attrs else stored[number]
            assert np.array_equal(frame, np.full((256, 1024), number))
        assert stored.dtype == np.float64 or json.loads(stored[60]) == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("values", "dtype", "stored", "is_said"),
    [
        ([1, 2, 3], "integer", [1, 2, 3], False),
        ([0, 0.5], "integer", [0.0, 0.5], False),
        ([1.0, None], "number", [1.0, math.nan], True),
        (["a", "b"], "string", ["a", "b"], False),
        (["a", ""], "integer", ["a", ""], False),
        (["a\0b"], "string", [r'"a\u0000b"'], True),
        (["a", 1, None], "string", ['"a"', "1", "null"], True),
        ([[1.5, 2.5], [1.5]], "array", ["[1.5,2.5]", "[1.5]"], True),
        ([[1, 2], None], "array", [[1, 2], [math.nan, math.nan]], True),
        ([{"a": 1}], "number", ['{"a":1}'], True),
        ([2**70, 1], "integer", [2.0**70, 1.0], False),
        ([True, False], "boolean", [True, False], False),
    ],
)
@pytest.mark.parametrize("is_flushed", [False, True])
def test_values_take_their_nearest_form(
    writer: NexusWriter,
    emitted: list[FileReady],
    values: list[Any],
    dtype: str,
    stored: list[Any],
    is_said: bool,
    is_flushed: bool,
) -> None:
    for name, doc in recorded(values, dtype=dtype):
        writer(name, doc)
        if is_flushed and name != "stop":
            for sink in writer.open_runs.values():
                sink.file.flush()
    with h5py.File(emitted[0].path) as file:
        dataset = file["entry/streams/primary/x"]
        found = dataset.asstr()[()] if h5py.check_string_dtype(dataset.dtype) else dataset[()]
        expected = np.array(stored, dtype=object if isinstance(stored[0], str) else None)
        np.testing.assert_array_equal(found, expected)
        assert ("entry/run/problems" in file) == is_said
    assert bool(emitted[0].problems) == is_said


@pytest.mark.parametrize("name", ["../up", "a/b", "time", "seq_num", ".", "", "x" * 300, "é ü\0", "a-b"])
def test_hostile_data_keys_are_stored(writer: NexusWriter, emitted: list[FileReady], name: str) -> None:
    documents = recorded([1.0, 2.0])
    documents[1][1].update(data_keys={name: documents[1][1]["data_keys"]["x"]}, object_keys={name: [name]})
    for _, event in documents[2:-1]:
        event["data"] = {name: event["data"]["x"]}
        event["timestamps"] = {name: event["timestamps"]["x"]}
    feed(writer, documents)
    data = default_plot(emitted[0].path)
    with data.file as file:
        assert data[data.attrs["signal"]][()].tolist() == [1.0, 2.0]
        assert len(file["entry/instrument"]) == 1
        assert file["entry/streams/primary/time"][()].tolist() == [1.0, 2.0]
    assert list(read_documents(emitted[0].path)) == documents


def test_malformed_documents_cost_no_data(writer: NexusWriter, emitted: list[FileReady]) -> None:
    documents = recorded([1.0, 2.0, 3.0], user=7)
    documents[0][1].update(motors=5, hints="none", sample=["a", 1], scan_id="nine", plan_name=None)
    documents[3][1]["data"] = None
    documents[1][1]["hints"] = "odd"
    feed(writer, documents)
    assert list(read_documents(emitted[0].path)) == documents
    with h5py.File(emitted[0].path) as file:
        assert file["entry/streams/primary/x"][()].tolist() == [1.0, 3.0]
        problems = texts(file["entry/run/problems"])
    assert problems == emitted[0].problems
    assert "event e1: without data or descriptor; it is only among the documents" in problems


def test_missing_and_repeated_events_are_said(writer: NexusWriter, emitted: list[FileReady]) -> None:
    documents = recorded([1.0, 2.0, 3.0, 4.0])
    del documents[3]
    feed(writer, [*documents[:-1], documents[-2], documents[-1]])
    assert emitted[0].problems == [
        "primary: event 4 came twice",
        "primary: 1 events are missing, by their seq_num",
        "primary: 1 events repeat a seq_num",
    ]


def test_pages_of_events_are_events(writer: NexusWriter, emitted: list[FileReady]) -> None:
    documents = recorded([1.0, 2.0, 3.0])
    page = pack_event_page(*(doc for _, doc in documents[2:-1]))
    feed(writer, [*documents[:2], ("event_page", dict(page)), documents[-1]])
    with h5py.File(emitted[0].path) as file:
        assert file["entry/streams/primary/x"][()].tolist() == [1.0, 2.0, 3.0]
        assert file["entry/streams/primary/seq_num"][()].tolist() == [1, 2, 3]


def test_large_arrays_are_stored_once_and_documents_come_back_equal(
    run_engine: RunEngine, writer: NexusWriter, emitted: list[FileReady], motor: SynAxis
) -> None:
    image = SynSignal(name="image", func=lambda: np.full((200, 300), motor.position), kind="hinted")
    documents = run(run_engine, bp.scan([image], motor, 1, 3, 3), writer)
    assert list(read_documents(emitted[0].path)) == [(name, as_lists(doc)) for name, doc in documents]
    with h5py.File(emitted[0].path) as file:
        assert file["entry/streams/primary/image"].shape == (3, 200, 300)
        events = [text for text in file["entry/documents/json"] if text.startswith(b'["event"')]
    assert len(events) == 3
    assert max(map(len, events)) < 1_000


def test_an_array_that_its_device_fills_again_is_stored_as_it_was(
    writer: NexusWriter, emitted: list[FileReady]
) -> None:
    same = np.zeros((200, 300))
    for name, doc in recorded([same] * 50, dtype="array"):
        if name == "event":
            same += 1
        writer(name, doc)
    with h5py.File(emitted[0].path) as file:
        assert file["entry/streams/primary/x"][:, 0, 0].tolist() == list(range(1, 51))
        assert file["entry/streams/primary/x"].chunks == (1, 200, 300), "a frame"


def test_frames_are_stored_in_batches_as_they_came_and_a_new_type_changes_none(
    writer: NexusWriter, emitted: list[FileReady]
) -> None:
    frames = [np.arange(40_000, dtype=np.uint16).reshape(200, 200) + np.uint16(number) for number in range(6)]
    late = [frames[0].T, frames[0].astype(np.float64) + 0.5]  # not contiguous, and of another type
    documents = recorded([*frames, *late], dtype="array")
    for number, (name, doc) in enumerate(documents):
        writer(name, doc)
        if number % 2:
            for sink in writer.open_runs.values():
                sink.file.flush()  # pyright: ignore[reportAttributeAccessIssue]  # what a tick does after a second
    with h5py.File(emitted[0].path) as file:
        stored = file["entry/streams/primary/x"]
        assert stored.chunks == (1, 200, 200)
        for frame, row in zip([*frames, *late], stored, strict=True):
            assert np.array_equal(frame, row)


def test_large_arrays_of_any_kind_come_back(writer: NexusWriter, emitted: list[FileReady]) -> None:
    integers = np.arange(2_000) + 2**60
    values = [integers, integers.tolist(), None, ["a"] * 1_500, [[1] * 600, [2] * 601], np.full(2_000, math.nan)]
    documents = recorded(values, dtype="array")
    feed(writer, documents)
    found = column(list(read_documents(emitted[0].path)), "x")
    assert found[:5] == [integers.tolist(), integers.tolist(), *values[2:5]]
    assert len(found[5]) == 2_000 and all(map(math.isnan, found[5]))


def test_large_arrays_of_pages_come_back(writer: NexusWriter, emitted: list[FileReady]) -> None:
    documents = recorded([np.arange(2_000.0) + number for number in range(5)], dtype="array")
    page = dict(pack_event_page(*(doc for _, doc in documents[3:-1])))
    given = [*documents[:3], ("event_page", page), documents[-1]]
    feed(writer, given)
    assert list(read_documents(emitted[0].path)) == [(name, as_lists(doc)) for name, doc in given]
    with h5py.File(emitted[0].path) as file:
        assert file["entry/streams/primary/x"][:, 0].tolist() == [0, 1, 2, 3, 4]
        assert max(map(len, file["entry/documents/json"])) < 2_000


@pytest.mark.parametrize(
    ("batches", "declared", "stored"),
    [
        ([[[1, 300]]], "|u1", "int64"),
        ([[[1, 2]], [[1, 300]]], "|u1", "int64"),
        ([[[1, -1]]], "<u8", "int64"),
        ([[np.array([1, 2**60 + 1])]], None, "int64"),
        ([[np.array([0.1, 0.2])]], "<f4", "float64"),
        ([[np.array([0.5, 0.25], np.float32)]], "<f4", "float32"),
        ([[np.array([1, 2], np.uint16)], [np.array([3, 4], np.uint16)]], None, "uint16"),
        ([[np.array([1, 2], np.uint16)], [np.array([0.5, math.inf])]], None, "float64"),
        ([[np.array([2**60 + 1, 2])], [np.array([0.5, 1.5])]], None, "object"),
        ([[np.array([True, False])], [np.array([2, 3])]], None, "int64"),
    ],
)
def test_no_array_is_changed_by_its_declared_type(
    writer: NexusWriter, emitted: list[FileReady], batches: list[list[Any]], declared: str | None, stored: str
) -> None:
    values = [value for batch in batches for value in batch]
    documents = recorded(values, dtype="array")
    documents[1][1]["data_keys"]["x"]["dtype_numpy"] = declared
    for name, doc in documents:
        writer(name, doc)
        for sink in writer.open_runs.values():
            sink.file.flush()
    with h5py.File(emitted[0].path) as file:
        dataset = file["entry/streams/primary/x"]
        assert dataset.dtype == stored
        rows = [json.loads(text) for text in dataset] if stored == "object" else dataset[()].tolist()
    assert rows == [np.asarray(value).tolist() for value in values]
    assert bool(emitted[0].problems) == (stored == "object")


def test_integers_that_were_rounded_later_are_said(writer: NexusWriter, emitted: list[FileReady]) -> None:
    documents = recorded([2**60 + 1, 0.5], dtype="integer")
    for name, doc in documents:
        writer(name, doc)
        for sink in writer.open_runs.values():
            sink.file.flush()
    assert emitted[0].problems == ["primary/x: rounded to 53 bits, since integers are mixed with other numbers"]
    assert column(list(read_documents(emitted[0].path)), "x") == [2**60 + 1, 0.5]


def test_a_malformed_descriptor_costs_no_data(writer: NexusWriter, emitted: list[FileReady]) -> None:
    documents = recorded([1.0, 2.0])
    documents[1][1]["data_keys"] = {"x": None}
    feed(writer, documents)
    assert emitted[0].problems[0] == "primary: x came with a malformed declaration"
    assert emitted[0].problems[1].startswith("primary: a malformed descriptor")
    with h5py.File(emitted[0].path) as file:
        assert file["entry/streams/primary/x"][()].tolist() == [1.0, 2.0]
