"""Edits of a device file's text that leave the rest of it as it is: only the lines of one device are written anew.

Comments, order and quotes stay; what cannot be done on those lines alone (a mapping in braces, anchors from elsewhere)
is done by writing the whole file anew, comments kept. Either way the result is read back and compared.
"""

import io
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from bec_bluesky.device_server._content import plain
from bec_bluesky.errors import RefusedError, choices

__all__ = ["add_device", "change_device", "remove_device"]

_INDENT = 2


def add_device(text: str, name: str, entry: Mapping[str, Any]) -> str:
    """Add a device at the end; `entry` is what stands in the file. Gives the new text."""
    value = _block(entry)

    def change(devices: CommentedMap) -> None:
        devices[name] = value

    return _edited(text, change, lambda lines, devices: _with(lines, devices, CommentedMap({name: value})))


def remove_device(text: str, name: str) -> str:
    """Remove a device and its comments inside; those before and after it stay. Gives the new text."""

    def change(devices: CommentedMap) -> None:
        del devices[name]

    return _edited(text, change, lambda lines, devices: _without(lines, devices, name))


def change_device(text: str, name: str, values: Mapping[str, Any], unset: Iterable[str] = ()) -> str:
    """Set keys of a device (`limits.low`, `labels`) and take others away; gives the new text.

    Raises RefusedError if a key to be taken away is not there, or a dotted key leads through what is no mapping.
    """
    for key, value in values.items():
        text = _set_key(text, name, key, value)
    for key in unset:
        text = _unset_key(text, name, key)
    return text


def _set_key(text: str, name: str, key: str, value: Any) -> str:
    *parents, last = key.split(".")

    def set_in(entry: CommentedMap) -> None:
        owner = _owner(name, entry, parents, key, make=True)
        if last not in owner or plain(owner[last]) != plain(value):
            owner[last] = _flow(value)

    def change(devices: CommentedMap) -> None:
        if devices.get(name) is None:
            devices[name] = CommentedMap()
        set_in(devices[name])

    def change_lines(lines: list[str], devices: CommentedMap) -> list[str] | None:
        if name not in devices:  # one of a database, to which this adds
            entry = CommentedMap()
            change(entry)
            return _with(lines, devices, entry)
        entry = devices[name]
        if not _is_block(entry):
            return _changed(lines, devices, name, change)
        first = [*parents, last][0]
        if first in entry:
            return _changed(lines, entry, first, set_in)
        added = CommentedMap()
        set_in(added)
        return _with(lines, entry, added)

    return _edited(text, change, change_lines)


def _unset_key(text: str, name: str, key: str) -> str:
    *parents, last = key.split(".")

    def unset_in(entry: CommentedMap) -> None:
        owner = _owner(name, entry, parents, key, make=False)
        if last not in owner:
            what = f"device {name} has no key {key!r} in the file: {choices(last, list(owner))}"
            raise RefusedError(what, "unknown_key")
        del owner[last]

    def change(devices: CommentedMap) -> None:
        unset_in(devices[name] or CommentedMap())

    def change_lines(lines: list[str], devices: CommentedMap) -> list[str] | None:
        entry = devices[name]
        if not _is_block(entry):
            return _changed(lines, devices, name, change)
        return _changed(lines, entry, parents[0], unset_in) if parents else _without(lines, entry, last)

    return _edited(text, change, change_lines)


def _is_block(mapping: Any) -> bool:
    return isinstance(mapping, CommentedMap) and bool(mapping) and not mapping.fa.flow_style()


def _edited(
    text: str,
    change: Callable[[CommentedMap], None],
    change_lines: Callable[[list[str], CommentedMap], list[str] | None],
) -> str:
    """Edit line by line if that can be, else the whole; the result says what it should, or it is not used."""
    newline = "\r\n" if "\r\n" in text else "\n"
    text = text.replace("\r\n", "\n")
    if not text.endswith("\n"):
        text += "\n"
    whole: CommentedMap = _yaml(text).load(text)
    devices = whole.get("devices")
    wanted: CommentedMap = _yaml(text).load(text)
    if wanted.get("devices") is None:
        wanted["devices"] = CommentedMap()
    change(wanted["devices"])
    if not wanted["devices"]:
        wanted["devices"] = None  # an empty mapping below a comment could not be read back
    elif wanted["devices"].fa.flow_style() and len(wanted["devices"]) > len(devices or ()):
        wanted["devices"].fa.set_block_style()  # `devices: {}`, to which one is added
    if _is_block(devices):
        try:
            lines = change_lines(text.splitlines(keepends=True), devices)
        except LookupError:
            lines = None  # a key that comes from an anchor (`<<: *motor`) has no line of its own
        if lines is not None and _says(result := "".join(lines), wanted):
            return result.replace("\n", newline)
    return _written(wanted, text).replace("\n", newline)


