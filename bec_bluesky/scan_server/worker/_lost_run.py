"""Closing the run of a worker that died."""

import time
import uuid
from typing import Any

from bec_bluesky.bus import Bus
from bec_bluesky.channels import document_stream
from bec_bluesky.errors import FencedError, StreamGapError
from bec_bluesky.log import logger
from bec_bluesky.messages import encode, pack, unpack
from bec_bluesky.messages.products import RunClosed
from bec_bluesky.scan_server.worker import _append

__all__ = ["close_lost_run"]

_log = logger(__name__)
_PAGE = 500
_TRIES = 20
"""What the dead worker had sent may still arrive; each try reads again."""


class _Seen:
    """What the documents of a run say so far, page by page."""

    def __init__(self) -> None:
        self.last = 0
        self.is_sealed = False
        self._streams: dict[str, str] = {}
        self._events: dict[str, int] = {}

    def take(self, number: int, name: str, data: bytes) -> None:
        self.last = number
        if name == "stop":
            self.is_sealed = True
        elif name in ("descriptor", "event", "event_page", "stream_datum"):
            self._count(name, unpack(data))

    def _count(self, name: str, document: Any) -> None:
        """Keep the highest sequence number of each stream: a point that was taken again has the same one."""
        if name == "descriptor":
            self._streams[document["uid"]] = document.get("name", "primary")
            self._events.setdefault(self._streams[document["uid"]], 0)
            return
        stream = self._streams.get(document["descriptor"])
        if stream is None:
            return
        if name == "event":
            newest = document["seq_num"]
        elif name == "event_page":
            newest = max(document["seq_num"], default=0)
        else:
            newest = document["seq_nums"]["stop"] - 1
        self._events[stream] = max(self._events[stream], newest)

    @property
    def num_events(self) -> dict[str, int]:
        return dict(self._events)


async def close_lost_run(bus: Bus, run_uid: str, reason: str, token: int) -> bool:
    """Write the stop document that a dead worker owes, and announce the end of the run.

    `exit_status` becomes "fail", `reason` one sentence, `num_events` what is in the stream. Gives False if there was
    nothing to close: the run has its stop document, or none of its documents reached Redis. May be repeated. Raises
    FencedError if a scan server with a newer token exists, BusError if Redis is away.
    """
    seen = _Seen()
    for _ in range(_TRIES):
        await _read_on(bus, run_uid, seen)
        if seen.is_sealed or seen.last == 0:
            return False
        now = time.time()
        stop = {
            "uid": str(uuid.uuid4()),
            "time": now,
            "run_start": run_uid,
            "exit_status": "fail",
            "reason": reason,
            "num_events": seen.num_events,
        }
        closed = RunClosed(run_uid=run_uid, time=now, exit_status="fail", documents=seen.last + 1)
        arguments = _append.arguments(token, seen.last, b"", encode(closed), [("stop", pack(stop))])
        outcome, number = await bus.evaluate(_append.SCRIPT, _append.keys(bus.beamline, run_uid), arguments)
        if outcome == _append.FENCED:
            raise FencedError(
                f"run {run_uid} is not closed here: another scan server took over (its token is {number}, "
                f"this one's {token})"
            )
        if outcome == _append.APPENDED:
            _log.info("closed a run that its worker left open: %s", reason, extra={"run": run_uid})
            return True
    raise StreamGapError(f"run {run_uid} cannot be closed: somebody still writes its documents", seen.last)


async def _read_on(bus: Bus, run_uid: str, seen: _Seen) -> None:
    """Read what came since."""
    key = document_stream(bus.beamline, run_uid)
    while True:
        page = (await bus.read_keys({key: f"{seen.last}-0"}, count=_PAGE)).get(key, [])
        for stream_id, fields in page:
            seen.take(int(stream_id.partition("-")[0]), fields[b"n"].decode(), fields[b"d"])
        if len(page) < _PAGE:
            return
