"""Reading a run while it grows: another process with `swmr=True`, and what becomes of the file."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bec_bluesky.documents import FileGrowing, FileReady, Product, RunProblem
from tests.writers.nexus_harness import Documents, column, feed, recorded, texts
from writers.nexus import NexusWriter, read_documents

BATCH = 1_000
"""Documents that are written at once."""
READER = Path(__file__).with_name("swmr_reader.py")


@pytest.fixture
def products() -> list[Product]:
    return []


@pytest.fixture
def following(root: Path, products: list[Product]) -> Iterator[NexusWriter]:
    writer = NexusWriter(directory=root, emit=products.append, wait_for_files=0)
    yield writer
    writer.close()


def numbers(count: int) -> Documents:
    return recorded([float(number) for number in range(count)])


def growing(products: list[Product]) -> Path:
    (path,) = {product.path for product in products if isinstance(product, FileGrowing)}
    return Path(path)


def ready(products: list[Product]) -> FileReady:
    (product,) = (product for product in products if isinstance(product, FileReady))
    return product


def problems(products: list[Product]) -> list[str]:
    return [product.text for product in products if isinstance(product, RunProblem)]


def reading(path: Path, key: str = "x", stream: str = "primary") -> subprocess.Popen[str]:
    command = [sys.executable, str(READER), str(path), stream, key]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_rows(reader: subprocess.Popen[str], rows: int) -> None:
    """Read what the reader has seen until it has that many rows; it ends with an error if it never has."""
    assert reader.stdout is not None
    for line in reader.stdout:
        if int(line) >= rows:
            return
    _, errors = reader.communicate()
    raise AssertionError(f"the reader ended before {rows} rows: {errors}")


def ended(reader: subprocess.Popen[str]) -> tuple[int | None, str, str]:
    """Give the reader's code, the last line it told, and its errors."""
    out, errors = reader.communicate(timeout=30)
    return reader.returncode, (out.splitlines() or [""])[-1], errors


def with_stream(documents: Documents, name: str, values: dict[str, list[Any]], **keys: dict[str, Any]) -> Documents:
    """Compose the descriptor and events of another stream of a run."""
    uid, described = f"descriptor-{name}", {key: {"source": "here", "shape": [], **keys[key]} for key in keys}
    descriptor = {"uid": uid, "run_start": documents[0][1]["uid"], "name": name, "time": 1.0, "data_keys": described}
    made: Documents = [("descriptor", descriptor | {"object_keys": {}, "configuration": {}, "hints": {}})]
    for number, row in enumerate(zip(*values.values(), strict=True), 1):
        data = dict(zip(values, row, strict=True))
        event = {"uid": f"{uid}/{number}", "descriptor": uid, "time": 1.0 + number, "seq_num": number, "filled": {}}
        made.append(("event", event | {"data": data, "timestamps": dict.fromkeys(data, 1.0)}))
    return made


def written_now(writer: NexusWriter) -> None:
    """Let a second pass for what waits in memory, as a document service does by ticking."""
    for file in writer._open_files():
        file.flush()


def test_another_process_reads_the_run_while_it_grows(following: NexusWriter, products: list[Product]) -> None:
    documents = numbers(10 * BATCH)
    feed(following, documents[: BATCH + 2])
    reader = reading(growing(products))
    wait_for_rows(reader, BATCH - 2)
    for batch in range(1, 10):
        feed(following, documents[batch * BATCH + 2 : (batch + 1) * BATCH + 2])
        wait_for_rows(reader, (batch + 1) * BATCH - 2)
    assert not [product for product in products if isinstance(product, FileReady)]
    feed(following, documents[-1:])
    assert ended(reader) == (0, str(10 * BATCH), ""), "what it has open is complete, though the file is gone"
    assert not growing(products).exists()
    assert [path.name for path in Path(ready(products).path).parent.iterdir()] == [Path(ready(products).path).name]
    assert list(read_documents(ready(products).path)) == documents
    assert problems(products) == []


