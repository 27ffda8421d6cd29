"""The system on one page: every name on Redis, what it carries, in which shape, and who writes it.

Shapes
    stream    durable entries with ids; a restarted reader goes on from its last id
    latest    one value, replaced; may have a lifetime
    table     a hash: one latest value a field (late joiners get the whole state)
    list      ids in order
    log       append-only stream for people, trimmed by length
    ask       a request stream, whose answers go to the stream of the client that asked
    fan-out   pub/sub: whoever listens gets it, nothing is kept (device instructions are never replayed)

Every key starts with the hash tag `{beamline}:`. `<words>` in a name are filled in by `key()` and must match
`[A-Za-z0-9_.:-]{1,128}`, so that no user text can build a key.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

from bec_bluesky.messages import around_queue, common, devices, products, queue

__all__ = ["ALL", "Channel", "Shape", "document_stream"]

Shape = Literal["stream", "latest", "table", "log", "list", "ask", "fan-out"]
_PLACEHOLDER = re.compile(r"<(\w+)>")
_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


@dataclass(frozen=True)
class Channel:
    """A name on Redis with its message type, its shape and its one writer."""

    name: str
    message: Any
    """Type of the message; None where the value is raw (documents)."""
    shape: Shape
    writer: str
    lifetime: float | None = None
    """Seconds after which a `latest` value vanishes unless it is renewed."""
    length: int | None = None
    """Entries kept, about, of a `log`."""

    def key(self, beamline: str, **words: str) -> str:
        """Give the Redis key; raises ValueError if a word is missing, superfluous or not a plain id."""
        wanted = set(_PLACEHOLDER.findall(self.name))
        if wanted != set(words):
            raise ValueError(f"channel {self.name!r} takes {sorted(wanted)}, not {sorted(words)}")
        for word, value in words.items():
            if not _WORD.fullmatch(value):
                raise ValueError(f"{word}={value!r} cannot be part of a key: 1 to 128 of A-Z a-z 0-9 _ . : -")
        return f"{{{beamline}}}:" + _PLACEHOLDER.sub(lambda found: words[found.group(1)], self.name)


# ── services ──────────────────────────────────────────────────────────────────────────────────────
BUS_ID = Channel("bus:id", None, "latest", writer="whoever comes first")
SERVICES = Channel("service:<service>", common.Heartbeat, "latest", writer="that service", lifetime=3.0)
ALARMS = Channel("alarms", common.Alarm, "log", writer="any service", length=10_000)

# ── scan server ───────────────────────────────────────────────────────────────────────────────────
LEASE = Channel("scan:lease", queue.Lease, "latest", writer="scan server", lifetime=5.0)
EPOCH = Channel("scan:epoch", None, "latest", writer="scan server")
SCAN_ID = Channel("scan:scan_id", None, "latest", writer="scan server's worker")
REQUESTS_READ = Channel("scan:requests:read", None, "latest", writer="scan server")
REQUESTS = Channel("scan:requests", queue.Request, "ask", writer="clients, API")
REPLIES = Channel("reply:<client>", queue.Reply, "log", writer="scan server", length=1_000, lifetime=3600.0)
SCAN_STATUS = Channel("scan:status", queue.ScanServerStatus, "latest", writer="scan server")
SCAN_STATUS_CHANGED = Channel("scan:status:changed", queue.ScanServerStatus, "fan-out", writer="scan server")
PLANS = Channel("scan:plans", queue.PlanInfo, "table", writer="scan server")
ITEMS = Channel("queue:items", queue.QueueItem, "table", writer="scan server")
ORDER = Channel("queue:order", None, "list", writer="scan server")
QUEUE = Channel("queue:state", None, "table", writer="scan server")
NAMED_ORDER = Channel("queue:<queue>:order", None, "list", writer="scan server")
NAMED_QUEUE = Channel("queue:<queue>:state", None, "table", writer="scan server")
NAMED_STATUS = Channel("queue:<queue>:status", queue.ScanServerStatus, "latest", writer="scan server")
NAMED_STATUS_CHANGED = Channel("queue:<queue>:status:changed", queue.ScanServerStatus, "fan-out", writer="scan server")
AROUND = Channel("scan:around", None, "table", writer="scan server")
CONSOLE = Channel("console", common.ConsoleText, "log", writer="scan server", length=2_000)
COMMANDS = Channel("scan:commands", around_queue.Command, "log", writer="scan server", length=1_000)
TASKS = Channel("scan:tasks", around_queue.Task, "table", writer="scan server")
SCRIPTS = Channel("scan:scripts", around_queue.KeptScripts, "latest", writer="scan server")
ITEMS_DONE = Channel("queue:done", queue.ItemDone, "stream", writer="scan server")
QUEUESERVER = Channel("queueserver:state", None, "table", writer="queueserver")

# ── runs ──────────────────────────────────────────────────────────────────────────────────────────
RUNS = Channel("runs", products.RunOpened | products.RunClosed, "stream", writer="scan server")
DOCUMENTS = Channel("run:<run>:documents", None, "stream", writer="scan server's worker")
POINTS = Channel("run:<run>:points", products.Point, "stream", writer="bundler")
LATEST_POINT = Channel("points:latest", products.Point, "latest", writer="bundler")
RESULTS = Channel("run:<run>:results", products.AnalysisResult, "stream", writer="analysis")
FILES = Channel("files", products.FileGrowing | products.FileReady, "stream", writer="writers")
STORED = Channel("run:<run>:stored", None, "table", writer="document services")
CURSORS = Channel("documents:cursors", None, "table", writer="document services")
GIVEN_UP = Channel("documents:given-up:<consumer>", None, "table", writer="document services, `data unwritten`")

# ── devices ───────────────────────────────────────────────────────────────────────────────────────
INSTRUCTIONS = Channel("devices:<server>:instructions", devices.Instruction, "fan-out", writer="proxies")
ANSWERS = Channel("devices:answers:<client>", devices.Answers, "fan-out", writer="device server")
BEATS = Channel("devices:<server>:beat", devices.Beat, "fan-out", writer="device server")
DEVICES = Channel("devices:<server>:info", devices.DeviceInfo, "table", writer="device server")
DEVICE_HOLDERS = Channel("devices:<server>:holders", devices.DeviceHolder, "table", writer="device server")
DEVICE_CHANGES = Channel("devices:changes", devices.DeviceInfo, "log", writer="device server", length=5_000)
READBACKS = Channel("devices:<server>:readback", devices.Readback, "table", writer="device server")
READBACK_CHANGES = Channel("devices:readbacks", devices.Readback, "log", writer="device server", length=5_000)

ALL: dict[str, Channel] = {name: value for name, value in globals().items() if isinstance(value, Channel)}


def document_stream(beamline: str, run: str) -> str:
    """Key of a run's documents: ids `<n>-0`, n = 1…N over all documents; fields `n` (name) and `d` (msgpack)."""
    return DOCUMENTS.key(beamline, run=run)
