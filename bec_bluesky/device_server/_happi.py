"""Devices of a happi database: a JSON file of items, read without happi itself.

An item is a mapping with `name`, `device_class` ('package.module.Class'), `args`, `kwargs`, `active` and more.
`{{field}}` in its arguments is replaced by a field of the item, with its type where the template is the whole text;
`{{name_of_another_item}}` by that item: a device, or an object for others if it takes no name.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bec_bluesky.errors import SettingsError, choices

__all__ = ["Item", "read_happi"]

_TEMPLATE = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_OWN = frozenset({"name", "device_class", "args", "kwargs", "active"})
_MOST_DEPTH = 16


@dataclass(frozen=True)
class Item:
    """An item that is a device."""

    name: str
    line: int
    entry: dict[str, Any]
    """As it would stand in a device file."""


def read_happi(text: str, where: Mapping[str, Any]) -> Iterator[Item | SettingsError]:
    """Give the devices of a database, or what is wrong with one (`line: item: sentence`).

    Only items whose fields are as `where` says; those without a class are none, those that are not active are disabled.
    Raises SettingsError if the text is no database.
    """
    try:
        content: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingsError(f"{error.lineno}: is no JSON: {error.msg}") from None
    if not isinstance(content, dict):
        raise SettingsError("1: must be an object of items, as happi writes it")
    database = _Database(content, text)
    for key, item in content.items():
        if not isinstance(item, dict):
            yield SettingsError(f"{database.line(key)}: item {key!r}: must be an object with `name` and `device_class`")
        elif all(item.get(field) == value for field, value in where.items()) and database.is_device(item):
            try:
                yield database.device(key, item)
            except SettingsError as error:
                yield SettingsError(f"{database.line(key)}: item {key!r}: {error}")


class _Database:
    def __init__(self, content: dict[str, Any], text: str) -> None:
        self._text = text
        items = [item for item in content.values() if isinstance(item, dict)]
        self._by_name = {str(item["name"]): item for item in items if item.get("name")}
        named = {word for item in items for word in _templates([item.get("args"), item.get("kwargs")])}
        self._objects = {
            name for name, item in self._by_name.items() if name in named and "name" not in (item.get("kwargs") or {})
        }
        """Items that others take and that take no name: path providers and the like."""

    def line(self, key: str) -> int:
        found = re.search(rf"^\s*{re.escape(json.dumps(key))}\s*:", self._text, re.MULTILINE)
        return self._text.count("\n", 0, found.end() if found else 0) + 1

    def is_device(self, item: dict[str, Any]) -> bool:
        return bool(item.get("device_class")) and str(item.get("name")) not in self._objects

    def device(self, key: str, item: dict[str, Any]) -> Item:
        for field, kind, word in (("args", list, "a list"), ("kwargs", dict, "an object")):
            if not isinstance(item.get(field) or kind(), kind):
                raise SettingsError(f"{field} = {item[field]!r}: must be {word}")
        if not isinstance(item.get("name"), str):
            raise SettingsError(f"name = {item.get('name')!r}: must be a text")
        kwargs = {name: self._filled(value, item) for name, value in (item.get("kwargs") or {}).items()}
        if kwargs.get("name") == item["name"]:
            del kwargs["name"]
        entry = {
            "class": _target(item["device_class"]),
            "args": [self._filled(value, item) for value in item.get("args") or ()],
            "kwargs": kwargs,
            "metadata": {field: value for field, value in item.items() if field not in _OWN and value is not None},
        }
        if item.get("active") is False:
            entry["enabled"] = False
        return Item(item["name"], self.line(key), entry)

    def _filled(self, value: Any, item: dict[str, Any], depth: int = 0) -> Any:
        if isinstance(value, list):
            return [self._filled(each, item, depth) for each in value]
        if isinstance(value, dict):
            return {name: self._filled(each, item, depth) for name, each in value.items()}
        if not isinstance(value, str):
            return value
        whole = _TEMPLATE.fullmatch(value.strip())
        if whole:
            return self._named(whole[1], item, depth)
        filled = _TEMPLATE.sub(lambda found: str(self._field(found[1], item)), value)
        if "{{" in filled or "{%" in filled:
            raise SettingsError(f"{value!r}: only templates of the kind '{{{{prefix}}}}' are understood")
        return filled

    def _named(self, word: str, item: dict[str, Any], depth: int) -> Any:
        """Give a field of the item, or another item."""
        if word in item or word not in self._by_name:
            return self._field(word, item)
        if word not in self._objects:
            return {"$ref": word}
        other = self._by_name[word]
        if depth > _MOST_DEPTH:
            raise SettingsError(f"{word!r} contains itself")
        args = [self._filled(each, other, depth + 1) for each in other.get("args") or ()]
        kwargs = {name: self._filled(each, other, depth + 1) for name, each in (other.get("kwargs") or {}).items()}
        return {"$obj": _target(other["device_class"]), "$args": args, **kwargs}

    def _field(self, word: str, item: dict[str, Any]) -> Any:
        if word not in item:
            known = [*item, *self._by_name]
            raise SettingsError(f"{{{{{word}}}}}: it has no field {word!r}: {choices(word, known)}")
        return item[word]


def _target(device_class: Any) -> str:
    module, _, name = str(device_class).rpartition(".")
    if not module:
        raise SettingsError(f"device_class = {device_class!r}: must be 'package.module.Class'")
    return f"{module}:{name}"


def _templates(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        found = _TEMPLATE.fullmatch(value.strip())
        if found:
            yield found[1]
    elif isinstance(value, list):
        for each in value:
            yield from _templates(each)
    elif isinstance(value, dict):
        yield from _templates(list(value.values()))