def test_the_paths_and_values_are_those_of_the_final_file(following: NexusWriter, products: list[Product]) -> None:
    documents = numbers(BATCH)
    values = {"n": list(range(60)), "ok": [True, False] * 30, "word": ["edge", "é"] * 30, "a": [np.arange(3)] * 60}
    mixed = with_stream(
        documents,
        "other",
        {**values, "odd": [1, "one"] * 30},
        n={"dtype": "integer", "units": "mm", "precision": 3},
        ok={"dtype": "boolean"},
        word={"dtype": "string", "enum_strs": ["edge", "é"]},
        a={"dtype": "array", "shape": [3], "dtype_numpy": "<i8"},
        odd={"dtype": "number"},
    )
    feed(following, [*documents[:2], *mixed, *documents[2:-1]])
    followed: dict[str, Any] = {}
    with h5py.File(growing(products), "r", swmr=True) as file:
        assert file.attrs["follows"] == "000001_recorded.nxs"
        assert file["entry/entry_identifier"].asstr()[()] == documents[0][1]["uid"]
        group = file["entry/streams/other"]
        for key in ("seq_num", "time", "n", "ok", "a", *(f"timestamps/{key}" for key in (*values, "odd"))):
            followed[key] = (group[key][()].tolist(), sorted(group[key].attrs))
        for key in ("word", "odd"):
            followed[key] = (texts(group[key]), sorted(group[key].attrs))
        assert group["n"].attrs["units"] == "mm"
        assert list(group["word"].attrs["enum_strs"]) == ["edge", "é"]
        assert json.loads(group["odd"].asstr()[1]) == "one"
    feed(following, documents[-1:])
    with h5py.File(ready(products).path) as file:
        group = file["entry/streams/other"]
        for key, (values_, attributes) in followed.items():
            final = texts(group[key]) if key in ("word", "odd") else group[key][()].tolist()
            assert (values_, attributes) == (final, sorted(group[key].attrs)), key


def test_a_stream_that_begins_later_is_there_for_who_opens_later(
    following: NexusWriter, products: list[Product]
) -> None:
    documents = numbers(2 * BATCH)
    feed(following, documents[: BATCH + 2])
    path = growing(products)
    with h5py.File(path, "r", swmr=True) as early:
        first = early["entry/streams/primary/x"]
        feed(following, with_stream(documents, "late", {"y": [0.0, 1.0, 2.0]}, y={"dtype": "number"}))
        written_now(following)
        assert list(early["entry/streams"]) == ["primary"]
        reader = reading(path, "y", "late")
        wait_for_rows(reader, 3)
        feed(following, documents[BATCH + 2 : -1])
        written_now(following)
        first.refresh()
        assert len(first) == 2 * BATCH, "what was open grows on"
    feed(following, documents[-1:])
    assert ended(reader)[::2] == (0, "")
    with h5py.File(ready(products).path) as file:
        assert file["entry/streams/late/y"][()].tolist() == [0, 1, 2]


def test_a_column_that_changes_its_type_hurts_no_reader(following: NexusWriter, products: list[Product]) -> None:
    start = numbers(0)
    values: list[Any] = [*range(10), 10.5, *[None] * 10, "text", "t" * 300]
    events = with_stream(start, "odd", {"v": values, "w": ["w" * 20 * n for n in range(23)]}, v={"dtype": "integer"})
    feed(following, [start[0], *events[:11]])
    written_now(following)
    path = growing(products)
    with h5py.File(path, "r", swmr=True) as early:
        before = early["entry/streams/odd/v"]
        assert before.dtype == np.int64
        seen: list[int] = []
        for event in events[11:]:
            feed(following, [event])
            written_now(following)
            with h5py.File(path, "r", swmr=True) as now:
                seen.append(len(now["entry/streams/odd/v"]))
        before.refresh()
        assert before[()].tolist() == list(range(10))
    assert seen == list(range(11, 24))
    with h5py.File(path, "r", swmr=True) as now:
        last = {key: texts(now["entry/streams/odd"][key]) for key in ("v", "w")}
    assert json.loads(last["v"][-2]) == "text"
    assert [len(text) for text in last["w"]] == [20 * n for n in range(23)]
    feed(following, start[-1:])
    assert not path.exists()
    assert not list(path.parent.glob(".*.follow"))
    with h5py.File(ready(products).path) as file:
        assert last == {key: texts(file["entry/streams/odd"][key]) for key in ("v", "w")}


def test_columns_that_never_settle_end_the_reading_and_not_the_run(
    following: NexusWriter, products: list[Product]
) -> None:
    start = numbers(0)
    events = [with_stream(start, "odd", {f"k{number}": [1.0]}) for number in range(30)]
    feed(following, [start[0], events[0][0]])
    for made in events:
        feed(following, made[1:])
        written_now(following)
    path = growing(products)
    assert not path.exists()
    feed(following, start[-1:])
    assert problems(products)[0] == (
        f"{path.name}, to follow the run, is given up: the columns of odd changed more than 20 times"
    )
    with h5py.File(ready(products).path) as file:
        assert len(file["entry/streams/odd/k29"]) == 30


