"""Runs to write into files, and a reader's way to the plot."""

import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from bluesky import RunEngine
from event_model import compose_run

from writers.nexus import NexusWriter

Documents = list[tuple[str, dict[str, Any]]]


def run(engine: RunEngine, plan: Any, *callbacks: Any, **metadata: Any) -> Documents:
    documents: Documents = []
    engine(plan, [lambda name, doc: documents.append((name, doc)), *callbacks], **metadata)
    return documents


def column(documents: Documents, key: str) -> list[Any]:
    return [doc["data"][key] for name, doc in documents if name == "event" and key in doc["data"]]


def recorded(values: list[Any], *, dtype: str = "number", **start: Any) -> Documents:
    """Compose the documents of a run of one reading `x`."""
    bundle = compose_run(metadata={"scan_id": 1, "plan_name": "recorded"} | start)
    data_keys: Any = {"x": {"dtype": dtype, "shape": [], "source": "here"}}
    descriptor = bundle.compose_descriptor(name="primary", data_keys=data_keys, object_keys={"x": ["x"]})
    documents: Documents = [("start", dict(bundle.start_doc)), ("descriptor", dict(descriptor.descriptor_doc))]
    for number, value in enumerate(values):
        event = {"uid": f"e{number}", "descriptor": descriptor.descriptor_doc["uid"], "time": 1.0 + number}
        filled: dict[str, Any] = {"data": {"x": value}, "timestamps": {"x": 0.5 + number}, "filled": {}}
        documents.append(("event", event | filled | {"seq_num": number + 1}))
    stop = {"uid": "s", "run_start": bundle.start_doc["uid"], "time": time.time(), "exit_status": "success"}
    return [*documents, ("stop", stop)]


def with_frames(documents: Documents, path: Path) -> Documents:
    """Let a detector `eiger` announce two frames in `/frames` of a file of its own."""
    resource = {
        "uid": "r", "run_start": documents[0][1]["uid"], "data_key": "eiger", "mimetype": "application/x-hdf5",
        "uri": f"file://localhost{path}", "parameters": {"dataset": "/frames"},
    }  # fmt: skip
    datum = {
        "uid": "r/0", "stream_resource": "r", "descriptor": documents[1][1]["uid"],
        "indices": {"start": 0, "stop": 2}, "seq_nums": {"start": 1, "stop": 3},
    }  # fmt: skip
    return [*documents[:2], ("stream_resource", resource), ("stream_datum", datum), *documents[2:]]


def feed(writer: NexusWriter, documents: Documents) -> None:
    for name, doc in documents:
        writer(name, doc)


def as_lists(value: Any) -> Any:
    """Make tuples and arrays lists, which is all that a file's documents change."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: as_lists(item) for key, item in value.items()}
    return [as_lists(item) for item in value] if isinstance(value, list | tuple) else value


def default_plot(path: str) -> h5py.Group:
    """Follow `default` as a reader does; the file must be closed with the group's `.file`."""
    file = h5py.File(path, "r")
    entry = file[file.attrs["default"]]
    return entry[entry.attrs["default"]]


def texts(dataset: h5py.Dataset) -> list[str]:
    return list(dataset.asstr()[()])
