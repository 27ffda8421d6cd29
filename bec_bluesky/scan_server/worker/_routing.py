"""To which of several open runs a document belongs."""

from typing import Any

__all__ = ["Routing"]

_PARENT = {
    "descriptor": "run_start",
    "resource": "run_start",
    "stream_resource": "run_start",
    "stop": "run_start",
    "event": "descriptor",
    "event_page": "descriptor",
    "stream_datum": "stream_resource",
    "datum": "resource",
    "datum_page": "resource",
}
"""The key by which a document names what it belongs to."""


class Routing:
    """Knows the uids of open runs and of what belongs to them."""

    def __init__(self) -> None:
        self._run_of: dict[str, str] = {}
        self._newest = ""

    def open(self, run_uid: str) -> None:
        """Note an open run."""
        self._run_of[run_uid] = run_uid
        self._newest = run_uid

    def run_of(self, name: str, document: dict[str, Any]) -> str:
        """Give the uid of the run; raises LookupError for a document of no open run."""
        parent = document.get(_PARENT[name])
        if parent is None and name == "resource":  # an optional key there; the run is the one that was opened last
            parent = self._newest
        run_uid = self._run_of.get(str(parent))
        if run_uid is None:
            raise LookupError(f"a {name} document belongs to {parent}, which no open run has")
        if name in ("descriptor", "resource", "stream_resource"):
            self._run_of[document["uid"]] = run_uid
        return run_uid

    def forget(self, run_uid: str) -> None:
        """Drop a run and what belongs to it."""
        self._run_of = {key: run for key, run in self._run_of.items() if run != run_uid}
