"""Documents as event-model has them, out of those that came: sinks need not expect what is malformed."""

import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from typing import Any

from event_model import DocumentNames

__all__ = ["Document", "DocumentMender"]

Document = Mapping[str, Any]
"""An event-model document."""

_KNOWN = frozenset(kind.name for kind in DocumentNames)
_OF_DESCRIPTORS = ("event", "event_page", "stream_datum")
_STATUS = ("success", "abort", "fail")
_HELD = 1_000
"""Documents that wait for their descriptor, at most."""
_RECENT = 1_000
"""Uids of events among which a repeated one is found."""
_SAID = 100
"""Problems kept, at most; the rest are counted."""


class DocumentMender:
    """Takes the documents of one run, the start document first, and gives what a sink can rely on.

    Every event has its descriptor before it, which declares all that the event holds, and has data, timestamps, time,
    number and uid; descriptors have name, time, and data keys with a type and a shape. What is not so is put into the
    nearest form that is, or left out if there is none; `problems` says what came. Sound documents pass as they are.
    Memory does not grow with the run. With `only_order` no document is changed or left out, but all is said.
    """

    def __init__(self, *, only_order: bool = False) -> None:
        self._only_order = only_order
        self._keys: dict[str, dict[str, Any]] = {}
        """{uid of a descriptor: its data keys}"""
        self._descriptors: dict[str, dict[str, Any]] = {}
        """{uid of a descriptor: the newest that took its place}"""
        self._resources: set[str] = set()
        self._last: dict[str, int] = {}
        """{stream: number of its newest event}"""
        self._held: dict[str, list[tuple[str, Document]]] = {}
        self._held_count = 0
        self._dropped = 0
        """Documents that came without a descriptor when `_HELD` waited for theirs."""
        self._recent: dict[str, tuple[Any, Any]] = {}
        """{uid of an event: its number and its time}"""
        self._order: deque[str] = deque()
        self.clock = 0.0
        """Time of the newest document."""
        self._unsaid = 0
        self.problems: list[str] = []

    def __call__(self, name: str, doc: Document) -> Iterator[tuple[str, Document]]:
        """Give what is to be taken for a document; nothing, if it has to wait or is left out."""
        if name == "event" and self._is_sound(doc):
            yield name, doc
            return
        for ordered in self._in_order(name, doc):
            mended = list(self._mended(*ordered))
            yield from [ordered] if self._only_order else mended

    def _in_order(self, name: str, doc: Document) -> Iterator[tuple[str, Document]]:
        """Keep what came before its descriptor until that has come, too much came, or the run ends."""
        if name in _OF_DESCRIPTORS and _descriptor_of(doc) not in self._keys:
            if self._held_count == _HELD and self._only_order:
                self._say(f"more than {_HELD} documents came before their descriptor: they are passed on without it")
                yield from self._let_go()
            elif self._held_count == _HELD:
                self._say(f"more than {_HELD} documents came before their descriptor: those after them are left out")
                self._dropped += 1
                return
            self._held_count += 1
            self._held.setdefault(_descriptor_of(doc), []).append((name, doc))
            return
        if name == "stop":
            if self._dropped:
                self._say(f"{self._dropped} documents were left out, whose descriptor came too late or never")
            if self._held:
                self._say(f"{self._held_count} documents came without a descriptor")
                yield from self._let_go() if self._only_order else ()
        yield name, doc
        if name == "descriptor":
            held = self._held.pop(str(doc.get("uid")), [])
            if held:
                self._held_count -= len(held)
                self._say(f"{self._descriptors[str(doc.get('uid'))]['name']}: {len(held)} came before their descriptor")
            yield from held

    def _let_go(self) -> Iterator[tuple[str, Document]]:
        """Give what waits for its descriptor, and wait no longer."""
        for held in self._held.values():
            yield from held
        self._held.clear()
        self._held_count = 0

    def _mended(self, name: str, doc: Document) -> Iterator[tuple[str, Document]]:
        if name in _OF_DESCRIPTORS and _descriptor_of(doc) not in self._keys:
            return
        match name:
            case "start":
                yield name, self._start(doc)
            case "descriptor":
                yield name, self._descriptor(doc)
            case "stop":
                yield name, self._stop(doc)
            case "event":
                yield from self._event(doc)
            case "event_page":
                yield from self._page(doc)
            case "stream_datum" if not self._is_sound_datum(doc):
                self._say(f"stream_datum {doc.get('uid')} has no known stream_resource, or no indices")
            case "stream_datum" if not isinstance(doc["descriptor"], str):
                yield name, {**doc, "descriptor": _descriptor_of(doc)}
            case "stream_resource" if not isinstance(doc.get("uid"), str):
                self._say(f"stream_resource {doc.get('uid')} has no uid")
            case _ if name in _KNOWN:
                if name == "stream_resource":
                    self._resources.add(doc["uid"])
                yield name, doc
            case _:
                self._say(f"there is no kind of document {name!r}")

    # ── events ──

    def _is_sound(self, event: Document) -> bool:
        """Tell, in a few microseconds, whether an event is as it should be; it is remembered then."""
        uid, given, data = event.get("uid"), event.get("descriptor"), event.get("data")
        if type(given) is not str:
            return False
        keys, stamps = self._keys.get(given), event.get("timestamps")
        if keys is None or type(uid) is not str or uid in self._recent or type(data) is not dict:
            return False
        if type(stamps) is not dict or not (data.keys() <= keys.keys() and data.keys() <= stamps.keys()):
            return False
        if type(event.get("seq_num")) is not int or type(event.get("time")) not in (float, int):
            return False
        if given != self._descriptors[given]["uid"]:
            return False
        self._remember(event)
        return True

    def _remember(self, event: Document) -> None:
        self._recent[event["uid"]] = event["seq_num"], event["time"]
        self._order.append(event["uid"])
        if len(self._order) > _RECENT:
            self._recent.pop(self._order.popleft(), None)
        self._last[self._descriptors[event["descriptor"]]["name"]] = event["seq_num"]
        self.clock = event["time"]

    def _event(self, doc: Document) -> Iterator[tuple[str, Document]]:
        descriptor = self._descriptors[_descriptor_of(doc)]
        stream, data, uid = descriptor["name"], doc.get("data"), doc.get("uid")
        if not isinstance(data, Mapping):
            self._say(f"{stream}: event {uid} has no data")
            return
        event = {**doc, "data": {str(key): value for key, value in data.items()}}
        if not isinstance(doc.get("seq_num"), Integral):
            event["seq_num"] = self._last.get(stream, 0) + 1
            self._say(f"{stream}: event {uid} has no number; it should be {event['seq_num']}")
        what = f"{stream}: event {event['seq_num']}"
        event["time"] = self._time(doc, what)
        if (earlier := self._recent.get(str(uid))) is not None:
            if earlier == (event["seq_num"], event["time"]):
                self._say(f"{what} came twice")
                return
            self._say(f"{stream}: several events have the uid {uid}")
        if earlier is not None or not isinstance(uid, str):
            event["uid"] = str(uuid.uuid4())
        event["timestamps"] = self._stamps(event, what)
        if undeclared := [key for key in event["data"] if key not in self._keys[descriptor["uid"]]]:
            descriptor = self._declare(_descriptor_of(doc), {key: event["data"][key] for key in undeclared})
            yield "descriptor", descriptor
        event["descriptor"] = descriptor["uid"]
        self._remember(event)
        yield "event", event

    def _stamps(self, event: Document, what: str) -> dict[str, Any]:
        """Give the timestamps; those that are not there are the event's time."""
        given = event.get("timestamps")
        stamps = {str(key): value for key, value in given.items()} if isinstance(given, Mapping) else {}
        if lacking := [key for key in event["data"] if not isinstance(stamps.get(key), Real)]:
            self._say(f"{what} has no timestamps of {_list(lacking)}")
        return stamps | dict.fromkeys(lacking, event["time"])

    def _page(self, doc: Document) -> Iterator[tuple[str, Document]]:
        descriptor = self._descriptors[_descriptor_of(doc)]
        data, stamps = doc.get("data"), doc.get("timestamps")
        columns: list[Any] = [doc.get(part) for part in ("seq_num", "time", "uid")]
        if isinstance(data, Mapping) and isinstance(stamps, Mapping):
            columns += data.values()
        if not isinstance(data, Mapping) or not isinstance(stamps, Mapping) or not _have_one_length(columns):
            self._say(f"{descriptor['name']}: a page of events is malformed")
            return
        count = len(columns[0])
        if undeclared := [key for key in data if key not in self._keys[descriptor["uid"]] and count]:
            descriptor = self._declare(_descriptor_of(doc), {key: data[key][0] for key in undeclared})
            yield "descriptor", descriptor
        yield "event_page", doc if descriptor["uid"] == doc["descriptor"] else {**doc, "descriptor": descriptor["uid"]}

    def _declare(self, uid: str, values: dict[str, Any]) -> Document:
        """Make a descriptor that takes the place of another one, with more data keys, which are as these values are."""
        before = self._descriptors[uid]
        self._say(f"{before['name']}: {_list(values)} came without a declaration")
        more = {key: _described(value) for key, value in values.items()}
        after = {**before, "uid": str(uuid.uuid4()), "data_keys": {**before["data_keys"], **more}}
        for other in (uid, before["uid"], after["uid"]):
            self._descriptors[other], self._keys[other] = after, after["data_keys"]
        return after

    def _is_sound_datum(self, doc: Document) -> bool:
        ranges = (doc.get("indices"), doc.get("seq_nums"))
        return str(doc.get("stream_resource")) in self._resources and all(
            isinstance(part, Mapping) and {"start", "stop"} <= part.keys() for part in ranges
        )

    # ── the others ──

    def _start(self, doc: Document) -> Document:
        start = {**doc, "time": self._time(doc, "the start document")}
        if start.get("scan_id") is not None and not isinstance(start["scan_id"], Integral):
            self._say(f"scan_id is {start['scan_id']!r}, which is no number")
            start["scan_id"] = 0
        if not isinstance(start.get("hints", {}), Mapping):
            self._say(f"hints of the start document are {start['hints']!r}")
            start["hints"] = {}
        return self._with_text_keys(start, "the start document")

    def _descriptor(self, doc: Document) -> Document:
        descriptor = {**doc, "uid": str(doc.get("uid")), "name": str(doc.get("name") or "primary")}
        stream = descriptor["name"]
        descriptor = self._with_text_keys(descriptor, f"{stream}: the descriptor")
        descriptor["time"] = self._time(doc, f"{stream}: the descriptor")
        for part in ("hints", "object_keys", "configuration", "data_keys"):
            if not isinstance(descriptor.get(part, None if part == "data_keys" else {}), Mapping):
                self._say(f"{stream}: {part} of the descriptor are {descriptor.get(part)!r}")
                descriptor[part] = {}
        given = descriptor["data_keys"]
        keys = descriptor["data_keys"] = {
            str(key): _complete(of) for key, of in given.items() if isinstance(of, Mapping)
        }
        if malformed := [str(key) for key in given if str(key) not in keys]:
            self._say(f"{stream}: {_list(malformed)} came with a malformed declaration")
        objects = descriptor.get("object_keys", {})
        if any(
            not isinstance(names, list | tuple) or any(str(key) not in keys for key in names)
            for names in objects.values()
        ):
            descriptor["object_keys"] = {
                device: [str(key) for key in names if str(key) in keys] if isinstance(names, list | tuple) else []
                for device, names in objects.items()
            }
        self._keys[descriptor["uid"]], self._descriptors[descriptor["uid"]] = keys, descriptor
        return descriptor

    def _stop(self, doc: Document) -> Document:
        stop = {**doc, "time": self._time(doc, "the stop document"), "uid": str(doc.get("uid") or uuid.uuid4())}
        if stop.get("exit_status") not in _STATUS:
            self._say(f"the exit_status of the stop document is {stop.get('exit_status')!r}, which tells nothing")
            stop["exit_status"] = "fail"
        if self._unsaid:
            self.problems.append(f"and {self._unsaid} more problems of documents")
        return self._with_text_keys(stop, "the stop document")

    def _with_text_keys(self, doc: dict[str, Any], what: str) -> dict[str, Any]:
        if _has_text_keys(doc):
            return doc
        self._say(f"{what} has keys that are no text")
        return _text_keys(doc)

    def _time(self, doc: Document, what: str) -> float:
        """Give a document's time; one without is taken to be of the time of the document before."""
        moment = doc.get("time")
        if isinstance(moment, Real):
            self.clock = float(moment)
        else:
            self.clock = self.clock or time.time()
            self._say(f"{what} has no time")
        return self.clock

    def _say(self, problem: str) -> None:
        if problem in self.problems:
            return
        if len(self.problems) < _SAID:
            self.problems.append(problem)
        else:
            self._unsaid += 1