def test_large_arrays_are_not_doubled_and_the_file_says_so(following: NexusWriter, products: list[Product]) -> None:
    start = numbers(0)
    frames, lines = [np.full((200, 200), n, "<u2") for n in range(3)], [np.full(500, n, "<f8") for n in range(3)]
    key = {"dtype": "array", "dtype_numpy": "<u2", "shape": [200, 200]}
    line = {"dtype": "array", "dtype_numpy": "<f8", "shape": [500]}
    feed(following, [start[0], *with_stream(start, "cam", {"frame": frames, "line": lines}, frame=key, line=line)])
    written_now(following)
    with h5py.File(growing(products), "r", swmr=True) as file:
        group = file["entry/streams/cam"]
        assert list(group.attrs["not_followed"]) == ["frame"]
        assert "frame" not in group
        assert group["line"][:, 0].tolist() == [0, 1, 2]
        assert group["timestamps/frame"].shape == (3,)
    feed(following, start[-1:])
    with h5py.File(ready(products).path) as file:
        assert file["entry/streams/cam/frame"][:, 0, 0].tolist() == [0, 1, 2]


def test_frames_that_a_detector_writes_are_reached_while_it_writes(
    following: NexusWriter, products: list[Product], root: Path
) -> None:
    documents = numbers(2 * BATCH)
    root.mkdir()
    with h5py.File(root / "eiger.h5", "w", libver="latest") as detector:
        frames = detector.create_dataset("data", (0, 4, 4), "u2", maxshape=(None, 4, 4), chunks=(1, 4, 4))
        detector.swmr_mode = True
        resource: dict[str, Any] = {"uid": "r", "run_start": documents[0][1]["uid"], "data_key": "eiger"}
        resource |= {"mimetype": "application/x-hdf5", "uri": f"file://localhost{root}/eiger.h5"}
        resource |= {"parameters": {"dataset": "/data"}}
        datum: dict[str, Any] = {"uid": "r/0", "stream_resource": "r", "descriptor": documents[1][1]["uid"]}
        datum |= {"indices": {"start": 0, "stop": 2}, "seq_nums": {"start": 1, "stop": 3}}
        feed(following, [*documents[:2], ("stream_resource", resource), ("stream_datum", datum), *documents[2:BATCH]])
        written_now(following)
        with h5py.File(growing(products), "r", swmr=True) as file:
            seen = file["entry/streams/primary/eiger"]
            assert seen.shape == (0, 4, 4)
            frames.resize(2, axis=0)
            frames[:] = 7
            detector.flush()
            seen.refresh()
            assert seen[:, 0, 0].tolist() == [7, 7]
            assert file.get("entry/streams/primary/eiger", getlink=True).filename == "../eiger.h5"
    feed(following, documents[BATCH:])
    assert ready(products).problems == []


def test_a_run_of_a_moment_needs_no_such_file(following: NexusWriter, products: list[Product], root: Path) -> None:
    feed(following, numbers(20))
    assert [type(product) for product in products] == [FileReady]
    assert [path.suffix for path in root.rglob("*.*") if path.name != ".runs.jsonl"] == [".nxs"]


def test_it_can_be_turned_off(root: Path, products: list[Product]) -> None:
    writer = NexusWriter(directory=root, emit=products.append, follow=False)
    documents = numbers(3 * BATCH)
    feed(writer, documents[:-1])
    assert not list(root.rglob("*follow*"))
    feed(writer, documents[-1:])
    assert [type(product) for product in products] == [FileReady]


def test_a_writer_that_is_closed_leaves_nothing_that_nobody_writes(
    following: NexusWriter, products: list[Product]
) -> None:
    documents = numbers(2 * BATCH)
    feed(following, documents[:-1])
    reader = reading(growing(products))
    wait_for_rows(reader, BATCH)
    following.close()
    assert ended(reader) == (0, str(2 * BATCH), "")
    assert [path.suffix for path in growing(products).parent.iterdir()] == [".part"]


