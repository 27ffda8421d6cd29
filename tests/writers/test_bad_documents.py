"""Bad input for every sink at once: what can be stored is, what deviates is said, and the next run is written right."""

import asyncio
import contextlib
import csv
import json
import math
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from tiled.client import from_uri

from bec_bluesky.bus import Bus
from bec_bluesky.channels import ALARMS, DOCUMENTS, FILES, POINTS, STORED
from bec_bluesky.documents import CatalogAddress, FileReady, RunCallback, read_documents, write_documents
from bec_bluesky.errors import SettingsError
from bec_bluesky.messages import unpack
from bec_bluesky.settings import Settings
from callbacks.bundler import ScanBundler
from tests.documents.feed_harness import feeding, publish, until
from tests.writers.nexus_harness import Documents, as_lists, recorded
from writers import tables
from writers.nexus import NexusWriter
from writers.nxsas import NXsasWriter
from writers.nxsas import export as write_scattering
from writers.tiled import TiledWriter

SINKS = ("bundler", "nexus", "nxsas", "tiled")
LONG = "x" * 300


class Opaque:
    """What no format has a type for."""

    def __str__(self) -> str:
        return "opaque"


def described(**extra: Any) -> dict[str, Any]:
    return {"dtype": "number", "shape": [], "source": "here"} | extra


def changed(change: Callable[[Documents], Any], *values: Any) -> Documents:
    """Compose a run of these values, by themselves 1, 2, 3, and do something to its documents."""
    documents = recorded(list(values) or [1.0, 2.0, 3.0])
    result = change(documents)
    return result if isinstance(result, list) else documents


def edit(place: int, **parts: Any) -> Callable[[Documents], None]:
    def change(documents: Documents) -> None:
        documents[place][1].update(parts)

    return change


def without(place: int, *parts: str) -> Callable[[Documents], None]:
    def change(documents: Documents) -> None:
        for part in parts:
            del documents[place][1][part]

    return change


def strangely_named() -> Documents:
    documents = recorded([1.0, 2.0], plan_name="Ü" * 300, **{"名前": 1, LONG: 2})
    documents[1][1]["data_keys"] = {name: described() for name in ("温度", LONG, "")}
    documents[1][1]["object_keys"] = {}
    for name, doc in documents:
        if name == "event":
            doc["data"] = {"温度": doc["data"]["x"], LONG: 2.0, "": 3.0}
            doc["timestamps"] = dict.fromkeys(doc["data"], 1.0)
    return documents


