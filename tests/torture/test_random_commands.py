"""Random commands to a real scan server, whose queue must be what the pure state machine says, after each of them."""

import itertools
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.queue import (
    AddItem,
    AddItems,
    ClearQueue,
    ControlRun,
    EditItem,
    ExecuteItem,
    HoldItem,
    ItemAccepted,
    ItemResult,
    ItemsChanged,
    MoveItems,
    QueueItem,
    ReleaseItem,
    RemoveItem,
    RemoveItems,
    RequestBody,
    SetQueueMode,
    StartQueue,
    StopQueue,
)
from bec_bluesky.scan_server import _queue_events as q
from bec_bluesky.scan_server._queue import QueueState, step
from bec_bluesky.settings import Settings
from tests.scan_server.scan_server_harness import IMPATIENT, SCRIPTED
from tests.scan_server.worker.worker_bench import make_profile
from tests.torture.live_scan_server import LiveScanServer, live_scan_server

ENDINGS = {"finish": "completed", "skip": "stopped", "stop": "stopped", "abort": "aborted", "halt": "halted"}
WAIT_PLAN = """
import bluesky.plan_stubs as bps

def wait(note=""):
    yield from bps.open_run()
    yield from bps.checkpoint()
    yield from bps.sleep(600)
    yield from bps.close_run()
"""
places = st.sampled_from([None, 0, 1, -1, -2, 99])
numbers = st.integers(0, 8)


