"""How answers are written on the control socket; and long lists that are kept as they are written."""

import json
import math
from typing import Any

import msgpack
import msgspec

__all__ = ["EncodedList", "json_text", "packed"]


class EncodedList:
    """A list as JSON, without its brackets; no dataclass, which msgspec would write by itself."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    @property
    def raw(self) -> Any:
        """The list for msgspec's encoder, in which what is no number is null."""
        if b"NaN" in self.text or b"Infinity" in self.text:
            return _without_nan(self.plain())
        return msgspec.Raw(b"[%b]" % self.text)

    def plain(self) -> list[Any]:
        """Give the list itself."""
        return json.loads(b"[%b]" % self.text)


def json_text(message: dict[str, Any]) -> bytes:
    """Write as JSON; what has no form there: arrays as lists, the rest as text."""
    lists = {name: value for name, value in message.items() if isinstance(value, EncodedList)}
    rest = {name: value for name, value in message.items() if name not in lists}
    parts = [json.dumps(rest, default=_plain).encode()[1:-1]] if rest else []
    parts += [b"%b: [%b]" % (json.dumps(name).encode(), value.text) for name, value in lists.items()]
    return b"{%b}" % b", ".join(parts)


def packed(message: dict[str, Any]) -> bytes:
    """Write as msgpack."""
    return msgpack.packb(message, default=lambda value: value.plain() if isinstance(value, EncodedList) else str(value))  # pyright: ignore[reportReturnType]  # bytes: autoreset is on


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _without_nan(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    return value
