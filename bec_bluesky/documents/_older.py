"""Documents of earlier versions of bluesky, as those of today.

What changed: bulk_events and bulk_datum became pages; resources name their run (event-model 1.14); descriptors got
names and hints (2016, 2017), events `filled`, stop documents `num_events`; metadatastore before 2015 kept
`[value, timestamp]` for each key of an event, and whole documents where there are uids now.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bec_bluesky.documents._callback import Document
from bec_bluesky.errors import RefusedError

__all__ = ["upgraded"]


def upgraded(documents: Iterable[tuple[str, Document]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the documents in today's form: nothing that is there is changed, but for its place.

    Raises RefusedError for a document without a uid, which nothing can refer to.
    """
    import event_model

    run = _Run()
    for name, document in documents:
        match name:
            case "bulk_events":
                for page in event_model.bulk_events_to_event_pages(dict(document)):
                    yield "event_page", page
            case "bulk_datum":
                page = event_model.bulk_datum_to_datum_page(dict(document))  # pyright: ignore[reportArgumentType]  # a dict
                yield "datum_page", dict(page)
            case "start" | "descriptor" | "event" | "resource" | "datum" | "stop":
                yield name, getattr(run, name)(dict(document))
            case _:
                yield name, dict(document)


class _Run:
    """What the documents of the run so far say of those that follow."""

    def __init__(self) -> None:
        self._uid = ""
        self._names: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._last_time = 0.0

    def start(self, doc: dict[str, Any]) -> dict[str, Any]:
        self._uid = _uid(doc, "start")
        self._counts.clear()
        doc.setdefault("time", self._last_time)
        return doc

    def descriptor(self, doc: dict[str, Any]) -> dict[str, Any]:
        _uid(doc, "descriptor")
        doc["run_start"] = _reference(doc.get("run_start"), self._uid)
        doc.setdefault("name", "primary")
        doc["name"] = doc["name"] or "primary"
        for key in ("data_keys", "configuration", "object_keys", "hints"):
            doc.setdefault(key, {})
        if not doc["object_keys"]:
            for key, described in doc["data_keys"].items():
                doc["object_keys"].setdefault(str(described.get("object_name") or key), []).append(key)
        self._names[doc["uid"]] = doc["name"]
        return doc

    def event(self, doc: dict[str, Any]) -> dict[str, Any]:
        _uid(doc, "event")
        doc["descriptor"] = _reference(doc.get("descriptor"), "")
        name = self._names.get(doc["descriptor"], "primary")
        self._counts[name] += 1
        data = doc.get("data") or {}
        if "timestamps" not in doc and data and all(map(_is_pair, data.values())):
            doc["timestamps"] = {key: pair[1] for key, pair in data.items()}
            doc["data"] = {key: pair[0] for key, pair in data.items()}
        doc.setdefault("time", self._last_time)
        doc.setdefault("timestamps", dict.fromkeys(data, doc["time"]))
        doc.setdefault("seq_num", self._counts[name])
        doc.setdefault("filled", {})
        self._last_time = float(doc["time"])
        return doc

    def resource(self, doc: dict[str, Any]) -> dict[str, Any]:
        doc.setdefault("uid", str(doc.pop("id", "") or doc.get("_id", "")))
        _uid(doc, "resource")
        doc.setdefault("run_start", self._uid)
        for key, value in {"path_semantics": "posix", "root": "", "resource_kwargs": {}}.items():
            doc.setdefault(key, value)
        return doc

    def datum(self, doc: dict[str, Any]) -> dict[str, Any]:
        doc["resource"] = _reference(doc.get("resource"), "")
        doc.setdefault("datum_kwargs", {})
        return doc

    def stop(self, doc: dict[str, Any]) -> dict[str, Any]:
        outcome = ("success", "") if doc else ("fail", "the run has no stop document: how it ended is not known")
        doc["run_start"] = _reference(doc.get("run_start"), self._uid)
        doc.setdefault("uid", f"{self._uid}-stop")
        for key, value in {"time": self._last_time, "exit_status": outcome[0], "reason": outcome[1]}.items():
            doc.setdefault(key, value)
        return doc


def _uid(doc: Mapping[str, Any], name: str) -> str:
    if not doc.get("uid"):
        raise RefusedError(f"the {name} document has no uid, by which others would refer to it", "bad_document")
    return str(doc["uid"])


def _reference(value: Any, default: str) -> str:
    """Give the uid that a document refers to; metadatastore put the whole document there."""
    if isinstance(value, Mapping):
        return str(value.get("uid") or value.get("id") or default)
    return str(value) if value else default


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[1], int | float) and value[1] > 1e8
