"""What every service says of itself, and how an error crosses."""

from typing import Any

import msgspec

__all__ = ["Alarm", "ConsoleText", "Failure", "Heartbeat", "Message"]


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of what crosses Redis. New fields have defaults; types never change."""


class Failure(Message, frozen=True, kw_only=True, tag="failure"):
    """An exception on its way to another process (`bec_bluesky.messages.failures` raises it again)."""

    kind: str
    """Class name with its module, e.g. `ophyd.utils.errors.LimitError`."""
    text: str
    device: str | None = None
    where: str | None = None
    """Service in which it happened."""
    traceback: str = ""
    code: str | None = None
    """Stable code of a refusal."""
    in_call: bool = False
    """Whether a device's method raised it at once, and not the status that it gave."""
    errno: int | None = None
    """Of an OSError: the operating system's number."""


class Heartbeat(Message, frozen=True, kw_only=True, tag="heartbeat"):
    """A service is alive; the key that holds it lives 3 s."""

    service: str
    incarnation: str
    host: str
    pid: int
    version: str
    started: float
    """Seconds since the epoch, as every time on the wire."""
    time: float
    state: str
    """starting, running, degraded or stopping."""
    note: str = ""
    facts: dict[str, Any] = {}


class Alarm(Message, frozen=True, kw_only=True, tag="alarm"):
    """Something that a person should know; nothing stops because of it."""

    time: float
    service: str
    text: str
    level: str = "warning"
    """info, warning or error."""
    run: str | None = None
    device: str | None = None


class ConsoleText(Message, frozen=True, kw_only=True, tag="console_text"):
    """What a plan, a script or a service says to people, as it was printed."""

    time: float
    """When it was read, at most a fifth of a second after it was printed."""
    source: str
    """scan_server, worker, or the id of a task."""
    text: str
    """Whole lines where possible."""
    item_id: str = ""
    """The item of the queue whose plan printed it, if one ran."""