NAN = math.nan
UNEQUAL = "values have no common type and shape"
KINDS: dict[str, tuple[Documents, str, list[Any], str]] = {
    # what is wrong: (documents, data key, what the sinks have of it, a part of what is said)
    "an event without data": (changed(edit(3, data=None)), "x", [1.0, 3.0], "event e1 has no data"),
    "an event without number, time and timestamps": (
        changed(without(3, "seq_num", "time", "timestamps")), "x", [1.0, 2.0, 3.0], "has no time",
    ),
    "a malformed data key": (changed(edit(1, data_keys={"x": None})), "x", [1.0, 2.0, 3.0], "malformed declaration"),
    "a descriptor without data keys": (changed(without(1, "data_keys")), "x", [1.0, 2.0, 3.0], "are None"),
    "a malformed start document": (
        changed(edit(0, time="yesterday", scan_id="seven", hints=3, user={1: 2})), "x", [1.0, 2.0, 3.0], "'seven'",
    ),
    "a stop document that says nothing": (
        changed(without(-1, "time", "exit_status")), "x", [1.0, 2.0, 3.0], "which tells nothing",
    ),
    "an unknown kind of document": (
        changed(lambda run: [*run[:3], ("nonsense", {"a": 1}), *run[3:]]), "x", [1.0, 2.0, 3.0], "'nonsense'",
    ),
    "an event before its descriptor": (
        changed(lambda run: [run[0], run[2], run[1], *run[3:]]), "x", [1.0, 2.0, 3.0], "1 came before their descriptor",
    ),
    "an event whose descriptor never comes": (
        changed(edit(3, descriptor="nowhere")), "x", [1.0, 3.0], "came without a descriptor",
    ),
    "keys that do not match": (
        changed(edit(3, data={"y": 5.0}, timestamps={"y": 1.0})), "x", [1.0, NAN, 3.0], "y came without a declaration",
    ),
    "shapes that do not match": (
        changed(edit(1, data_keys={"x": described(dtype="array", shape=[3])}), [1.0, 2.0], [1.0, 2.0, 3.0]),
        "x", [[1.0, 2.0], [1.0, 2.0, 3.0]], UNEQUAL,
    ),
    "an array where a number was declared": (changed(list, 1.0, [1.0, 2.0]), "x", [1.0, [1.0, 2.0]], UNEQUAL),
    "NaN and infinities": (recorded([NAN, math.inf, -math.inf]), "x", [NAN, math.inf, -math.inf], ""),
    "ragged rows": (
        recorded([[[1.0, 2.0], [3.0]], [[1.0], [2.0]]], dtype="array"), "x", [[[1.0, 2.0], [3.0]], [[1.0], [2.0]]],
        UNEQUAL,
    ),
    "mixed types": (recorded([1.0, "two", None]), "x", [1.0, "two", None], UNEQUAL),
    "empty strings": (recorded(["", "", ""], dtype="string", sample="", user=""), "x", ["", "", ""], ""),
    "strange names": (strangely_named(), "温度", [1.0, 2.0], ""),
    "a long name": (strangely_named(), LONG, [2.0, 2.0], ""),
    "an empty name": (strangely_named(), "", [3.0, 3.0], ""),
    "a mapping": (recorded([{"a": [1, "b"]}] * 2), "x", [{"a": [1, "b"]}] * 2, UNEQUAL),
    "complex numbers": (recorded([np.array([1 + 2j, 3])] * 2, dtype="array"), "x", [["(1+2j)", "(3+0j)"]] * 2, UNEQUAL),
    "integers of 80 bits": (recorded([2**80, 1, 2]), "x", [2.0**80, 1.0, 2.0], ""),
    "structured arrays": (
        recorded([np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")])] * 2, dtype="array"),
        "x", [[[1, 2.5]]] * 2, UNEQUAL,
    ),
    "an event twice": (changed(lambda run: [*run[:4], *run[3:]]), "x", [1.0, 2.0, 3.0], "event 2 came twice"),
    "an uid twice": (changed(edit(3, uid="e0")), "x", [1.0, 2.0, 3.0], "several events have the uid e0"),
    "a descriptor twice": (changed(lambda run: [*run[:3], *run[1:2], *run[3:]]), "x", [1.0, 2.0, 3.0], ""),
}  # fmt: skip
AS_IT_CAME = {("an event twice", "nexus"): [1.0, 2.0, 2.0, 3.0]}
"""Where a sink keeps what the others leave out."""


@contextlib.asynccontextmanager
async def fed(bus: Bus, root: Path, address: CatalogAddress) -> AsyncIterator[dict[str, RunCallback]]:
    """Feed all hosted sinks side by side."""
    callbacks: dict[str, RunCallback] = {
        "bundler": ScanBundler(),
        "nexus": NexusWriter(directory=root / "nexus", wait_for_files=0, wait_for_results=0),
        "nxsas": NXsasWriter(directory=root / "nxsas", tree={}),
        "tiled": TiledWriter(address.uri, address.api_key),
    }
    async with contextlib.AsyncExitStack() as stack:
        for name, callback in callbacks.items():
            await stack.enter_async_context(feeding(bus, callback, name, required=frozenset(SINKS)))
        yield callbacks


async def put(bus: Bus, documents: Documents, *sinks: str) -> str:
    """Publish a run, and wait until these sinks have it."""
    uid = await publish(bus, documents)

    async def is_stored() -> bool:
        return set(sinks) <= (await bus.fields(STORED, run=uid)).keys()

    await until(is_stored, 30.0)
    return uid


@pytest.fixture
async def sinks(settings: Settings, tmp_path: Path, address: CatalogAddress) -> AsyncIterator[Bus]:
    async with Bus(settings.redis_url or "", settings.beamline) as bus, fed(bus, tmp_path, address):
        yield bus


@pytest.mark.parametrize("kind", KINDS)
async def test_bad_input_is_stored_in_the_nearest_form_and_said(
    sinks: Bus, tmp_path: Path, address: CatalogAddress, kind: str
) -> None:
    documents, key, expected, said = KINDS[kind]
    uid = await put(sinks, [(name, dict(doc)) for name, doc in documents], *SINKS)
    good = await put(sinks, recorded([7.0, 8.0]), *SINKS)
    entries: Any = await sinks.redis.xrange(sinks.key(DOCUMENTS, run=uid))
    came: Documents = [(fields[b"n"].decode(), unpack(fields[b"d"])) for _, fields in entries]
    found = await asyncio.to_thread(stored, tmp_path, address, uid, key)
    found["bundler"] = [point.data.get(key) for _, point in await sinks.read(POINTS, run=uid)]
    found["csv"] = tabled(tmp_path, came, key)
    for sink, values in found.items():
        wanted = AS_IT_CAME.get((kind, sink), expected)
        if (
            sink != "csv" or not isinstance(wanted[0], list) or "array" not in str(documents[1][1])
        ):  # no arrays in tables
            assert [plain(value) for value in values] == [plain(value) for value in wanted], sink
    write_documents(tmp_path / "run.jsonl", came)
    assert plain(list(read_documents(tmp_path / "run.jsonl"))) == plain(came), "all documents, as they came"
    for sink, values in (await asyncio.to_thread(stored, tmp_path, address, good, "x")).items():
        assert values == [7.0, 8.0], f"{sink}, the good run: {values}"
    alarms = [alarm for _, alarm in await sinks.newest(ALARMS, 100)]
    assert {alarm.run for alarm in alarms} <= {uid}
    if said:
        assert any(said in alarm.text for alarm in alarms), [alarm.text for alarm in alarms]
        told = [message for _, message in await sinks.read(FILES) if isinstance(message, FileReady)]
        ready = [message for message in told if message.run_uid == uid]
        for writer in ("nexus", "nxsas"):
            (problems,) = [message.problems for message in ready if message.writer == writer]
            assert any(said in problem for problem in problems), problems


def stored(root: Path, address: CatalogAddress, uid: str, key: str) -> dict[str, list[Any]]:
    """Give what the files and the catalogue have of a data key, row by row."""
    (path,) = [path for path in (root / "nexus").rglob("[!.]*.nxs") if uid_in(path) == uid]
    found = {"nexus": column(path, "entry/streams/primary", key)}
    (path,) = (root / "nxsas").glob(f"*{uid}*")
    found["nxsas"] = column(path, "bluesky/events/primary/data", key)
    catalog = from_uri(address.uri, api_key=address.api_key)
    try:
        stream = catalog[uid]["primary"]
        keys = stream.metadata["data_keys"]
        (name,) = [name for name in stream if keys.get(name, {}).get("data_key", name) == key]
        found["tiled"] = [read(value) for value in np.asarray(stream[name].read()).tolist()]
    finally:
        catalog.context.http_client.close()
    return found


def uid_in(path: Path) -> str:
    with h5py.File(path) as file:
        return file["entry/entry_identifier"].asstr()[()]


def column(path: Path, group: str, key: str) -> list[Any]:
    with h5py.File(path) as file:
        members = file[group].items()
        (dataset,) = [dataset for name, dataset in members if dataset.attrs.get("data_key", name) == key]
        if h5py.check_string_dtype(dataset.dtype) is None:
            return dataset[()].tolist()
        return [json.loads(text) if "encoding" in dataset.attrs else text for text in dataset.asstr()[()]]


def tabled(root: Path, came: Documents, key: str) -> list[Any]:
    """Give what CSV has of a data key."""
    values: list[Any] = []
    for path in tables.export(came, root / "tables").get("stream_data", ()):
        with path.open(newline="", encoding="utf-8") as lines:
            values += [read(row[key]) for row in csv.DictReader(lines) if key in row]
    return values


def read(value: Any) -> Any:
    """Read a cell that may be a number, JSON or text."""
    for kind in (float, json.loads):
        with contextlib.suppress(ValueError, TypeError):
            return kind(value)
    return value


def plain(value: Any) -> Any:
    """Give a value so that two that say the same are equal: what is missing, NaN and empty text are alike in tables."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or value == "" or value != value:
        return None
    return str(value) if isinstance(value, complex) else value


OBJECTS = {
    "a set": ({1, 2}, [1, 2]),
    "bytes": (b"\0raw\xff", {"base64": "AHJhd/8="}),
    "an integer of 80 bits": (2**80, 2.0**80),
    "an object": (Opaque(), "opaque"),
    "a structured array": (np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]), [[1, 2.5]]),
    "an array of objects": (np.array([None, "a"], dtype=object), [None, "a"]),
    "half a surrogate pair": ("\ud800x", "\ud800x"),
    "a NUL": ("a\0b", "a\0b"),
    "a date": (np.datetime64("2026-11-27"), "2026-11-27"),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_objects_that_hdf5_has_no_type_for_are_written_by_a_bare_run_engine_too(tmp_path: Path, kind: str) -> None:
    value, expected = OBJECTS[kind]
    documents = recorded([value, value])
    emitted: list[Any] = []
    bare = [
        ScanBundler(emit=emitted.append),
        NexusWriter(directory=tmp_path / "nexus", wait_for_files=0),
        NXsasWriter(directory=tmp_path / "nxsas", tree={}),
    ]
    for name, doc in documents:
        for callback in bare:
            callback(name, doc)
    (path,) = (tmp_path / "nexus").rglob("[!.]*.nxs")
    assert column(path, "entry/streams/primary", "x") == [expected] * 2
    (path,) = (tmp_path / "nxsas").glob("[!.]*")
    assert column(path, "bluesky/events/primary/data", "x") == [expected] * 2
    assert [point.data["x"] is value for point in emitted] == [True, True]
    assert len(tabled(tmp_path, documents, "x")) == 2
    write_documents(tmp_path / "run.jsonl", documents)
    assert len(list(read_documents(tmp_path / "run.jsonl"))) == len(documents)


@pytest.mark.parametrize("broken", ["nexus", "nxsas"])
async def test_a_sink_without_a_directory_says_so_and_the_others_go_on(sinks: Bus, tmp_path: Path, broken: str) -> None:
    (tmp_path / broken).write_text("a file where the directory should be")
    uid = await put(sinks, recorded([1.0, 2.0]), *(set(SINKS) - {broken}))

    async def is_told() -> bool:
        return any(alarm.run == uid for _, alarm in await sinks.newest(ALARMS, 100))

    await until(is_told, 20.0)
    (alarm,) = [alarm for _, alarm in await sinks.newest(ALARMS, 100)]
    assert alarm.text.startswith(f"{broken} gave up on a run: SettingsError: ")
    assert "cannot be written in" in alarm.text and "or choose another directory" in alarm.text
    assert await sinks.redis.ttl(sinks.key(DOCUMENTS, run=uid)) == -1, "the documents stay"
    (tmp_path / broken).unlink()
    good = await put(sinks, recorded([7.0, 8.0]), *SINKS)
    assert broken in await sinks.fields(STORED, run=good)
    assert broken not in await sinks.fields(STORED, run=uid)


WRITERS = {
    "nexus": ("from writers.nexus import NexusWriter as Writer", "Writer(directory={root!r}, min_free={free})"),
    "nxsas": (
        "from writers.nxsas import NXsasWriter as Writer",
        "Writer(directory={root!r}, tree={{}}, min_free={free})",
    ),
    "csv": ("from writers.tables import export", "lambda documents: export(documents, {root!r})"),
    "jsonl": (
        "from bec_bluesky.documents import write_documents",
        "lambda documents: write_documents({root!r} + '/' + documents[0][1]['uid'] + '.jsonl', documents)",
    ),
}
FULL_DISK = """
import json, resource, signal
from pathlib import Path
from bec_bluesky.errors import SettingsError
{imported}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
big, good = json.loads(Path({told!r}).read_text())
writer = {made}
def write(documents):
    if {is_export}:
        writer(documents)
        return
    failures = []
    for name, doc in documents:
        try:
            writer(name, doc)
            writer.tick()
        except SettingsError as error:
            failures.append(error)
    if failures:
        raise failures[0]
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    write(big)
except (SettingsError, OSError) as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
write(good)
if not {is_export}:
    writer.close()
"""


@pytest.mark.parametrize("sink", WRITERS)
def test_a_full_disk_is_said_and_the_next_run_is_written(tmp_path: Path, sink: str) -> None:
    """The limit stands for a full disk, which is met in the same way; the process must end well."""
    root, told = tmp_path / "files", tmp_path / "documents.json"
    root.mkdir()
    big, good = recorded([float(number) for number in range(10_000)]), recorded([7.0, 8.0])
    told.write_text(json.dumps([big, good]))
    imported, made = WRITERS[sink]
    code = FULL_DISK.format(
        imported=imported, told=str(told), made=made.format(root=str(root), free=0), is_export=sink in ("csv", "jsonl")
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cannot be written" in done.stdout or "File too large" in done.stdout
    (path,) = [path for path in root.rglob("[!.]*") if path.is_file()]  # no half of the other
    match sink:
        case "nexus":
            assert column(path, "entry/streams/primary", "x") == [7.0, 8.0]
        case "nxsas":
            assert column(path, "bluesky/events/primary/data", "x") == [7.0, 8.0]
        case "csv":
            assert path.read_text().splitlines()[1:] == ["1.0,1,7.0", "2.0,2,8.0"]
        case _:
            assert as_lists(list(read_documents(path))) == as_lists(good)


@pytest.mark.parametrize("sink", ["nexus", "nxsas"])
def test_a_disk_without_the_room_that_must_stay_is_not_filled(tmp_path: Path, sink: str) -> None:
    kind: Any = {"nexus": NexusWriter, "nxsas": NXsasWriter}[sink]
    writer = kind(directory=tmp_path / "files", min_free=2**60, **({"tree": {}} if sink == "nxsas" else {}))
    documents = recorded([1.0])
    with pytest.raises(SettingsError, match=r"MB left, and .* MB are to stay free: make room, or choose another"):
        writer(*documents[0])
    writer.tick()
    writer.close()


@pytest.mark.parametrize("sink", WRITERS)
def test_an_existing_file_is_not_overwritten(tmp_path: Path, sink: str) -> None:
    documents = recorded([1.0, 2.0])
    uid = documents[0][1]["uid"]
    there = {"nexus": "run.nxs", "nxsas": "run.h5", "csv": f"{uid}-primary.csv", "jsonl": f"{uid}.jsonl"}[sink]
    (tmp_path / there).write_text("precious")
    match sink:
        case "nexus":
            writer = NexusWriter(directory=tmp_path, template="run.nxs")
            for name, doc in documents:
                writer(name, doc)
            assert writer.holds(uid) and len(list(tmp_path.glob("*.nxs"))) == 2, "it has taken another name"
        case "nxsas":
            with pytest.raises(FileExistsError, match="is not overwritten"):
                write_scattering(documents, tmp_path, "run")
        case "csv":
            with pytest.raises(FileExistsError):
                tables.export(documents, tmp_path)
        case _:
            with pytest.raises(FileExistsError):
                write_documents(tmp_path / there, documents)
    assert (tmp_path / there).read_text() == "precious"
