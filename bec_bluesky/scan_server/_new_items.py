"""From what is asked for to an item of the queue: checked against the plan, the devices and their limits."""

import asyncio
import time
import uuid

import msgspec

from bec_bluesky.errors import RefusedError
from bec_bluesky.messages import encode
from bec_bluesky.messages.common import Failure
from bec_bluesky.messages.queue import AddItem, QueueItem, Request
from bec_bluesky.scan_server._devices import DeviceBook
from bec_bluesky.scan_server._instructions import check_instruction
from bec_bluesky.scan_server._item_devices import all_devices
from bec_bluesky.scan_server._metadata import MetadataRules
from bec_bluesky.scan_server._plans import PlanBook
from bec_bluesky.scan_server._pool import UNCHECKED, WorkerPool
from bec_bluesky.scan_server._requests import CheckFailed, time_left
from bec_bluesky.scan_server._validation import validate

__all__ = ["NewItems"]

_MOST_BYTES = 4 * 2**20
"""Of one item; larger things go by reference."""
_MOST_ITEMS = 10_000
"""Of one request."""
_CHECKED_AT_ONCE = 4
"""Items of one request: enough to keep the workers busy. With more, all would wake for each worker that is free."""
Checked = tuple[QueueItem, list[str]]
"""An item, and warnings."""


class NewItems:
    """Makes items, or refuses to."""

    def __init__(self, plans: PlanBook, devices: DeviceBook, pool: WorkerPool, metadata: MetadataRules) -> None:
        self._metadata = metadata
        self._plans = plans
        self._devices = devices
        self._pool = pool

    async def make(self, asked: AddItem, request: Request, queue: str = "") -> QueueItem:
        """Make an item whose arguments fit its plan, not yet checked by a worker; raises RefusedError."""
        if asked.kind == "instruction":
            asked = check_instruction(asked, self._devices)
        else:
            await self._check_call(asked, request.deadline)
        item = QueueItem(
            item_id=uuid.uuid4().hex,
            plan=asked.plan,
            args=asked.args,
            kwargs=asked.kwargs,
            metadata=({"sample": asked.sample} if asked.sample else {}) | asked.metadata,
            user=request.user,
            title=asked.title,
            note=asked.note,
            kind=asked.kind,
            sample=asked.sample,
            goes_back=asked.goes_back,
            properties=asked.properties,
            added=time.time(),
            queue=queue,
            repeats=asked.repeats,
        )
        size = len(encode(item))
        if size > _MOST_BYTES:
            raise RefusedError(f"{asked.plan} with {size} bytes of arguments: the limit is {_MOST_BYTES}", "too_large")
        return item

    async def _check_call(self, asked: AddItem, deadline: float) -> None:
        if not await self._plans.known(time_left(deadline)):
            raise RefusedError(
                f"No plans are known yet ({self._pool.last_words}): ask again when the worker is ready", "no_plans"
            )
        validate(asked, self._plans, self._devices)
        self._metadata.check(asked, self._plans[asked.plan])

    async def check(self, item: QueueItem, deadline: float) -> Checked:
        """Have a worker iterate the plan; raises CheckFailed."""
        if item.kind == "instruction":
            return item, []
        found = await self._pool.check(item, longest=time_left(deadline))
        if found is None:
            devices = self._devices.held_with(all_devices(item, (), self._devices))
            properties = item.properties | {UNCHECKED: True} | ({"devices": devices} if devices else {})
            warning = "no worker could check it against the devices' limits yet: that is done before it runs"
            return msgspec.structs.replace(item, properties=properties), [warning]
        if found.failure is not None:
            raise CheckFailed(_refusal(found.failure))
        devices = self._devices.held_with([*found.devices, *all_devices(item, (), self._devices)])
        properties = {"devices": devices} | ({} if found.points is None else {"points": found.points})
        return msgspec.structs.replace(item, properties=item.properties | properties), []

    async def make_all(self, asked: list[AddItem], request: Request, queue: str = "") -> list[Checked]:
        """Make and check several, all or none; raises RefusedError that says what is wrong with each that is."""
        if not 1 <= len(asked) <= _MOST_ITEMS:
            raise RefusedError(f"{len(asked)} items cannot be added at once: 1 to {_MOST_ITEMS}", "bad_number")
        lanes = asyncio.Semaphore(_CHECKED_AT_ONCE)

        async def made(each: AddItem) -> Checked:
            async with lanes:
                await asyncio.sleep(0)  # others are served between two items
                return await self._made(each, request, queue)

        found = await asyncio.gather(*(made(each) for each in asked), return_exceptions=True)
        wrong = [(number, each) for number, each in enumerate(found, start=1) if isinstance(each, BaseException)]
        for _, error in wrong:
            if not isinstance(error, RefusedError):
                raise error
        if wrong:
            texts = [f"item {number} of {len(asked)}: {error}" for number, error in wrong]
            raise RefusedError("\n".join(texts), wrong[0][1].code if len(wrong) == 1 else "several_refused")  # pyright: ignore[reportAttributeAccessIssue]  # a RefusedError, as all are
        return [each for each in found if not isinstance(each, BaseException)]

    async def _made(self, asked: AddItem, request: Request, queue: str) -> Checked:
        return await self.check(await self.make(asked, request, queue), request.deadline)


def _refusal(failure: Failure) -> Failure:
    """Make a refusal of what a check found: clients raise it without importing the libraries that it comes from."""
    name = failure.kind.rpartition(".")[2]
    if failure.kind.startswith("bec_bluesky.errors."):
        return failure
    code = "outside_limits" if name == "LimitError" else "check_failed"
    return msgspec.structs.replace(failure, kind="bec_bluesky.errors.RefusedError", code=failure.code or code)
