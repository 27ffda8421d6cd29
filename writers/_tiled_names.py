"""Names of columns that a catalogue's SQL tables take: those they refuse are stored under a name close to them."""

import re
from collections.abc import Iterable
from typing import Any

__all__ = ["StoredNames", "stored_names"]

_REFUSED = re.compile(r"""['"`;\\%()=+./\x00-\x1f]|--|\*""")
"""What Tiled refuses in a column, what event-model has in no name (dots and slashes), and control characters."""
_MOST = 60
"""Bytes: 63 in PostgreSQL, and a column of timestamps is `ts_` and the name."""
_TAKEN: tuple[str, ...] = ("seq_num", "time", "seq_num_", "time_")
"""Columns of every table; Tiled's writer renames data keys of these names itself."""


def stored_names(keys: Iterable[str]) -> dict[str, str]:
    """Give {data key: name in the catalogue} for those keys of a stream that cannot have their own.

    SQL's columns differ by more than the case of letters, may be 63 bytes long and have no quotes or operators;
    event-model has no dots and slashes in names.
    """
    wanted = sorted(set(keys) - set(_TAKEN[:2]))
    taken: set[str] = {*_TAKEN}
    refused: list[str] = []
    for key in wanted:
        if _is_plain(key) and not taken & _columns(key):
            taken |= _columns(key)
        else:
            refused.append(key)
    names: dict[str, str] = {}
    for key in refused:
        names[key] = _free_name(key, taken)
        taken |= _columns(names[key])
    return names


def _is_plain(key: str) -> bool:
    # a leading underscore is Tiled's own, and `ts_` tells bluesky's clients that a column is one of timestamps
    begins_well = key[:1].isascii() and key[:1].isalpha() and not key.lower().startswith("ts_")
    return begins_well and len(key.encode()) <= _MOST and not _REFUSED.search(key)


def _columns(key: str) -> set[str]:
    return {key.lower(), f"ts_{key.lower()}"}


def _free_name(key: str, taken: set[str]) -> str:
    name = _REFUSED.sub("_", key)
    if not _is_plain(name[:3]):
        name = f"x{name}" if name.startswith("_") else f"x_{name}"
    number = 1
    while True:
        end = "" if number == 1 else f"_{number}"
        fitting = name.encode()[: _MOST - len(end)].decode(errors="ignore") + end
        if not taken & _columns(fitting):
            return fitting
        number += 1


class StoredNames:
    """Renames the data keys of one run's documents, where they must be; all others pass as they are."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, str]] = {}
        """By the uid of a descriptor."""

    def __call__(self, name: str, doc: dict[str, Any]) -> dict[str, Any]:
        """Give the document as it is stored."""
        if name == "descriptor":
            return self._descriptor(doc)
        names = self._names.get(doc["descriptor"]) if name in ("event", "event_page") else None
        if not names:
            return doc
        parts = {part: _renamed(doc[part], names) for part in ("data", "timestamps", "filled") if part in doc}
        return {**doc, **parts}

    def _descriptor(self, doc: dict[str, Any]) -> dict[str, Any]:
        data_keys = doc["data_keys"]
        names = stored_names(key for key, of in data_keys.items() if "external" not in of)
        if not names:
            return doc
        self._names[doc["uid"]] = names
        described = {
            names.get(key, key): {**of, "data_key": key} if key in names else of for key, of in data_keys.items()
        }
        objects = {
            device: [names.get(key, key) for key in keys] for device, keys in (doc.get("object_keys") or {}).items()
        }
        return {**doc, "data_keys": described, "object_keys": objects, "hints": _hints(doc.get("hints") or {}, names)}


def _hints(hints: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {
        device: {**of, "fields": [names.get(key, key) for key in of["fields"]]} if "fields" in of else of
        for device, of in hints.items()
    }


def _renamed(values: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in values.items()}