def test_what_a_kill_leaves_is_made_anew_and_is_gone_at_the_end(
    following: NexusWriter, products: list[Product], root: Path, tmp_path: Path
) -> None:
    documents = numbers(5 * BATCH)
    told = tmp_path / "documents.json"
    told.write_text(json.dumps(documents))
    script = f"""
import json, os, signal, sys
from pathlib import Path
from writers.nexus import NexusWriter
writer = NexusWriter(directory={str(root)!r}, emit=lambda product: print(product.path, flush=True))
for name, doc in json.loads(Path({str(told)!r}).read_text())[:{3 * BATCH + 500}]:
    writer(name, doc)
print("fed", flush=True)
sys.stdin.readline()
"""
    command = [sys.executable, "-c", script]
    killed = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    left = Path(killed.stdout.readline().strip())
    assert killed.stdout.readline() == "fed\n"
    early = reading(left)
    wait_for_rows(early, 3 * BATCH - 2)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    killed.communicate()
    with h5py.File(left, "r", swmr=True) as file:
        assert len(file["entry/streams/primary/x"]) >= 3 * BATCH - 2
    feed(following, documents[: BATCH + 2])
    assert growing(products) == left
    early_end = ended(early) if early.poll() is not None else None
    late = reading(left)
    wait_for_rows(late, BATCH - 2)
    feed(following, documents[BATCH + 2 : -1])
    wait_for_rows(late, 4 * BATCH)
    feed(following, documents[-1:])
    assert ended(late) == (0, str(5 * BATCH), "")
    code, rows, errors = early_end or ended(early)
    assert (code, errors) == (0, ""), "who had the dead file open has what it held"
    assert rows in ("", str(3 * BATCH - 2))
    assert not left.exists()
    assert not list(root.rglob("*follow*"))
    assert list(read_documents(ready(products).path)) == documents


def test_a_kill_before_the_announcement_leaves_none(root: Path, products: list[Product]) -> None:
    documents = numbers(2 * BATCH)
    writer = NexusWriter(directory=root, emit=products.append)
    feed(writer, documents)
    (root / ".runs.jsonl").unlink()
    stale = growing(products)
    stale.touch()
    folder = stale.with_name(f".{stale.name.removesuffix('.h5')}")
    folder.mkdir()
    feed(NexusWriter(directory=root, emit=products.append), documents)
    assert not stale.exists()
    assert not folder.exists()


def test_where_it_cannot_be_made_the_run_is_written_all_the_same(
    following: NexusWriter, products: list[Product], root: Path
) -> None:
    documents = numbers(3 * BATCH)
    feed(following, documents[:2])
    (part,) = root.rglob("*.part")
    part.with_suffix(".follow").touch()  # somebody's file where the folder would be
    feed(following, documents[2:])
    (problem,) = problems(products)
    assert "to follow the run, is given up" in problem
    assert "File exists" in problem
    assert not [product for product in products if isinstance(product, FileGrowing)]
    assert list(read_documents(ready(products).path)) == documents


def test_a_disk_that_is_nearly_full_is_left_to_the_run_itself(root: Path, products: list[Product]) -> None:
    root.mkdir()
    found = os.statvfs(root)
    free = found.f_bavail * found.f_frsize
    writer = NexusWriter(directory=root, emit=products.append, min_free=free - 200 * 2**20)
    documents = numbers(2 * BATCH)
    feed(writer, documents)
    (problem,) = problems(products)
    assert "MB are to stay free" in problem
    assert list(read_documents(ready(products).path)) == documents


def test_a_disk_that_fails_costs_who_reads_along_only(root: Path, tmp_path: Path) -> None:
    """Every write to the copy fails as on a full disk: its descriptor becomes that of /dev/full."""
    told = tmp_path / "documents.json"
    told.write_text(json.dumps(numbers(6 * BATCH)))
    script = f"""
import json, os
from pathlib import Path
from writers.nexus import NexusWriter
products = []
writer = NexusWriter(directory={str(root)!r}, emit=products.append)
documents = json.loads(Path({str(told)!r}).read_text())
for name, doc in documents[:2_000]:
    writer(name, doc)
descriptors = {{each.resolve().name: int(each.name) for each in Path("/proc/self/fd").iterdir()}}
full = os.open("/dev/full", os.O_RDWR)
os.dup2(full, descriptors["primary.1.h5"])
for name, doc in documents[2_000:]:
    writer(name, doc)
writer.close()
growing, problem, ready = products
assert "is given up" in problem.text and "No space left" in problem.text, problem
assert not Path(growing.path).exists()
print(ready.path)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert column(list(read_documents(done.stdout.strip())), "x") == list(range(6 * BATCH))
    assert not list(root.rglob("*follow*"))