def _descriptor_of(doc: Document) -> str:
    return str(doc.get("descriptor"))


def _have_one_length(columns: list[Any]) -> bool:
    """Tell whether these are columns of equally many values."""
    if any(isinstance(column, str | bytes | Mapping) or not hasattr(column, "__len__") for column in columns):
        return False
    return len({len(column) for column in columns}) == 1


def _has_text_keys(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _has_text_keys(item) for key, item in value.items())
    return not isinstance(value, list | tuple) or all(map(_has_text_keys, value))


def _text_keys(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _text_keys(item) for key, item in value.items()}
    return [_text_keys(item) for item in value] if isinstance(value, list | tuple) else value


def _complete(data_key: Mapping[str, Any]) -> dict[str, Any]:
    """Give a data key with what event-model requires."""
    shape = data_key.get("shape")
    return {"dtype": "number", "source": "", **data_key, "shape": shape if isinstance(shape, list | tuple) else []}


def _described(value: Any) -> dict[str, Any]:
    """Declare a data key as a value of it is."""
    if getattr(value, "shape", ()):
        return {"dtype": "array", "shape": list(value.shape), "source": "", "dtype_numpy": value.dtype.str}
    if isinstance(value, list | tuple):
        return {"dtype": "array", "shape": [len(value)], "source": ""}  # pyright: ignore[reportUnknownArgumentType]  # of anything
    kinds = {bool: "boolean", int: "integer", float: "number"}
    return {"dtype": kinds.get(type(value), "string"), "shape": [], "source": ""}


def _list(keys: Any) -> str:
    named = [str(key)[:40] or "''" for key in keys]
    return ", ".join(named) if len(named) <= 3 else f"{', '.join(named[:3])} and {len(named) - 3} more"
