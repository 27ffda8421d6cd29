"""Iterating a plan without running it: are all positions within limits, and how many points will there be?"""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

from bluesky import Msg, RunEngine
from bluesky.utils import ensure_generator

from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.common import Failure
from bec_bluesky.messages.devices import DeviceInfo
from bec_bluesky.messages.failures import tell
from bec_bluesky.messages.queue import QueueItem
from bec_bluesky.proxy import RemoteDevice
from bec_bluesky.scan_server._output import printing_nothing
from bec_bluesky.scan_server._validation import place_of
from bec_bluesky.scan_server.worker._arguments import call
from bec_bluesky.scan_server.worker._cause import cause_of
from bec_bluesky.scan_server.worker._engine import no_terminal
from bec_bluesky.scan_server.worker._plans import OfferedPlan
from bec_bluesky.scan_server.worker._progress import expected_points
from bec_bluesky.scan_server.worker._simulation import NotSimulatedError, Readings, SimulatedDevices

__all__ = ["Checked", "Readings", "check_item"]

MOST_MESSAGES = 100_000
MOST_SECONDS = 2.0


@dataclass(frozen=True)
class Checked:
    """What iterating a plan found."""

    failure: Failure | None = None
    points: int | None = None
    """None: cannot be told without running it."""
    devices: tuple[str, ...] = ()


class _OutOfLimits(Exception):
    """The plan sends a device where it may not go."""


class _GivenUp(Exception):
    """The plan is too long, or takes too much time, to be iterated here."""


class _Done:
    """A status that has ended well."""

    done = True
    success = True

    def exception(self, timeout: float | None = 0.0) -> None:
        return None

    def add_callback(self, callback: Callable[[Any], None]) -> None:
        callback(self)

    def wait(self, timeout: float | None = None) -> None:
        return None


async def check_item(
    item: QueueItem, plans: Mapping[str, OfferedPlan], devices: Mapping[str, RemoteDevice], readings: Readings
) -> Checked:
    """Iterate the item's plan in a thread; a plan that blocks there is given up after MOST_SECONDS.

    Wrong arguments, and positions outside of limits, are failures. A plan whose course depends on data can't be told
    beforehand: no failure, no number of points.
    """
    loop = asyncio.get_running_loop()
    checked: asyncio.Future[Checked] = loop.create_future()

    def settle(outcome: Checked) -> None:
        if not checked.done():
            checked.set_result(outcome)

    def work() -> None:
        with printing_nothing():
            outcome = check(item, plans, devices, readings)
        loop.call_soon_threadsafe(settle, outcome)

    # a thread of its own and not a pool's: it can't be ended, and must hold up neither other checks nor the exit
    threading.Thread(target=work, name=f"check {item.item_id}", daemon=True).start()
    try:
        async with asyncio.timeout(MOST_SECONDS + 0.5):
            return await checked
    except TimeoutError:
        return Checked()


def check(
    item: QueueItem, plans: Mapping[str, OfferedPlan], devices: Mapping[str, RemoteDevice], readings: Readings
) -> Checked:
    """Iterate in this thread."""
    simulation = _Simulation(SimulatedDevices(devices, readings))
    try:
        plan = ensure_generator(call(plans[item.plan], item, simulation.devices))
    except RefusedError as error:
        return Checked(failure=tell(error))
    except Exception as error:  # noqa: BLE001  # here a process meets a plug-in
        return Checked(failure=_bad_argument(item, error))
    try:
        simulation.iterate(plan)
    except (_GivenUp, NotSimulatedError):
        return Checked(devices=simulation.touched)
    except Exception as error:  # noqa: BLE001  # here a process meets a plug-in
        if simulation.is_guessed:  # the error may come from a value that is made up
            return Checked(devices=simulation.touched)
        if isinstance(error, RefusedError):
            return Checked(failure=tell(error), devices=simulation.touched)
        if isinstance(error, _OutOfLimits):
            place = place_of(simulation.culprit or "", plans[item.plan].info, item.args, item.kwargs)
            text = f"{item.plan}, {place}: {error}" if place else f"{item.plan}: {error}"
            failure = tell(RefusedError(text, "limits"), device=simulation.culprit)
            return Checked(failure=failure, devices=simulation.touched)
        return Checked(failure=_bad_argument(item, error, has_begun=True), devices=simulation.touched)
    finally:
        plan.close()
    return Checked(points=simulation.points, devices=simulation.touched)


def _bad_argument(item: QueueItem, error: Exception, *, has_begun: bool = False) -> Failure:
    what = "fails when it is tried out with these arguments" if has_begun else "does not accept these arguments"
    refusal = RefusedError(f"{item.plan} {what}: {cause_of(error)}", "bad_argument")
    refusal.__cause__ = error
    return tell(refusal)