class Against(RuleBasedStateMachine):
    """Each rule asks the server, and steps the model with the event that it means."""

    live: LiveScanServer

    @initialize()
    def begin(self) -> None:
        live = self.live
        live.ask(SetQueueMode(loop=False, ignore_failures=False, autostart=False))
        live.ask(StopQueue())
        live.ask(ClearQueue())
        if live.status().running is not None:
            live.ask(ControlRun(action="abort"))
        live.until(lambda: live.status().running is None and live.status().run_state == "idle")
        live.ask(ClearQueue())  # what went back
        live.ask(StopQueue())
        self.model = QueueState()
        self.titles = itertools.count()

    # ── asking and comparing ──

    def happen(self, event: q.Event) -> None:
        self.model, _ = step(replace(self.model, has_worker=self.model.running is None), event)
        if self.model.running is None:  # the server's worker is free again, and it goes on
            self.model, _ = step(replace(self.model, has_worker=True), q.Nudged())

    def refused(self, event: q.Event) -> str:
        """Have something happen in the model; give the code if that refuses it."""
        before = self.model
        try:
            self.happen(event)
        except RefusedError as error:
            self.model = before
            return error.code
        return ""

    def both(self, asked: RequestBody, event: q.Event) -> None:
        """Ask, and have the same happen in the model: both accept it or both refuse it, for the same reason."""
        code = ""
        try:
            self.live.ask(asked)
        except RefusedError as error:
            code = error.code
        before = self.model
        assert code == self.refused(event), (asked, before)

    def compare(self) -> None:
        status, waiting = self.live.status(), self.live.waiting()
        model = self.model
        assert [(each.item_id, each.state) for each in waiting] == [(e.item_id, e.state) for e in model.waiting]
        running = "" if status.running is None else status.running.item_id
        assert running == ("" if model.running is None else model.running.item_id)
        assert (status.queue_state, status.loop, status.ignore_failures, status.autostart) == (
            model.mode,
            model.loop,
            model.ignore_failures,
            model.autostart,
        )

    def new(self, **options: Any) -> AddItem:
        return AddItem(plan="wait", title=f"t{next(self.titles)}", **options)

    def known(self, number: int) -> str:
        """Give the id of an item: one that waits, the one that runs, or one that does not exist."""
        ids = [each.item_id for each in self.model.waiting]
        ids += [self.model.running.item_id] if self.model.running is not None else []
        return ids[number] if number < len(ids) else "nothing"

    # ── the queue ──

    def insert(self, asked: AddItem) -> None:
        """Add an item; the model gets the one that the server made."""
        try:
            items, code = (self.live.ask(asked).item,), ""
        except RefusedError as refused:
            items, code = (QueueItem(item_id="refused", plan="wait"),), refused.code
        place = q.Place(asked.position, asked.before, asked.after)
        assert self.refused(q.Added(items, place, asked.start)) == code
        self.compare()

    @rule(place=places, start=st.booleans(), goes_back=st.booleans())
    def add(self, place: int | None, start: bool, goes_back: bool) -> None:
        self.insert(self.new(position=place, start=start, goes_back=goes_back))

    @rule(number=numbers, is_before=st.booleans())
    def add_beside(self, number: int, is_before: bool) -> None:
        self.insert(self.new(**{"before" if is_before else "after": self.known(number)}))

    @rule(count=st.integers(1, 3), place=places)
    def add_several(self, count: int, place: int | None) -> None:
        changed: ItemsChanged = self.live.ask(AddItems(items=[self.new() for _ in range(count)], position=place))
        self.happen(q.Added(tuple(changed.items), q.Place(place)))
        self.compare()

    @rule()
    def add_several_of_which_one_is_wrong(self) -> None:
        with pytest.raises(RefusedError):
            self.live.ask(AddItems(items=[self.new(), AddItem(plan="nonsense")]))
        self.compare()

    @rule()
    def add_a_stop(self) -> None:
        accepted: ItemAccepted = self.live.ask(AddItem(plan="queue_stop", kind="instruction"))
        self.happen(q.Added((accepted.item,)))
        self.compare()

    @rule()
    def execute(self) -> None:
        item, code = QueueItem(item_id="refused", plan="wait"), ""
        try:
            item = self.live.ask(ExecuteItem(item=self.new())).item
        except RefusedError as refused:
            code = refused.code
        assert self.refused(q.Executed(item)) == code
        self.compare()

    @rule(number=numbers, has_new_id=st.booleans())
    def edit(self, number: int, has_new_id: bool) -> None:
        item_id = self.known(number)
        try:
            accepted: ItemAccepted = self.live.ask(EditItem(item_id=item_id, item=self.new(), has_new_id=has_new_id))
        except RefusedError:
            assert item_id not in [each.item_id for each in self.model.waiting]
        else:
            self.happen(q.Edited(item_id, accepted.item))
        self.compare()

    @rule(numbers=st.lists(numbers, min_size=1, max_size=3, unique=True), place=places)
    def move(self, numbers: list[int], place: int | None) -> None:
        ids = list(dict.fromkeys(self.known(number) for number in numbers))
        self.both(MoveItems(item_ids=ids, position=place), q.Moved(tuple(ids), q.Place(place)))
        self.compare()

    @rule(number=numbers, other=numbers)
    def move_after(self, number: int, other: int) -> None:
        ids = [self.known(number)]
        self.both(
            MoveItems(item_ids=ids, after=self.known(other)), q.Moved(tuple(ids), q.Place(after=self.known(other)))
        )
        self.compare()

    @rule(number=numbers)
    def move_what_is_named_twice(self, number: int) -> None:
        with pytest.raises(RefusedError):
            self.live.ask(MoveItems(item_ids=[self.known(number)] * 2))
        self.compare()

    @rule(number=numbers)
    def hold(self, number: int) -> None:
        self.both(HoldItem(item_id=self.known(number)), q.Held(self.known(number), "held by ann"))
        self.compare()

    @rule(number=numbers)
    def release(self, number: int) -> None:
        self.both(ReleaseItem(item_id=self.known(number)), q.Released(self.known(number)))
        self.compare()

    @rule(number=numbers)
    def remove(self, number: int) -> None:
        self.both(RemoveItem(item_id=self.known(number)), q.Removed((self.known(number),)))
        self.compare()

    @rule(numbers=st.lists(numbers, min_size=1, max_size=3, unique=True))
    def remove_several(self, numbers: list[int]) -> None:
        ids = list(dict.fromkeys(self.known(number) for number in numbers))
        self.both(RemoveItems(item_ids=ids), q.Removed(tuple(ids)))
        self.compare()

    @rule()
    def clear(self) -> None:
        self.both(ClearQueue(), q.Cleared())
        self.compare()

    @rule(loop=st.none() | st.booleans(), ignore_failures=st.none() | st.booleans())
    def set_mode(self, loop: bool | None, ignore_failures: bool | None) -> None:
        self.both(SetQueueMode(loop=loop, ignore_failures=ignore_failures), q.ModeSet(loop, ignore_failures))
        self.compare()

    @rule(is_on=st.booleans())
    def set_autostart(self, is_on: bool) -> None:
        self.both(SetQueueMode(autostart=is_on), q.AutostartSet(is_on))
        self.compare()

    # ── the run ──

    @rule()
    def start(self) -> None:
        self.both(StartQueue(), q.Started())
        self.compare()

    @rule(cancel=st.booleans())
    def stop(self, cancel: bool) -> None:
        self.both(StopQueue(cancel=cancel), q.StopCancelled() if cancel else q.StopAsked())
        self.compare()

    @rule(action=st.sampled_from(["pause", "resume", *ENDINGS]))
    def control_the_run_of_another_item(self, action: Any) -> None:
        with pytest.raises(RefusedError):
            self.live.ask(ControlRun(action=action, item_id="another"))
        self.compare()

    @precondition(lambda self: self.model.running is not None)
    @rule(action=st.sampled_from(list(ENDINGS)))
    def end(self, action: Any) -> None:
        running = self.model.running
        assert running is not None
        self.live.ask(ControlRun(action=action, item_id=running.item_id))
        self.follow(running, lambda result, again: q.Ended(running.item_id, result, again), ENDINGS[action])

    @precondition(lambda self: self.model.running is not None)
    @rule()
    def worker_dies(self) -> None:
        running, live = self.model.running, self.live
        assert running is not None
        live.until(lambda: live.status().scan_id is not None)
        pid = live.server.pool.running_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        self.follow(running, lambda result, again: q.WorkerLost(result, again), "failed")

    def follow(self, running: QueueItem, event: Any, exit_status: str) -> None:
        """Wait for the end of an item, and tell the model of it; the server gives an id to what it repeats."""
        live = self.live
        live.until(lambda: live.ended()[:1] != [] and live.ended()[0].item_id == running.item_id)
        result = live.ended()[0].result
        assert isinstance(result, ItemResult)
        assert result.exit_status == exit_status
        live.until(lambda: live.server.pool.ready > 0)
        live.until(lambda: live.status().queue_state == "stopped" or live.status().running is not None)
        repeated = [
            each for each in (*live.waiting(), live.status().running) if each and each.repeats == running.item_id
        ]
        assert len(repeated) <= 1
        self.happen(event(result, repeated[0].item_id if repeated else "not repeated"))
        self.compare()


def torment(live: LiveScanServer, examples: int, steps: int) -> None:
    live.until(lambda: live.status().run_state == "idle")
    machine = type("Against", (Against,), {"live": live})
    options = hypothesis_settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=examples < 10,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=options)


@pytest.fixture
def scripted(settings: Settings) -> Iterator[LiveScanServer]:
    with live_scan_server(settings, worker_command=SCRIPTED, has_spare=False, patience=IMPATIENT) as live:
        yield live


def test_a_few_random_commands_do_what_the_model_says(scripted: LiveScanServer) -> None:
    torment(scripted, examples=6, steps=30)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_random_commands_do_what_the_model_says(scripted: LiveScanServer) -> None:
    torment(scripted, examples=100, steps=50)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_random_commands_to_a_real_worker_do_what_the_model_says(settings: Settings, tmp_path: Path) -> None:
    profile = make_profile(tmp_path / "profile", startup=WAIT_PLAN)
    with live_scan_server(settings.with_(profile=profile), has_spare=False) as live:
        torment(live, examples=10, steps=40)
