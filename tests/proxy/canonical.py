"""Documents without what must differ between two runs: uids, times, directories, object addresses."""

import enum
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_TIMESTAMP = re.compile(r"timestamp=\d+\.\d+")
_PLACE = re.compile(r" \[[\w.]+ on device server \S+\]")
"""What the text of an error says besides when it comes from a device server."""
_STATUS = re.compile(
    r"<Status of .*>|<\w*AsyncStatus, .*>|\w*Status\([^\n]*\bdone=\w+.*?, success=\w+[^)]*\)", re.DOTALL
)
"""A failed status: bluesky takes its `repr` as the reason, and ours says more on purpose."""
_TIMES = ("time", "timestamp")


class Canonical:
    """Makes things comparable; uids become numbers in the order in which they first appear."""

    def __init__(self, files: Path) -> None:
        self._files = str(files)
        self._uids: dict[str, int] = {}

    def __call__(self, value: Any, key: str = "") -> Any:
        if key in _TIMES:
            return [f"<{key}>"] * len(value) if isinstance(value, list) else f"<{key}>"
        if key == "resource_path":
            return "<path>"
        if isinstance(value, float) and math.isnan(value):
            return "<nan>"
        if key == "motors":
            return sorted(value)  # of some plans the order of a set
        if key == "timestamps":
            return dict.fromkeys(value, "<time>")
        if isinstance(value, dict):
            return {str(self(name)): self(item, str(name)) for name, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self(item) for item in value]
        if isinstance(value, np.ndarray):
            return self(value.tolist())
        if isinstance(value, np.generic):
            return self(value.item())
        if isinstance(value, enum.Enum):
            return value.value
        return self._text(value) if isinstance(value, str) else value

    def _text(self, text: str) -> str:
        text = _STATUS.sub("<failed status>", _PLACE.sub("", text))
        text = _TIMESTAMP.sub("timestamp=<time>", text)
        text = _ADDRESS.sub(" at <address>", text.replace(self._files, "<files>"))
        return _UID.sub(lambda found: f"<uid {self._uids.setdefault(found.group(), len(self._uids))}>", text)