class _Simulation:
    """Answers the messages of a plan as a RunEngine would whose devices obey at once."""

    def __init__(self, devices: SimulatedDevices) -> None:
        self.devices = devices
        self.culprit: str | None = None
        self._touched: dict[str, None] = {}
        self._saved = 0
        self._promised: int | None = None
        self._has_external = False
        self._stream = ""

    @property
    def touched(self) -> tuple[str, ...]:
        return tuple(self._touched)

    @property
    def points(self) -> int | None:
        """How many events the primary stream would get; for what detectors count themselves, what the plan says."""
        if self.is_guessed:
            return None
        if self._saved:
            return self._saved
        return self._promised if self._has_external else 0

    @property
    def is_guessed(self) -> bool:
        """Whether the plan's course depends on what is made up here."""
        return self.devices.is_guessed

    def iterate(self, plan: Generator[Msg, Any, Any]) -> None:
        deadline = time.monotonic() + MOST_SECONDS
        answer: Any = None
        for _ in range(MOST_MESSAGES):
            if time.monotonic() > deadline:
                break
            try:
                msg = plan.send(answer)
            except StopIteration:
                return
            if isinstance(msg.obj, RemoteDevice):
                self._touched[msg.obj.path] = None
            respond = getattr(self, f"_on_{msg.command}", None)
            answer = None if respond is None else respond(msg)
        raise _GivenUp

    # ── messages, by name; what is not here is answered with None ──

    def _on_set(self, msg: Msg) -> _Done:
        if msg.args:
            if isinstance(msg.obj, RemoteDevice):
                self._check_limits(msg.obj, msg.args[0], self._saved + 1)
            self.devices.move(_path(msg.obj), msg.args[0])
        return _Done()

    def _check_limits(self, device: RemoteDevice, value: Any, point: int) -> None:
        limits = _limits(device.info)
        if limits is None or isinstance(value, bool) or not isinstance(value, int | float):
            return
        low, high = limits
        if not low <= value <= high:
            self.culprit = device.path
            unit = device.info.properties.get("egu") or ""
            raise _OutOfLimits(
                f"{device.path} cannot go to {value:g}{f' {unit}' if unit else ''} at point {point}: "
                f"its limits are {low:g} to {high:g}"
            )

    def _status(self, msg: Msg) -> _Done:
        return _Done()

    def _on_trigger(self, msg: Msg) -> _Done:
        self.devices.trigger(_path(msg.obj))
        return _Done()

    _on_kickoff = _on_complete = _on_unstage = _status

    def _on_prepare(self, msg: Msg) -> _Done:
        points = msg.args[0] if msg.args else None
        positions = points.get("positions") if isinstance(points, dict) else None
        for name, along in positions.items() if isinstance(positions, dict) else ():  # it moves others: a burst
            for point, position in enumerate(along, start=1):
                if name in self.devices:
                    self._check_limits(self.devices[name], position, point)
        return _Done()

    def _on_stage(self, msg: Msg) -> list[Any]:
        return [msg.obj]

    def _on_wait(self, msg: Msg) -> bool:
        return True

    def _on_wait_for(self, msg: Msg) -> list[Any]:
        return []

    def _on_open_run(self, msg: Msg) -> str:
        self._promised = expected_points(msg.kwargs)
        return str(uuid.uuid4())

    def _on_close_run(self, msg: Msg) -> str:
        return str(uuid.uuid4())

    def _on_create(self, msg: Msg) -> None:
        self._stream = msg.kwargs.get("name") or (msg.args[0] if msg.args else "primary")

    def _on_save(self, msg: Msg) -> None:
        if self._stream == "primary":
            self._saved += 1

    def _on_read(self, msg: Msg) -> dict[str, Any]:
        return self.devices.reading(_path(msg.obj), msg.obj.name)

    def _on_locate(self, msg: Msg) -> Any:
        locations = [self.devices.location(_path(device)) for device in (msg.obj, *msg.args)]
        return locations[0] if len(locations) == 1 and msg.kwargs.get("squeeze", True) else locations

    def _on_declare_stream(self, msg: Msg) -> tuple[dict[str, Any], dict[str, Any]]:
        self._has_external = True
        return {}, {}

    def _on_collect(self, msg: Msg) -> list[Any]:
        self._has_external = True
        return []

    def _on_configure(self, msg: Msg) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {}

    def _on_subscribe(self, msg: Msg) -> int:
        return 0

    def _on_input(self, msg: Msg) -> str:
        raise no_terminal(msg.kwargs.get("prompt", ""))

    def _on_RE_class(self, msg: Msg) -> type[RunEngine]:
        return RunEngine


def _path(device: Any) -> str:
    """Name a remote device, or one that a plan brings along, which is not touched either."""
    return device.path if isinstance(device, RemoteDevice) else f"local:{getattr(device, 'name', device)}"


def _limits(info: DeviceInfo) -> tuple[float, float] | None:
    """Give (low, high): those of the device file, else the device's own; equal ones mean none, as in EPICS."""
    limits = info.limits or info.properties.get("limits")
    if not limits or len(limits) != 2 or None in limits:
        return None
    low, high = limits
    return (low, high) if low < high else None
