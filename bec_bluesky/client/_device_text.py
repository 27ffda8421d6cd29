"""Devices as lines of text: for a prompt, a table and `?`."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from bec_bluesky.messages.devices import DeviceInfo, Readback
from bec_bluesky.proxy import limits_of

__all__ = ["doc_of", "line_of", "shown_entry", "table_of", "value_text"]

_COLUMNS = ("device", "value", "units", "limits", "state", "class", "labels", "held by")
_LONGEST_VALUE = 24
_LONGEST_STATE = 60


def line_of(info: DeviceInfo, value: Any, units: str, state: str, reason: str, holder: str | None) -> str:
    """Give a device in a line: where it is, its limits, what it is, who holds it."""
    facts = [f"{value_text(value, info)} {units}".strip()] if value is not None else []
    limits = limits_text(info)
    facts += [f"limits {limits}"] if limits else []
    facts += [short_class(info), f"{state}: {reason}" if reason else state]
    facts += ["read-only"] if info.read_only else []
    facts += [f"held by {holder}"] if holder else []
    return f"<{info.path}: {', '.join(fact for fact in facts if fact)}>"


def doc_of(info: DeviceInfo, units: str, names: Collection[str]) -> str:
    """Give what `?` and `help()` say of a device."""
    unit = f" {units}" if units else ""
    limits = limits_text(info)
    facts = [
        f"{info.path}: {info.device_class or 'a device'}, {info.state}{f' ({info.reason})' if info.reason else ''}.",
        "",
        f"limits   {limits}{unit}" if limits else "",
        f"units    {units}" if units else "",
        f"labels   {', '.join(info.labels)}" if info.labels else "",
        f"readout  {info.readout}" if info.parent is None else "",
        f"parts    {', '.join(info.children)}" if info.children else "",
        f"server   {info.server}",
        "",
        _usage(info, unit, names),
    ]
    return "\n".join(fact for number, fact in enumerate(facts) if fact or number in (1, 8))


def _usage(info: DeviceInfo, unit: str, names: Collection[str]) -> str:
    lines = {
        "read": ("read()", "{key: {value, timestamp}}"),
        "get": ("get()", f"its value{unit and f' in{unit}'}"),
        "move": ("move(value)", f"moves{unit and f' to value{unit}'} and waits; Ctrl-C stops it"),
        "mvr": ("mvr(by)", f"moves by so much{unit and f' ({unit.strip()})'} and waits"),
        "set": ("set(value)", "starts to move; give a status: .wait(timeout), .done, .progress"),
        "put": ("put(value)", "writes the signal"),
        "trigger": ("trigger()", "starts a measurement; gives a status"),
        "stop": ("stop()", "stops it, whoever moves it"),
        "subscribe": ("subscribe(callback)", "calls callback(reading) now and at each change, until .close()"),
    }
    return "\n".join(f"{call:20} {meaning}" for name, (call, meaning) in lines.items() if name in names)


def table_of(rows: Iterable[Sequence[str]]) -> str:
    """Align rows of texts below the heads of the columns; columns that are empty are left out."""
    table = [_COLUMNS, *rows]
    kept = [column for column in range(len(_COLUMNS)) if any(row[column] for row in table[1:])]
    widths = {column: max(len(row[column]) for row in table) for column in kept}
    return "\n".join("  ".join(row[column].ljust(widths[column]) for column in kept).rstrip() for row in table)


def row_of(info: DeviceInfo, readback: Readback | None, state: str, reason: str, holder: str | None) -> list[str]:
    """Give a device as a row of the table."""
    _, value, units = shown_entry(info, readback)
    return [
        info.path,
        "" if value is None else value_text(value, info),
        units,
        limits_text(info),
        _cut(f"{state}: {reason}" if reason else state, _LONGEST_STATE),
        short_class(info),
        ", ".join(info.labels),
        holder or "",
    ]


def shown_entry(info: DeviceInfo, readback: Readback | None) -> tuple[str, Any, str]:
    """Choose what stands for a device in its last reading: (key, value, units); the value is None if there is none."""
    units = str(info.properties.get("egu") or "")
    if readback is None or not readback.reading:
        return info.name, None, units
    hinted = (info.hints or {}).get("fields") or []
    key = next((key for key in (info.name, *hinted) if key in readback.reading), next(iter(readback.reading)))
    return key, readback.reading[key].get("value"), readback.units.get(key, units)


def value_text(value: Any, info: DeviceInfo) -> str:
    """Write a value with the precision of its device; what is large is only named."""
    shape = getattr(value, "shape", None)
    if shape:
        return f"{value.dtype} {'×'.join(map(str, shape))}"
    if isinstance(value, float):
        precision = info.properties.get("precision")
        return f"{value:.{precision}f}" if isinstance(precision, int) and 0 < precision < 16 else f"{value:.6g}"
    return _cut(str(value), _LONGEST_VALUE)


def limits_text(info: DeviceInfo) -> str:
    """Write the limits, empty if there are none."""
    limits = limits_of(info)
    return "" if limits is None else f"{limits[0]:g} to {limits[1]:g}"


def short_class(info: DeviceInfo) -> str:
    """Give the class without its module."""
    return info.device_class.replace(":", ".").rpartition(".")[2]


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
