"""One Tiled server as the writer sees it: bounded waiting, and whether a run is there."""

import json
import time
from typing import Any, Literal, Self
from urllib.parse import quote

import httpx

from bec_bluesky.documents import api_uri, is_lost, lost_stop

__all__ = ["ServerAbsent", "TiledServer", "is_key"]

_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
"""In seconds; a server on a busy machine takes long, and one that hangs holds up nothing but the catalogue."""
_PROBE = httpx.Timeout(10.0)
_OPERATION = 30.0
"""Seconds within which the requests of one operation must have begun."""
_NOT_NOW = (502, 503, 504)


class ServerAbsent(ConnectionError):
    """The server does not answer, or did not within the time that was given to it."""


class TiledServer:
    """A connection. Tiled's client repeats a failed request for up to 45 s; `allow_operation()` sets an end to it."""

    def __init__(self, uri: str, api_key: str) -> None:
        self.uri = api_uri(uri)
        self._key = api_key
        self._http = httpx.Client(
            headers={"Authorization": f"Apikey {api_key}"} if api_key else {}, timeout=_TIMEOUT, trust_env=False
        )
        self._deadline = 0.0
        self._is_unanswered = False
        """Whether the last request of Tiled's client got no response."""
        self.client: Any = None
        """Tiled's client of the catalogue, with data sources; after `connect()`."""

    def connect(self) -> Self:
        """Open the catalogue; raises ServerAbsent if it does not answer."""
        self._probe()
        from tiled.client import from_uri

        self.client = from_uri(
            self.uri, api_key=self._key or None, timeout=_TIMEOUT, trust_env=False, show_progress=False
        ).include_data_sources()
        hooks = self.client.context.http_client.event_hooks
        hooks["request"].append(self._before_request)
        hooks["response"].append(self._after_response)
        return self

    def allow_operation(self) -> None:
        """Let requests begin for half a minute from now; one that begins later raises ServerAbsent."""
        self._deadline = time.monotonic() + _OPERATION

    def has_gone(self, error: Exception) -> bool:
        """Tell whether a request failed since nobody answers; not if it was that request that took too long."""
        if not isinstance(error, ServerAbsent | httpx.TransportError):
            return False
        try:
            self._probe()
        except ServerAbsent:
            return True
        return False

    def _before_request(self, request: httpx.Request) -> None:
        if time.monotonic() > self._deadline:
            raise ServerAbsent(f"Tiled at {self.uri} does not do {request.method} {request.url.path} in time")
        if self._is_unanswered:
            self._probe()  # a repetition: no point if nobody is there
        self._is_unanswered = True

    def _after_response(self, response: httpx.Response) -> None:
        self._is_unanswered = False

    def _probe(self) -> None:
        try:
            answer = self._http.get(f"{self.uri}/", timeout=_PROBE)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise ServerAbsent(f"Tiled does not answer at {self.uri}: {error}") from error

    def state(self, run_uid: str) -> Literal["absent", "partial", "complete"]:
        """Tell what the catalogue has of a run."""
        metadata = self._metadata(run_uid)
        if metadata is None:
            return "absent"
        stop = metadata.get("stop")
        return "complete" if stop and not is_lost(stop) else "partial"

    def scan_id(self, run_uid: str) -> int:
        """Give a run's scan number, as the catalogue has it; 0 if there is none."""
        return int(((self._metadata(run_uid) or {}).get("start") or {}).get("scan_id") or 0)

    def unfinished(self, owner: str) -> set[str]:
        """Give the runs that this owner has begun and that have no stop document: a thousand at most."""
        conditions = {
            "filter[eq][condition][key]": "written_by",
            "filter[eq][condition][value]": json.dumps(owner),
            "filter[keypresent][condition][key]": "stop.uid",
            "filter[keypresent][condition][exists]": "false",
            "fields": "",
        }
        found: set[str] = set()
        for offset in range(0, 1_000, 100):
            answer = self._ask("GET", "search/", conditions | {"page[offset]": offset, "page[limit]": 100})
            answer.raise_for_status()
            page = {str(item["id"]) for item in answer.json()["data"]}
            found |= page
            if len(page) < 100:
                break
        return found

    def close_lost(self, run_uid: str) -> bool:
        """Give a run the stop document of one whose own is lost; False if the run has one, or is not there."""
        metadata = self._metadata(run_uid)
        if metadata is None or metadata.get("stop"):
            return False
        run = self.client[run_uid]
        newest = [float(run[stream]["time"].read()[-1]) for stream in run if "time" in run[stream]]
        stop = lost_stop(run_uid, max([float(metadata["start"]["time"]), *newest]))
        run.update_metadata(metadata={"stop": stop}, drop_revision=True)
        return True

    def _metadata(self, run_uid: str) -> dict[str, Any] | None:
        answer = self._request("GET", run_uid, {"fields": "metadata"})
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        answer.raise_for_status()
        return answer.json()["data"]["attributes"]["metadata"]

    def delete(self, run_uid: str, stream: str = "") -> None:
        """Delete a run, or one of its streams, with tables and arrays; files that detectors wrote stay."""
        answer = self._request("DELETE", run_uid, {"recursive": True, "external_only": False}, stream)
        if answer.status_code != httpx.codes.NOT_FOUND:
            answer.raise_for_status()

    def _request(self, method: str, run_uid: str, parameters: dict[str, Any], stream: str = "") -> httpx.Response:
        if not is_key(run_uid):  # never another run's address, least of all to delete
            raise ValueError(f"{run_uid!r} is no key of the catalogue")
        path = "/".join(quote(each, safe="") for each in ("metadata", run_uid, stream) if each)
        return self._ask(method, path, parameters)

    def _ask(self, method: str, path: str, parameters: dict[str, Any]) -> httpx.Response:
        try:
            answer = self._http.request(method, f"{self.uri}/{path}", params=parameters)
        except httpx.ReadTimeout as error:
            raise ServerAbsent(f"Tiled at {self.uri} does not do {method} {path} in time") from error
        except httpx.TransportError as error:
            raise ServerAbsent(f"Tiled does not answer at {self.uri}: {error}") from error
        if answer.status_code in _NOT_NOW:
            raise ServerAbsent(f"Tiled does not answer yet at {self.uri} ({answer.status_code})")
        return answer

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        if self.client is not None:
            self.client.context.http_client.close()


def is_key(run_uid: str) -> bool:
    """Tell whether a uid addresses one run of the catalogue, and nothing below or beside it."""
    return run_uid not in ("", ".", "..") and "/" not in run_uid
