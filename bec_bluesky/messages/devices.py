"""Between proxies and the device server: instructions and answers (pub/sub, never replayed), and what devices are."""

from typing import Any, Literal

import msgspec

from bec_bluesky.messages.common import Message

__all__ = [
    "FREE_VERBS",
    "Answer",
    "Answers",
    "Beat",
    "Completion",
    "DeviceEdit",
    "DeviceHolder",
    "DeviceInfo",
    "Instruction",
    "Op",
    "Readback",
]

FREE_VERBS = frozenset(
    {
        *("read", "describe", "read_configuration", "describe_configuration", "describe_collect"),
        *("locate", "get", "get_index", "check_value", "view", "subscribe", "clear_sub", "unsubscribe", "stop"),
    }
)
"""Verbs that are always allowed: they look, or stop. Any other changes something, if only what `collect` has left."""


class Op(msgspec.Struct, frozen=True, array_like=True):
    """One verb on one device."""

    id: int
    """Unique for its client; 0 asks for no answer."""
    device: str
    """Dotted for children: `samx.velocity`; empty for the server itself."""
    verb: str
    """A method of bluesky's protocols, `get`, `put` or `view`, or one of the server's (`list`, `stop_all`, `ping`,
    `client_lost` with the client's name; `then`, `read_all`, `give_up`, `claim`, `renew`, `release`: see Instruction).
    `subscribe` is answered by a `result` when it began, and by `value`s until `clear_sub` with its id. `view` (seconds)
    gives the Readback of now, and for so long has what changes published in READBACK_CHANGES, without a monitor."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}


class Instruction(msgspec.Struct, frozen=True, array_like=True):
    """A batch of verbs, started in order, in one round trip.

    What comes after a verb `then` of the server starts when everything before it has ended well, else never.
    `read_all` reads, in parallel, the devices whose paths are its arguments, and gives {path: reading, or Failure}.
    `give_up` lets nothing more start of the instruction that has the operation whose id is its argument.

    For the instruction's token, `claim([devices], text, seconds)` holds devices with their parts, and what they move,
    all or none, until `release` or until so many seconds have passed without `renew(text, seconds)`; `text` says who
    that is. Both take `item_id=`, `user=` and `scan_id=` too. `release()` lets go of everything,
    `release([devices])` of these. Each gives the devices that are held then.
    """

    client: str
    epoch: str
    """Incarnation of the server that is meant; empty: whichever is there. An older one is refused."""
    ops: list[Op]
    after: list[str] = []
    """Devices to read, in parallel, once every status of this batch is done (answer `readings`)."""
    deadline: float = 0.0
    """Seconds since the epoch after which the batch must not be started; 0: none."""
    token: str = ""
    """Names a holder. A verb that changes a device which another one holds is refused (DeviceHeld); a free device is
    held from then on. Without a token free devices can be used, and are not held."""


class Completion(msgspec.Struct, frozen=True, array_like=True):
    """A status is done."""

    describe_generation: int = 0
    """Grows when what `describe` gives may have changed (stage, prepare, configure)."""
    hints: dict[str, Any] | None = None
    """New hints, if they changed."""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What became of one op."""

    id: int
    code: Literal["result", "done", "failed", "progress", "value", "readings"]
    payload: Any = None
    """result: what the verb returned; done: Completion; failed: Failure; progress: keywords of `Status.watch`;
    value: a reading dict of a subscription; readings: {device: reading dict, or Failure}."""


class Answers(msgspec.Struct, frozen=True, array_like=True):
    """Answers to one client, in order."""

    epoch: str
    items: list[Answer]


class Beat(msgspec.Struct, frozen=True, array_like=True):
    """The device server's heartbeat for proxies (10 a second, pub/sub)."""

    server: str
    epoch: str
    time: float


class DeviceEdit(msgspec.Struct, frozen=True, kw_only=True):
    """What an edit of the device file, or a reload, did to the devices of one server; names."""

    added: list[str] = []
    removed: list[str] = []
    rebuilt: list[str] = []
    """New objects, with a new generation."""
    changed: list[str] = []
    """Described differently, still the same objects."""
    failed: dict[str, str] = {}
    """Of those added or rebuilt the ones that could not be built or connected, and why."""


class DeviceInfo(Message, frozen=True, kw_only=True, tag="device_info"):
    """A device or a child of one, as proxies are made from it."""

    name: str
    """bluesky's `name`, as it stands in documents."""
    path: str
    """Dotted path by which instructions address it; the same as `name` for a top-level device with its own name."""
    server: str
    state: Literal["connected", "failed", "disconnected", "disabled", "removed"]
    """removed: it is no longer there (only in the log of changes)."""
    reason: str = ""
    layer: Literal["ophyd", "ophyd-async", "other"] = "other"
    device_class: str = ""
    protocols: list[str] = []
    """Names of `bluesky.protocols` that it supports, by their methods."""
    methods: list[str] = []
    """Public methods that may be called remotely, the protocols' included."""
    properties: dict[str, Any] = {}
    """Plain attributes that plans use locally: position, limits, egu, precision, hints, component_names …"""
    parent: str | None = None
    """Path of the parent."""
    children: list[str] = []
    """Attribute names of its children; the path of a child is `<path>.<attribute>`."""
    hints: dict[str, Any] | None = None
    labels: list[str] = []
    readout: str = "monitored"
    limits: tuple[float, float] | None = None
    enabled: bool = True
    read_only: bool = False
    generation: int = 0
    """Grows when the device is built anew."""
    metadata: dict[str, Any] = {}
    """What the device file says besides; of top-level devices."""
    refers_to: list[str] = []
    """Devices to which the arguments of a top-level device refer; one that moves is held together with them."""
    representation: str = ""
    """Its `repr`, which bluesky puts into `plan_args`."""


class DeviceHolder(Message, frozen=True, kw_only=True, tag="device_holder"):
    """Who holds a device (table by the names of top-level devices; a device nobody holds is not in it)."""

    device: str
    text: str
    """For people, complete: `scan 12, grid_scan (item 3f2a9c01, anna)`."""
    client: str
    since: float
    item_id: str = ""
    """Queue item for whose plan it is held; empty: a person, or another program."""
    scan_id: int | None = None
    """Its newest run."""
    user: str = ""


class Readback(Message, frozen=True, kw_only=True, tag="readback"):
    """The latest reading of a device."""

    device: str
    time: float
    reading: dict[str, Any]
    """{key: {value, timestamp, …}}"""
    connected: bool = True
    units: dict[str, str] = {}
