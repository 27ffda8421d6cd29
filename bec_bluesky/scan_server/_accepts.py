"""What a parameter of a plan accepts, as data: a small algebra that crosses processes and languages.

A type is a dict with a `kind`:

    {"kind": "device", "protocols": ["Movable"]}   name of a device that has all these protocols (bluesky.protocols);
                                                   with "labels": [TEXT, …] one of these labels, too; with
                                                   "names": [TEXT, …] one of these devices
    {"kind": "number"} {"kind": "integer"}         integers are numbers; booleans are neither
    {"kind": "text"} {"kind": "boolean"} {"kind": "nothing"}      nothing: null
    {"kind": "choice", "values": ["a", "b"]}       one of these
    {"kind": "list", "of": TYPE}                   any number of it, in order
    {"kind": "mapping"}                            names to anything
    {"kind": "any_of", "of": [TYPE, …]}            at least one of them fits
    {"kind": "group", "of": [TYPE, …]}             of `*args`: the types follow each other, again and again; then those
                                                   of "then": [TYPE, …], each of which may be left out
    {"kind": "callable"}                           a function: cannot be given from outside
    {"kind": "any"}                                whatever crosses; a text that names a device stands for it, unless
                                                   "devices" is false

Any type may also have "name" (in a group), "units" ("mm"), "text" (a sentence), and a number "min", "max" (allowed
themselves), "above", "below" (not allowed themselves), "step" (of a spin box; not checked).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

__all__ = ["Type", "mismatch", "type_at", "write"]

Type = Mapping[str, Any]
Protocols = Callable[[str], Collection[str] | None]
"""Gives what a device is by its name: its protocols, and `label motors` for each label; None: there is none."""


def type_at(accepts: Type | None, index: int, count: int) -> Type | None:
    """Give the type of argument `index` of `count` that a `*args` takes; None: anything."""
    if accepts is None or accepts["kind"] != "group":
        return accepts
    repeated, then = accepts["of"], accepts.get("then", [])
    trailing = count % len(repeated)
    if trailing > len(then):
        trailing = 0
    if index >= count - trailing:
        return then[index - (count - trailing)]
    return repeated[index % len(repeated)]


def write(accepts: Type | None) -> str:
    """Say in words what is accepted."""
    if accepts is None:
        return "anything"
    match accepts["kind"]:
        case "device":
            protocols = accepts.get("protocols", [])
            if accepts.get("names"):
                return f"a device among {', '.join(accepts['names'])}"
            labels = f" labelled {' or '.join(accepts['labels'])}" if accepts.get("labels") else ""
            return "a device" + labels + (f" that is {' and '.join(protocols)}" if protocols else "")
        case "number" | "integer":
            return f"{'a number' if accepts['kind'] == 'number' else 'a whole number'}{_range(accepts)}"
        case "text" | "boolean" | "callable" | "mapping":
            words = {"text": "a text", "boolean": "true or false", "callable": "a function", "mapping": "a mapping"}
            return words[accepts["kind"]]
        case "nothing":
            return "nothing"
        case "choice":
            return "one of " + ", ".join(map(repr, accepts["values"]))
        case "list":
            return f"a list ({write(accepts['of'])} each)"
        case "any_of":
            return " or ".join(dict.fromkeys(map(write, accepts["of"])))
        case "group":
            return ", ".join(each.get("name", write(each)) for each in accepts["of"]) + ", again and again"
        case _:
            return "anything"


def mismatch(value: Any, accepts: Type | None, protocols: Protocols) -> str | None:
    """Say in one clause why a value does not fit (`'samx' has no Readable`), None if it does."""
    if accepts is None:
        return None
    return _CHECKS.get(accepts["kind"], _fits)(value, accepts, protocols)


# ── the kinds ─────────────────────────────────────────────────────────────────────────────────────


def _fits(value: Any, accepts: Type, protocols: Protocols) -> str | None:
    return None


def _device(value: Any, accepts: Type, protocols: Protocols) -> str | None:
    if not isinstance(value, str):
        return f"{value!r} is no device name"
    has = protocols(value)
    if has is None:
        return f"there is no device {value!r}"
    missing = [each for each in accepts.get("protocols", []) if each not in has]
    if missing:
        return f"device {value!r} is not {' and '.join(missing)}"
    labels, names = accepts.get("labels", []), accepts.get("names", [])
    if labels and not any(f"label {each}" in has for each in labels):
        return f"device {value!r} is not labelled {' or '.join(labels)}"
    return f"device {value!r} is none of {', '.join(names)}" if names and value not in names else None


def _number(value: Any, accepts: Type, protocols: Protocols) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{value!r} is no number"
    if accepts["kind"] == "integer" and not float(value).is_integer():
        return f"{value!r} is no whole number"
    outside = (
        ("min" in accepts and not value >= accepts["min"])
        or ("max" in accepts and not value <= accepts["max"])
        or ("above" in accepts and not value > accepts["above"])
        or ("below" in accepts and not value < accepts["below"])
    )
    return f"{value!r} is not {write(accepts)}" if outside else None


def _range(accepts: Type) -> str:
    parts = (("min", "of at least"), ("above", "above"), ("max", "up to"), ("below", "below"))
    words = [f"{word} {accepts[key]:g}" for key, word in parts if key in accepts]
    unit = f" {accepts['units']}" if "units" in accepts else ""
    return (" " + " and ".join(words) if words else "") + (unit if words else "")


def _plain(kind: type, words: str) -> Callable[[Any, Type, Protocols], str | None]:
    def check(value: Any, accepts: Type, protocols: Protocols) -> str | None:
        return None if isinstance(value, kind) else f"{value!r} is not {words}"

    return check


def _choice(value: Any, accepts: Type, protocols: Protocols) -> str | None:
    return None if value in accepts["values"] else f"{value!r} is not {write(accepts)}"


def _list(value: Any, accepts: Type, protocols: Protocols) -> str | None:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence):
        return f"{value!r} is no list"
    for number, each in enumerate(value, 1):
        why = mismatch(each, accepts["of"], protocols)
        if why is not None:
            return f"{why} (number {number} of the list)"
    return None


def _any_of(value: Any, accepts: Type, protocols: Protocols) -> str | None:
    reasons = [mismatch(value, each, protocols) for each in accepts["of"]]
    if None in reasons:
        return None
    kinds = [each["kind"] for each in accepts["of"]]
    if "list" in kinds and isinstance(value, list | tuple) and kinds.count("list") == 1:
        return reasons[kinds.index("list")]  # it says which of its values is wrong
    # of several reasons the one about a device of that name says most
    return next((why for why in reasons if why and "device '" in why), None) or f"{value!r} is not {write(accepts)}"


def _callable(value: Any, accepts: Type, protocols: Protocols) -> str | None:
    return f"a function is needed, which cannot be given from outside (not {value!r})"


_CHECKS: dict[str, Callable[[Any, Type, Protocols], str | None]] = {
    "device": _device,
    "number": _number,
    "integer": _number,
    "text": _plain(str, "a text"),
    "boolean": _plain(bool, "true or false"),
    "nothing": _plain(type(None), "nothing"),
    "choice": _choice,
    "list": _list,
    "mapping": _plain(Mapping, "a mapping"),
    "any_of": _any_of,
    "callable": _callable,
}
