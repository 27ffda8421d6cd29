"""Executes operations on devices: those of ophyd-async in the loop, those of ophyd in threads."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from bec_bluesky.device_server import _layers
from bec_bluesky.device_server._answers import Outbox
from bec_bluesky.device_server._arguments import rebuilt
from bec_bluesky.device_server._at_once import ended_well
from bec_bluesky.device_server._batch import Batch
from bec_bluesky.device_server._calls import Call, Calls, Outcome
from bec_bluesky.device_server._claims import CLAIM_VERBS, Claims
from bec_bluesky.device_server._connections import Connections
from bec_bluesky.device_server._describe import STATUS_METHODS
from bec_bluesky.device_server._entry import Entry, Found
from bec_bluesky.device_server._generators import collected, collected_async
from bec_bluesky.device_server._guard import guard
from bec_bluesky.device_server._lanes import Lanes
from bec_bluesky.device_server._monitors import Monitors
from bec_bluesky.device_server._read_together import ReadTogether
from bec_bluesky.device_server._reading import Reader
from bec_bluesky.device_server._registry import Registry
from bec_bluesky.device_server._statuses import Statuses
from bec_bluesky.device_server._steps import THEN, Steps
from bec_bluesky.device_server._stopping import MOVING_VERBS, Stopping
from bec_bluesky.device_server._verbs import GENERATORS, MONITOR_VERBS, URGENT, VIEW, check_verb
from bec_bluesky.errors import DeviceError, RefusedError, StaleDevice
from bec_bluesky.messages.common import Failure
from bec_bluesky.messages.devices import Answer, Instruction, Op
from bec_bluesky.messages.failures import tell

__all__ = ["Executor"]

_LATE = 0.05
"""Seconds that a stop waits for what was accepted before it to be called."""

Job = list[tuple[Op, Found]]
"""Calls to make in one thread."""


class Executor:
    """Carries out instructions; lives in the service's loop."""

    def __init__(self, registry: Registry, outbox: Outbox, server: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._registry = registry
        self._outbox = outbox
        self._where = f"device server {server}"
        self.claims = Claims(registry, server)
        self._threads = ThreadPoolExecutor(max_workers=16, thread_name_prefix="device")
        self._own_threads: dict[str, ThreadPoolExecutor] = {}
        self._lanes = Lanes(self._loop)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.statuses = Statuses(self._loop, outbox)
        self.calls = Calls(self._loop)
        self.reader = Reader(self._threads, self.calls)
        self._together = ReadTogether(registry, self.reader, self._where)
        self.connections = Connections(
            registry, self.reader, self.calls, self.statuses, lambda entry: self._lanes.free(entry.name), self._spawn
        )
        self.monitors = Monitors(self._loop, outbox)
        self.steps = Steps(self._where, outbox.say, self._start_all, self._read_after)
        self.view: Callable[[Found, float], Coroutine[Any, Any, Any]] = _not_viewed
        """What `view` does; it waits for nothing that is under way."""
        self.stopping = Stopping(registry, self.statuses, self.monitors, self.steps, self._do, self.claims.token_of)

    # ── instructions ──

    def _do(self, path: str, verb: str, token: str = "") -> None:
        """Carry out an operation that no client asked for; a `stop` in its turn, if something is to be called."""
        op = Op(0, path, verb)
        if verb not in URGENT:
            self.execute(Instruction("", "", [op], token=token))
        elif self._lanes.is_to_be_called(path.partition(".")[0]):
            in_threads: dict[str, Job] = {}
            batch = Batch(Instruction("", "", [op]), self._where, self._outbox.say)
            self._start_in_turn(batch, op, self._registry.find(path), in_threads)
            self._run_all(batch, in_threads)

    def execute(self, instruction: Instruction) -> None:
        """Start every operation, in order; what comes after a `then` later."""
        if any(op.verb == THEN and not op.device for op in instruction.ops):
            self.steps.begin(instruction)
        else:
            self._start_all(Batch(instruction, self._where, self._outbox.say, self._read_after), instruction.ops)

    def _start_all(self, batch: Batch, ops: list[Op]) -> None:
        in_threads: dict[str, Job] = {}
        for op in ops:
            try:
                if op.device:
                    if batch.token:
                        self.stopping.check(batch.token, op)
                    self._start(batch, op, in_threads)
                else:
                    self._start_for_server(batch, op)
            except Exception as error:  # noqa: BLE001  # whatever a device raises is the answer
                batch.fail(op, error, in_call=True)
        self._run_all(batch, in_threads)

    def _run_all(self, batch: Batch, in_threads: dict[str, Job]) -> None:
        for job in in_threads.values():
            self._spawn(self._run_in_thread(batch, job))

    def lose_client(self, client: str) -> "asyncio.Task[dict[str, str]]":
        """Stop what a lost client moves, then let others have it; the task gives {path: what went wrong}."""
        lost = self._loop.create_task(self.stopping.lose_client(client))
        self._tasks.add(lost)
        lost.add_done_callback(self._tasks.discard)
        self.claims.lose_client(client, lost)
        return lost

    def clients(self) -> set[str]:
        """Give the clients that would leave something behind."""
        return self.stopping.clients() | self.claims.clients()

    def _start_for_server(self, batch: Batch, op: Op) -> None:
        if op.verb == "read_all":
            self._spawn(self._answer_with(batch, op, self._together.read(op.args)))
        elif op.verb == "client_lost":
            client = str(op.args[0])
            self.claims.note_death(client)
            self._spawn(self._answer_with(batch, op, self.lose_client(client)))
        elif self.claims.must_wait(op):
            self._spawn(self._answer_with(batch, op, self.claims.serve_later(batch, op)))
        elif op.verb in CLAIM_VERBS:
            batch.answer(Answer(op.id, "result", self.claims.serve(batch, op)))
        else:
            self.steps.give_up(batch.client, op.args[0])
            batch.answer(Answer(op.id, "result", None))

    def _start(self, batch: Batch, op: Op, in_threads: dict[str, Job]) -> None:
        if self._registry.rebuilt and op.verb not in URGENT:
            building = self._registry.rebuilt.get(op.device.partition(".")[0])
            if building is not None:
                self._spawn(self._start_when_built(batch, op, building))
                return
        found = self._registry.find(op.device)
        check_verb(found, op)
        if found.entry.state == "disconnected":
            self.connections.check(found, op)
        guard(found, op, self._registry.entries)
        self.claims.allow(batch, op, found)
        self.statuses.started(batch.client, op)
        entry = found.entry
        if op.verb == VIEW:
            self._spawn(self._answer_with(batch, op, self.view(found, float(op.args[0]))))
        elif op.verb in URGENT and self._lanes.is_to_be_called(entry.name):
            self._start_in_turn(batch, op, found, in_threads)
            self._spawn(self._stop_if_late(op, found))
        elif op.verb in URGENT and found.layer != "ophyd-async":
            self._spawn(self._run_in_thread(batch, [(op, found)], is_urgent=True))
        elif found.layer == "ophyd-async" and (op.verb in URGENT or not self._must_wait(entry)):
            self._start_async(batch, op, found)
        else:
            self._start_in_turn(batch, op, found, in_threads)

    def _must_wait(self, entry: Entry) -> bool:
        return entry.is_waiting or self._lanes.is_busy(entry.name)

    def _start_in_turn(self, batch: Batch, op: Op, found: Found, in_threads: dict[str, Job]) -> None:
        """Have an operation called after those on its device that were accepted before."""
        entry = found.entry
        if op.verb in MOVING_VERBS or op.verb in URGENT:
            self._lanes.note_call(id(op), entry.name)
        if found.layer != "ophyd-async" and not entry.is_waiting:
            in_threads.setdefault(entry.name if entry.spec.blocking else "", []).append((op, found))
        else:
            self._lanes.queue(entry.name)
            self._spawn(self._start_later(batch, op, found))

    async def _stop_if_late(self, op: Op, found: Found) -> None:
        """Stop a device out of turn, too, if something blocks those before it."""
        await asyncio.sleep(_LATE)
        if self._lanes.is_noted(id(op)):
            now = Op(0, op.device, op.verb, op.args, op.kwargs)
            batch = Batch(Instruction("", "", [now]), self._where, self._outbox.say)
            if found.layer == "ophyd-async":
                self._start_async(batch, now, found)
            else:
                await self._run_in_thread(batch, [(now, found)], is_urgent=True)

    async def _start_when_built(self, batch: Batch, op: Op, building: "asyncio.Future[None]") -> None:
        await asyncio.wait([building])
        self._start_all(batch, [op])

    async def _start_later(self, batch: Batch, op: Op, found: Found) -> None:
        """Start when the lane is free, and a lazy device is connected."""
        entry = found.entry
        earlier = self._lanes.held([entry.name])
        try:
            if earlier:
                await asyncio.wait(earlier)
            elif entry.is_waiting:
                await self._connect(entry)
            found = self._registry.find(op.device)
            if found.layer != "ophyd-async":
                self._spawn(self._run_in_thread(batch, [(op, found)]))
                return
            self._start_async(batch, op, found)
        except Exception as error:  # noqa: BLE001  # whatever a device raises is the answer
            batch.fail(op, error, in_call=True)
        finally:
            self._lanes.unqueue(entry.name)
        self._lanes.note_return(id(op))

    async def _connect(self, entry: Entry) -> None:
        """Connect a lazy device; what else is asked of it waits."""
        lane = self._lanes.hold([entry.name])
        try:
            await self._registry.connect_now(entry)
        finally:
            self._lanes.let_go(lane)

    # ── ophyd-async ──

    def _start_async(self, batch: Batch, op: Op, found: Found) -> None:
        device = found.device
        if op.verb == "read" and not op.args and not op.kwargs:
            self._answer_call(batch, op, found, self.reader.read(found))
        elif op.verb == "get":
            self._spawn(
                self._answer_with(
                    batch, op, self.calls.within(found, op.verb, _layers.get_value(device, self._threads))
                )
            )
        elif op.verb == "put":
            self._spawn(
                self._answer_with(
                    batch, op, self.calls.within(found, op.verb, _awaited(device.set(*op.args, **op.kwargs)))
                )
            )
        elif op.verb in MONITOR_VERBS:
            self._monitor(batch.client, op, found)
            batch.answer(Answer(op.id, "result", None))
        else:
            method = getattr(device, op.verb)
            self._take_result(batch, op, found, method(*rebuilt(method, op.args), **op.kwargs))

    def _answer_call(self, batch: Batch, op: Op, found: Found, call: Coroutine[Any, Any, Any]) -> None:
        """Answer with what a call of ophyd-async gives."""
        self._spawn(self._answer_with(batch, op, self.calls.within(found, op.verb, call)))

    async def _answer_with(self, batch: Batch, op: Op, awaitable: Awaitable[Any]) -> None:
        try:
            result = await awaitable
        except Exception as error:  # noqa: BLE001  # whatever a device raises is the answer
            batch.fail(op, error, in_call=True)
        else:
            batch.answer(Answer(op.id, "result", result))

    def _take_result(self, batch: Batch, op: Op, found: Found, result: Any) -> Any:
        """Answer with what a method gave: a status is followed, generators and coroutines are awaited.

        Gives the future that holds the device's lane, if the operation does.
        """
        if hasattr(result, "add_callback") and hasattr(result, "exception") and not isinstance(result, asyncio.Future):
            holds = op.verb in ("stage", "unstage")
            held = self._lanes.hold_until_done(found.entry.name, result) if holds else None
            self.statuses.follow(batch, op, found, result)
            return held
        if inspect.isasyncgen(result):
            self._answer_call(batch, op, found, collected_async(result, self._failure_of(op)))
        elif inspect.isawaitable(result):
            self._answer_call(batch, op, found, _awaited(result))
        elif op.verb in STATUS_METHODS:  # older devices stage at once and give a list
            self.statuses.done(batch, op, found)
        else:
            batch.answer(Answer(op.id, "result", list(result) if inspect.isgenerator(result) else result))
        return None

    # ── ophyd ──

    async def _run_in_thread(self, batch: Batch, job: Job, *, is_urgent: bool = False) -> None:
        """Call the methods one after the other in one thread, after what is under way on these devices."""
        if is_urgent:
            await self._call_all(batch, job, self.stopping.threads)
            return
        names = {found.entry.name for _, found in job}
        earlier = self._lanes.held(names)
        mine = self._lanes.hold(names)
        try:
            if earlier:
                await asyncio.wait(earlier)
            held = await self._call_all(batch, job, self._threads_for(job[0][1].entry))
            if held:
                await asyncio.wait(held)
        finally:
            self._lanes.let_go(mine)
            for op, _ in job:
                self._lanes.note_return(id(op))

    def _threads_for(self, entry: Entry) -> ThreadPoolExecutor:
        if not entry.spec.blocking:
            return self._threads
        threads = self._own_threads.get(entry.name)
        if threads is None:
            threads = self._own_threads[entry.name] = ThreadPoolExecutor(1, thread_name_prefix=f"device-{entry.name}")
        return threads

    async def _call_all(self, batch: Batch, job: Job, threads: ThreadPoolExecutor) -> list[Any]:
        """Call in a thread; give the lanes that are held by what was started."""
        held: list[Any] = []
        results: list[Any] = []

        def call(op: Op, found: Found) -> Any:
            results.append(self._call(batch, op, found))
            return results[-1]

        def more() -> list[Call]:
            is_whole = len(results) == len(job) == batch.size
            return self._together.calls(batch.after) if batch.after and is_whole and ended_well(results) else []

        def take(outcomes: list[Outcome]) -> None:
            reads = [each for each in outcomes if each.number >= len(job)]
            if reads and len(reads) == len(batch.after):
                batch.readings = self._together.told(
                    {
                        path: each.result if each.error is None else each.error
                        for path, each in zip(batch.after, reads, strict=True)
                    }
                )
            for outcome in outcomes[: len(outcomes) - len(reads)]:
                lane = self._take_outcome(batch, *job[outcome.number], outcome)
                if lane is not None:
                    held.append(lane)

        calls = [Call(found, op.verb, partial(call, op, found)) for op, found in job]
        await self.calls.in_thread(threads, calls, take, more)
        return held

    def _take_outcome(self, batch: Batch, op: Op, found: Found, outcome: Outcome) -> Any:
        self._lanes.note_return(id(op))
        if outcome.error is not None:
            batch.fail(op, outcome.error, in_call=not isinstance(outcome.error, DeviceError))
        elif op.verb in MONITOR_VERBS:
            batch.answer(Answer(op.id, "result", None))
        else:
            return self._take_result(batch, op, found, outcome.result)
        return None

    def _call(self, batch: Batch, op: Op, found: Found) -> Any:
        device = found.device
        if op.verb == "read" and not op.args and not op.kwargs:
            return self.reader.read_sync(found)
        if op.verb in MONITOR_VERBS:
            return self._monitor(batch.client, op, found)
        if op.verb == "get" and not op.args and not op.kwargs:
            return _layers.sync_value(device)
        if op.verb == "locate" and not hasattr(device, "locate"):
            value = _layers.sync_value(device)
            return {"setpoint": value, "readback": value}
        method = getattr(device, op.verb)
        result = method(*rebuilt(method, op.args), **op.kwargs)
        if op.verb in GENERATORS and not inspect.isawaitable(result):
            return collected(result, self._failure_of(op))  # the generator's work belongs into this thread
        return result

    def _failure_of(self, op: Op) -> Callable[[Exception], Failure]:
        return partial(tell, device=op.device, where=self._where, in_call=True)

    # ── readings that come with a completion ──

    def _read_after(self, batch: Batch) -> None:
        if batch.readings is not None:
            batch.release(Answer(batch.last_id, "readings", batch.readings))
        else:
            self._spawn(self._read_and_release(batch))

    async def _read_and_release(self, batch: Batch) -> None:
        batch.release(Answer(batch.last_id, "readings", await self._together.read(batch.after)))

    # ── monitors ──

    def _monitor(self, client: str, op: Op, found: Found) -> None:
        """Begin or end a subscription."""
        if op.verb == "subscribe":
            self.monitors.add(client, op, found)
        elif op.args:
            self.monitors.remove(client, op.args[0])
        else:
            raise RefusedError(f"{op.verb} takes the id of the `subscribe` that it ends", "bad_argument")

    # ── devices that are built anew or removed ──

    async def abandon(self, entry: Entry, error: StaleDevice, timeout: float) -> None:
        """Let what is under way on a device fail, stop it, and wait for calls in threads, `timeout` seconds at most."""
        is_moving = any(running.found.entry is entry for running in self.statuses.running)
        self.statuses.fail(entry, error)
        self.statuses.forget(entry.name)
        if is_moving:
            await self.stopping.stop_device(entry)
        await self._lanes.abandon(entry.name, timeout)

    async def resubscribe(self, name: str, subscriptions: Iterable[tuple[str, Op]]) -> None:
        """Let subscriptions go on with the device that is there now; those for which there is none fail."""
        for client, op in subscriptions:
            try:
                found = self._registry.find(op.device)
                if found.layer == "ophyd-async":
                    self.monitors.add(client, op, found)
                else:
                    await self._loop.run_in_executor(self._threads, self.monitors.add, client, op, found)
            except Exception as error:  # noqa: BLE001  # whatever a device raises is the answer
                self._outbox.fail(client, op.id, StaleDevice(f"{name} is another device now: {error}"), op.device)

    # ── life ──

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End what is under way; devices are not moved."""
        self.monitors.close()
        self.connections.end()
        for task in list(self._tasks):
            task.cancel()
        for running in self.statuses.running:
            task = getattr(running.status, "task", None)
            if isinstance(task, asyncio.Task):
                task.cancel()  # the one of an ophyd-async status would otherwise outlive the loop
                self._tasks.add(task)
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=2.0)
        self.stopping.close()
        for threads in (self._threads, *self._own_threads.values()):
            threads.shutdown(wait=False, cancel_futures=True)


async def _not_viewed(found: Found, _: float) -> Any:
    raise RefusedError(f"{found.path} cannot be viewed: this server publishes no readings", "not_viewed")


async def _awaited(result: Any) -> Any:
    return await result
