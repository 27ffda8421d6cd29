"""Runs composed by hand, for what devices do rarely, and the bundler on their documents."""

from typing import Any

from event_model import compose_run, compose_stream_resource

from bec_bluesky.documents import Document
from callbacks.bundler import ScanBundler

__all__ = ["FRAME", "NUMBER", "Documents", "Run", "live"]

Documents = list[tuple[str, Document]]
NUMBER = {"dtype": "number", "shape": [], "source": "test"}
FRAME = {"dtype": "array", "shape": [1, 4, 4], "source": "test", "external": "STREAM:"}


class Run:
    """A run composed with event_model; `seq_num`s are given so that it can go back as the RunEngine does."""

    def __init__(self, **metadata: Any) -> None:
        self.bundle = compose_run(metadata={"scan_id": 7, **metadata}, time=1_000.0)
        self.documents: Documents = [("start", self.bundle.start_doc)]

    def stream(self, name: str, **data_keys: Any) -> Any:
        bundle = self.bundle.compose_descriptor(name=name, data_keys=data_keys, hints={}, validate=False)
        descriptor = {**bundle.descriptor_doc, "time": 1_000.0}
        self.documents.append(("descriptor", descriptor))
        return bundle

    def event(self, stream: Any, seq_num: int, time: float, stamp: float | None = None, **data: Any) -> None:
        stamps = dict.fromkeys(data, time if stamp is None else stamp)
        event = stream.compose_event(data=data, timestamps=stamps, seq_num=seq_num, time=time, validate=False)
        self.documents.append(("event", event))

    def resource(self, key: str, chunk_shape: tuple[int, ...] = (1, 4, 4)) -> Any:
        bundle = compose_stream_resource(
            data_key=key,
            mimetype="application/x-hdf5",
            uri="file://localhost/frames.h5",
            parameters={"chunk_shape": chunk_shape},
            start=self.bundle.start_doc,
        )
        self.documents.append(("stream_resource", bundle.stream_resource_doc))
        return bundle

    def frames(self, stream: Any, resource: Any, seq_nums: tuple[int, int], indices: tuple[int, int]) -> None:
        datum = resource.compose_stream_datum(
            indices={"start": indices[0], "stop": indices[1]},
            seq_nums={"start": seq_nums[0], "stop": seq_nums[1]},
            descriptor=stream.descriptor_doc,
        )
        self.documents.append(("stream_datum", datum))

    def stop(self) -> Documents:
        self.documents.append(("stop", self.bundle.compose_stop(time=2_000.0)))
        return self.documents


def live(documents: Documents, **settings: Any) -> list[Any]:
    made: list[Any] = []
    bundler = ScanBundler(emit=made.append, **settings)
    for name, doc in documents:
        bundler(name, doc)
    assert not bundler.open_runs or documents[-1][0] != "stop"
    return made