def _says(text: str, wanted: CommentedMap) -> bool:
    try:
        return plain(_yaml(text).load(text)) == plain(wanted)
    except YAMLError:
        return False


def _changed(
    lines: list[str], mapping: CommentedMap, key: str, change: Callable[[CommentedMap], None]
) -> list[str] | None:
    """Change the lines of one key of a mapping; None if they cannot be read alone."""
    first, last = _place(lines, mapping, key)
    indent = _indent_of(lines[first])
    if any(line.strip() and _indent_of(line) < indent for line in lines[first:last]):
        return None  # a text over several lines that hangs out
    block = "".join(line[indent:] if line.strip() else line for line in lines[first:last])
    try:
        content = _yaml(block).load(block)
    except YAMLError:
        return None  # it uses an anchor from elsewhere
    change(content)
    return [*lines[:first], *_indented(_written(content, block), indent), *lines[last:]]


def _with(lines: list[str], mapping: CommentedMap, added: CommentedMap) -> list[str]:
    """Add keys behind the last one of a mapping."""
    first, last = _place(lines, mapping, list(mapping)[-1])
    indent = _indent_of(lines[first])
    return [*lines[:last], *_indented(_written(added, "".join(lines)), indent), *lines[last:]]


def _without(lines: list[str], mapping: CommentedMap, key: str) -> list[str]:
    first, last = _place(lines, mapping, key)
    return [*lines[:first], *lines[last:]]


def _place(lines: list[str], mapping: CommentedMap, key: str) -> tuple[int, int]:
    """Give the lines of a key and its value: the first, and the one behind the last, comments after it left out."""
    keys = list(mapping)
    first: int = mapping.lc.key(key)[0]
    indent = _indent_of(lines[first])
    following = keys.index(key) + 1
    last: int = mapping.lc.key(keys[following])[0] if following < len(keys) else _end(lines, first, indent)
    while last > first + 1 and _is_between(lines[last - 1], indent):
        last -= 1
    return first, last


def _end(lines: list[str], first: int, indent: int) -> int:
    """Give the line behind a mapping: the first that is indented less."""
    for number in range(first + 1, len(lines)):
        line = lines[number]
        if line.strip() and not line.lstrip().startswith("#") and _indent_of(line) < indent:
            return number
    return len(lines)


def _is_between(line: str, indent: int) -> bool:
    """Tell whether a line belongs to no key: empty, or a comment that is not indented more than the keys."""
    stripped = line.strip()
    return not stripped or (stripped.startswith("#") and _indent_of(line) <= indent)


def _indent_of(line: str) -> int:
    return len(line) - len(line.lstrip())


def _indented(text: str, indent: int) -> list[str]:
    return [" " * indent + line if line.strip() else line for line in text.splitlines(keepends=True)]


def _owner(name: str, entry: Any, parents: list[str], key: str, *, make: bool) -> CommentedMap:
    for parent in parents:
        if make and entry.get(parent) is None:
            entry[parent] = _flow({})
        entry = entry.get(parent)
        if not isinstance(entry, CommentedMap):
            raise RefusedError(f"device {name}: {key!r}: {parent!r} is no mapping in the file", "bad_argument")
    return entry


def _block(entry: Mapping[str, Any]) -> CommentedMap:
    """Make an entry: a line a key, values in brackets."""
    return CommentedMap({key: _flow(value) for key, value in entry.items()})


def _flow(value: Any) -> Any:
    if isinstance(value, Mapping):
        mapping = CommentedMap({key: _flow(each) for key, each in value.items()})
        mapping.fa.set_flow_style()
        return mapping
    if isinstance(value, list | tuple):
        sequence = CommentedSeq([_flow(each) for each in value])
        sequence.fa.set_flow_style()
        return sequence
    return value


def _yaml(like: str = "") -> YAML:
    """Make a reader and writer that keeps what a person wrote, and indents as the text does."""
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 2**16
    indents = [len(found[1]) for found in re.finditer(r"^( +)[^\s#-]", like, re.MULTILINE)]
    mapping = min(indents, default=_INDENT)
    dashes = re.search(r"^( *)[^\s#][^\n]*:[ ]*\n( *)- ", like, re.MULTILINE)
    offset = len(dashes[2]) - len(dashes[1]) if dashes else 0
    yaml.indent(mapping=mapping, sequence=offset + 2, offset=offset)
    return yaml


def _written(content: CommentedMap, like: str) -> str:
    stream = io.StringIO()
    _yaml(like).dump(content, stream)
    return stream.getvalue()
