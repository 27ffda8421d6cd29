"""The queue as a state machine: whatever happens in whatever order, no item is lost and none runs twice."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bec_bluesky.errors import RefusedError, UnknownItemError
from bec_bluesky.messages.queue import ItemResult, QueueItem
from bec_bluesky.scan_server import _queue_events as q
from bec_bluesky.scan_server._queue import QueueState, blocked, devices_of, next_to_run, recover, step
from bec_bluesky.scan_server._sharing import line_up, taken_by_others

FAILED = ItemResult(exit_status="failed", reason="it broke")
COMPLETED = ItemResult(exit_status="completed")


def item(name: str) -> QueueItem:
    return QueueItem(item_id=name, plan="count")


def stepped(state: QueueState, *events: q.Event) -> QueueState:
    for event in events:
        state, _ = step(state, event)
    return state


def waiting(*names: str, **facts: Any) -> QueueState:
    return QueueState(waiting=tuple(item(name) for name in names), **facts)


def names(state: QueueState) -> list[str]:
    return [each.item_id for each in state.waiting]


def changes(commands: tuple[q.Command, ...]) -> list[q.Change]:
    return [change for command in commands if isinstance(command, q.Persist) for change in command.changes]


@pytest.mark.parametrize(
    ("position", "order"),
    [
        (None, ["a", "b", "c", "new"]),
        (0, ["new", "a", "b", "c"]),
        (1, ["a", "new", "b", "c"]),
        (-1, ["a", "b", "c", "new"]),
        (-2, ["a", "b", "new", "c"]),
        (99, ["a", "b", "c", "new"]),
        (-99, ["new", "a", "b", "c"]),
    ],
)
def test_an_item_goes_to_the_position_that_was_asked_for(position: int | None, order: list[str]) -> None:
    state = stepped(waiting("a", "b", "c"), q.Added((item("new"),), q.Place(position)))
    assert names(state) == order
    assert state.mode == "stopped", "adding is not starting"


def test_several_items_stay_together_in_their_order() -> None:
    assert names(stepped(waiting("a", "b"), q.Added((item("x"), item("y")), q.Place(1)))) == ["a", "x", "y", "b"]


def test_a_started_queue_runs_the_first_item_once_it_is_durable() -> None:
    _, commands = step(waiting("a", "b", has_worker=True), q.Started())
    assert [type(command) for command in commands] == [q.Persist, q.RunOnWorker]
    assert q.Take("a") in changes(commands)
    assert q.Facts("a", "running", 1) in changes(commands)


def test_a_queue_that_is_started_before_a_worker_is_there_goes_on_when_one_comes() -> None:
    state, commands = step(waiting("a"), q.Started())
    assert state.mode == "running"
    assert state.running is None
    state, commands = step(replace(state, has_worker=True), q.Nudged())
    assert state.running is not None
    assert isinstance(commands[-1], q.RunOnWorker)


def test_the_next_item_follows_in_the_same_transaction() -> None:
    state = stepped(waiting("a", "b", has_worker=True), q.Started())
    state, commands = step(state, q.Ended("a", COMPLETED))
    assert [type(command) for command in commands] == [q.Persist, q.RunOnWorker]
    assert state.running is not None
    assert state.running.item_id == "b"


@pytest.mark.parametrize("status", ["failed", "aborted", "halted", "unknown"])
def test_the_queue_stops_after_an_item_that_did_not_end_well(status: Any) -> None:
    state = stepped(waiting("a", "b", has_worker=True), q.Started())
    state = stepped(state, q.Ended("a", ItemResult(exit_status=status)))
    assert (state.mode, names(state), state.running) == ("stopped", ["b"], None)


@pytest.mark.parametrize("status", ["completed", "stopped"])
def test_the_queue_goes_on_after_an_item_that_ended_well_and_stops_when_it_is_empty(status: Any) -> None:
    state = stepped(waiting("a", "b", has_worker=True), q.Started())
    state = stepped(state, q.Ended("a", ItemResult(exit_status=status)))
    assert state.mode == "running"
    state = stepped(state, q.Ended("b", ItemResult(exit_status=status)))
    assert (state.mode, state.running) == ("stopped", None)


def test_a_lost_worker_fails_its_item_closes_its_runs_first_and_the_queue_goes_on() -> None:
    state = stepped(waiting("a", "b", has_worker=True), q.Started())
    state, commands = step(state, q.WorkerLost(FAILED))
    assert [type(command) for command in commands] == [q.CloseLostRuns, q.Persist, q.RunOnWorker]
    finished = [change.item for change in changes(commands) if isinstance(change, q.Finish)]
    assert [(each.item_id, each.result) for each in finished] == [("a", FAILED)]
    assert state.running is not None
    assert state.running.item_id == "b"


def test_a_stop_lets_the_running_item_end_and_can_be_taken_back() -> None:
    state = stepped(waiting("a", "b", has_worker=True), q.Started(), q.StopAsked())
    assert (state.mode, state.running is not None) == ("stopping", True)
    assert stepped(state, q.StopCancelled()).mode == "running"
    state = stepped(state, q.Ended("a", COMPLETED))
    assert (state.mode, names(state)) == ("stopped", ["b"])


@pytest.mark.parametrize(
    "state", [QueueState(), waiting("a"), waiting("a", mode="running"), waiting("a", mode="stopping")]
)
def test_stopping_is_never_refused(state: QueueState) -> None:
    assert stepped(state, q.StopAsked()).mode == "stopped"


def test_adding_with_start_does_not_undo_somebodys_stop() -> None:
    state = stepped(waiting("a", has_worker=True), q.Started(), q.StopAsked(), q.Added((item("b"),), start=True))
    assert (state.mode, names(state)) == ("stopping", ["b"])


def test_what_ran_when_the_scan_server_died_is_held_in_front_and_the_queue_is_stopped() -> None:
    left = waiting("b", running=item("a"), mode="running", revision=7)
    state, commands = recover(left, "it died")
    assert [type(command) for command in commands] == [q.CloseLostRuns, q.Persist]
    assert (names(state), state.running, state.mode) == (["a", "b"], None, "stopped")
    assert (state.waiting[0].state, state.waiting[0].held) == ("held", "it died")


def test_the_queue_does_not_start_past_a_held_item_until_it_is_released_or_removed() -> None:
    state, _ = recover(waiting("b", running=item("a")), "it died")
    with pytest.raises(RefusedError, match=r"Item a .* is held: it died; release it or remove it") as refused:
        step(state, q.Started())
    assert refused.value.code == "item_held"
    assert stepped(state, q.Released("a"), q.Started()).mode == "running"
    assert stepped(state, q.Removed(("a",)), q.Started()).mode == "running"


def test_a_running_queue_stops_in_front_of_a_held_item() -> None:
    held = QueueItem(item_id="h", plan="count", state="held", held="wait for the sample")
    state = stepped(waiting("a", has_worker=True), q.Added((held,)), q.Started())
    state = stepped(state, q.Ended("a", COMPLETED))
    assert (state.mode, names(state), state.running) == ("stopped", ["h"], None)


def test_refusals_have_stable_codes_and_change_nothing() -> None:
    running = stepped(waiting("a", has_worker=True), q.Started())
    for state, event, code in [
        (QueueState(), q.Started(), "queue_empty"),
        (QueueState(), q.StopCancelled(), "queue_stopped"),
        (running, q.Removed(("a",)), "item_running"),
        (running, q.Removed(("zzz",)), "unknown_item"),
        (waiting("b"), q.Released("b"), "not_held"),
    ]:
        with pytest.raises(RefusedError) as refused:
            step(state, event)
        assert refused.value.code == code


def test_items_are_moved_together_and_in_the_order_asked_for() -> None:
    state = waiting("a", "b", "c", "d")
    assert names(stepped(state, q.Moved(("d", "a"), q.Place(before="c")))) == ["b", "d", "a", "c"]
    assert names(stepped(state, q.Moved(("a",), q.Place(after="c")))) == ["b", "c", "a", "d"]
    assert names(stepped(state, q.Moved(("c", "b"), q.Place(0)))) == ["c", "b", "a", "d"]
    assert names(stepped(state, q.Moved(("a",), q.Place()))) == ["b", "c", "d", "a"]
    assert names(stepped(state, q.Moved(("b",), q.Place(after="b")))) == ["a", "b", "c", "d"]
    with pytest.raises(RefusedError, match="one of themselves"):
        step(state, q.Moved(("a", "b"), q.Place(before="a")))
    with pytest.raises(RefusedError, match="named twice"):
        step(state, q.Moved(("a", "a"), q.Place(0)))


def test_after_the_running_item_is_the_front_and_before_it_is_nowhere() -> None:
    state = stepped(waiting("a", "b", has_worker=True), q.Started())
    assert names(stepped(state, q.Added((item("x"),), q.Place(after="a")))) == ["x", "b"]
    with pytest.raises(RefusedError) as refused:
        step(state, q.Added((item("x"),), q.Place(before="a")))
    assert refused.value.code == "item_running"


def test_an_edited_item_stays_in_its_place() -> None:
    new = QueueItem(item_id="b", plan="scan")
    assert stepped(waiting("a", "b", "c"), q.Edited("b", new)).waiting[1] == new
    renamed = stepped(waiting("a", "b", "c"), q.Edited("b", item("z")))
    assert names(renamed) == ["a", "z", "c"]


def test_several_are_taken_out_or_none() -> None:
    state = waiting("a", "b", "c")
    assert names(stepped(state, q.Removed(("a", "c")))) == ["b"]
    with pytest.raises(UnknownItemError):
        step(state, q.Removed(("a", "nobody")))


def test_the_queue_stops_in_front_of_an_item_that_is_held_and_goes_on_once_it_is_released() -> None:
    state = stepped(waiting("a", "b", has_worker=True), q.Started(), q.Held("b", "wait for the sample"))
    state = stepped(state, q.Ended("a", COMPLETED))
    assert (state.mode, names(state)) == ("stopped", ["b"])
    assert stepped(state, q.Released("b"), q.Started()).running is not None


def test_a_looping_queue_puts_what_ended_well_at_its_back() -> None:
    state = stepped(waiting("a", "b", has_worker=True), q.ModeSet(loop=True), q.Started())
    state = stepped(state, q.Ended("a", COMPLETED, again_id="a2"))
    assert (names(state), state.waiting[0].repeats, state.waiting[0].result) == (["a2"], "a", COMPLETED)
    state = stepped(state, q.Ended("b", FAILED, again_id="b2"))
    assert (state.mode, names(state)) == ("stopped", ["a2"])


def test_a_queue_that_ignores_failures_goes_on_after_them_but_not_after_an_abort() -> None:
    state = stepped(waiting("a", "b", "c", has_worker=True), q.ModeSet(ignore_failures=True), q.Started())
    state = stepped(state, q.Ended("a", FAILED))
    assert state.running is not None
    state = stepped(state, q.Ended("b", ItemResult(exit_status="aborted")))
    assert (state.mode, names(state)) == ("stopped", ["c"])


@pytest.mark.parametrize("status", ["failed", "aborted", "halted"])
def test_an_item_that_goes_back_is_in_front_again_and_an_explicit_start_runs_it(status: Any) -> None:
    wanted = QueueItem(item_id="a", plan="count", goes_back=True)
    state = stepped(QueueState(waiting=(wanted, item("b")), has_worker=True), q.Started())
    result = ItemResult(exit_status=status, reason="it broke")
    state = stepped(state, q.Ended("a", result, again_id="a2"))
    assert (state.mode, names(state), state.waiting[0].result) == ("stopped", ["a2", "b"], result)
    running = stepped(state, q.Started()).running
    assert running is not None
    assert running.item_id == "a2"


def test_autostart_runs_what_is_added_until_something_fails_which_is_then_held() -> None:
    state = stepped(QueueState(has_worker=True), q.AutostartSet(True))
    state = stepped(state, q.Added((QueueItem(item_id="a", plan="count", goes_back=True),)))
    assert state.running is not None
    state = stepped(state, q.Ended("a", COMPLETED), q.Added((item("b"),)))
    assert (state.mode, state.autostart) == ("running", True)
    bad = QueueItem(item_id="c", plan="count", goes_back=True)
    state = stepped(state, q.Ended("b", COMPLETED), q.Added((bad,)))
    state = stepped(state, q.Ended("c", FAILED, again_id="c2"))
    assert (state.mode, state.autostart) == ("stopped", False)
    assert [(each.item_id, each.state, each.held) for each in state.waiting] == [("c2", "held", "it broke")]


def test_stopping_ends_autostart_and_a_new_scan_server_begins_without_it() -> None:
    state = stepped(waiting("a", has_worker=True, autostart=True), q.StopAsked())
    assert (state.mode, state.autostart) == ("stopped", False)
    assert recover(waiting("a", autostart=True), "it died")[0].autostart is False


def test_the_queue_stops_at_the_instruction_which_is_spent_then() -> None:
    here = QueueItem(item_id="s", plan="queue_stop", kind="instruction")
    state = QueueState(waiting=(item("a"), here, item("b")), has_worker=True)
    state = stepped(state, q.Started(), q.Ended("a", COMPLETED))
    assert (state.mode, names(state)) == ("stopped", ["b"])
    looping = QueueState(waiting=(here, item("b")), has_worker=True, loop=True)
    assert names(stepped(looping, q.Started())) == ["b", "s"]


def test_an_item_runs_past_a_stopped_queue_only() -> None:
    state, commands = step(waiting("a", has_worker=True), q.Executed(item("x")))
    assert isinstance(commands[-1], q.RunOnWorker)
    assert (names(state), state.mode) == (["a"], "stopped")
    state = stepped(state, q.Ended("x", FAILED, again_id="x2"))
    assert (names(state), state.running) == (["a"], None)
    for busy in (stepped(waiting("a", has_worker=True), q.Started()), waiting("a", mode="running")):
        with pytest.raises(RefusedError, match="stop the queue first"):
            step(busy, q.Executed(item("x")))
    with pytest.raises(RefusedError, match="no worker is ready"):
        step(waiting("a"), q.Executed(item("x")))


class Durable:
    """What Redis holds after the changes that were persisted, and nothing else."""

    def __init__(self) -> None:
        self.items: dict[str, QueueItem] = {}
        self.order: list[str] = []
        self.history: list[QueueItem] = []
        self.facts = q.Facts("", "stopped", 0)

    def apply(self, change: q.Change) -> None:
        match change:
            case q.Put(each):
                self.items[each.item_id] = each
            case q.Insert(item_id, before):
                self.order.insert(len(self.order) if before is None else self.order.index(before), item_id)
            case q.Take(item_id):
                self.order.remove(item_id)
            case q.Forget(item_id):
                del self.items[item_id]
            case q.Finish(each):
                self.history.append(each)
                del self.items[each.item_id]
            case q.Facts():
                self.facts = change

    def state(self) -> QueueState:
        return QueueState(
            waiting=tuple(self.items[item_id] for item_id in self.order),
            running=self.items[self.facts.running] if self.facts.running else None,
            mode=self.facts.mode,
            revision=self.facts.revision,
            loop=self.facts.loop,
            ignore_failures=self.facts.ignore_failures,
            autostart=self.facts.autostart,
        )


NAMES = ("", "align")
DEVICES = st.lists(st.sampled_from(["x", "y", "z"]), max_size=2, unique=True)


class QueueMachine(RuleBasedStateMachine):
    """Random people, workers and crashes, with two queues that share devices and workers."""

    @initialize()
    def begin(self) -> None:
        self.states = {name: QueueState() for name in NAMES}
        self.durable = {name: Durable() for name in NAMES}
        self.line: tuple[str, ...] = ()
        self.submitted: list[str] = []
        self.taken_out: list[str] = []
        self.starts: list[str] = []
        self.released: set[str] = set()
        self.free_workers = 0
        self.on_worker: dict[str, QueueItem] = {}

    def with_room(self, name: str) -> QueueState:
        taken = taken_by_others(name, self.states, self.line)
        return replace(self.states[name], has_worker=self.free_workers > 0, taken=taken)

    def happen(self, name: str, event: q.Event) -> bool:
        try:
            state, commands = step(self.with_room(name), event)
        except RefusedError:
            return False
        self.carry_out(name, state, commands)
        self.line = line_up(self.states, self.line)
        for other in self.line:
            if other != name:
                self.carry_out(other, *step(self.with_room(other), q.Nudged()))
        self.line = line_up(self.states, self.line)
        return True

    def carry_out(self, name: str, state: QueueState, commands: tuple[q.Command, ...]) -> None:
        for command in commands:
            match command:
                case q.Persist(persisted):
                    for change in persisted:
                        self.durable[name].apply(change)
                case q.RunOnWorker(each):
                    assert name not in self.on_worker, "two items of a queue at once"
                    assert each.state == "running"
                    assert self.free_workers > 0
                    self.free_workers -= 1
                    self.on_worker[name] = each
                    self.starts.append(each.item_id)
                case q.CloseLostRuns():
                    pass
        self.states[name] = state

    @rule(
        name=st.sampled_from(NAMES),
        devices=st.lists(DEVICES, min_size=1, max_size=3),
        position=st.none() | st.integers(-4, 4),
        start=st.booleans(),
        goes_back=st.booleans(),
    )
    def add(self, name: str, devices: list[list[str]], position: int | None, start: bool, goes_back: bool) -> None:
        new = [f"i{len(self.submitted) + n}" for n in range(len(devices))]
        items = tuple(
            QueueItem(item_id=each, plan="count", goes_back=goes_back, queue=name, properties={"devices": used})
            for each, used in zip(new, devices, strict=True)
        )
        if self.happen(name, q.Added(items, q.Place(position), start)):
            self.submitted += new

    @rule(name=st.sampled_from(NAMES), data=st.data())
    def move(self, name: str, data: st.DataObject) -> None:
        if there := names(self.states[name]):
            moved = data.draw(st.lists(st.sampled_from(there), min_size=1, unique=True))
            other = data.draw(st.sampled_from(there))
            place = data.draw(st.sampled_from([q.Place(0), q.Place(), q.Place(before=other), q.Place(after=other)]))
            self.happen(name, q.Moved(tuple(moved), place))

    @rule(name=st.sampled_from(NAMES), data=st.data(), has_new_id=st.booleans())
    def edit(self, name: str, data: st.DataObject, has_new_id: bool) -> None:
        if there := names(self.states[name]):
            old = data.draw(st.sampled_from(there))
            new = self.new_name() if has_new_id else old
            assert self.happen(name, q.Edited(old, item(new)))
            if has_new_id:
                self.taken_out.append(old)

    @rule(name=st.sampled_from(NAMES), data=st.data())
    def hold(self, name: str, data: st.DataObject) -> None:
        if there := names(self.states[name]):
            assert self.happen(name, q.Held(data.draw(st.sampled_from(there)), "somebody said so"))

    @rule(name=st.sampled_from(NAMES), event=st.builds(q.ModeSet, st.none() | st.booleans(), st.none() | st.booleans()))
    def set_mode(self, name: str, event: q.Event) -> None:
        assert self.happen(name, event)

    @rule(name=st.sampled_from(NAMES), is_on=st.booleans())
    def set_autostart(self, name: str, is_on: bool) -> None:
        assert self.happen(name, q.AutostartSet(is_on))

    @rule(name=st.sampled_from(NAMES), used=DEVICES)
    def execute(self, name: str, used: list[str]) -> None:
        new = f"i{len(self.submitted)}"
        if self.happen(name, q.Executed(QueueItem(item_id=new, plan="count", properties={"devices": used}))):
            self.submitted.append(new)

    def new_name(self) -> str:
        """Give an id that counts as submitted."""
        self.submitted.append(f"i{len(self.submitted)}")
        return self.submitted[-1]

    def end(self, name: str, event: type[q.Ended | q.WorkerLost], *facts: Any) -> None:
        """End what runs; it may go back under a new id."""
        again = f"i{len(self.submitted)}"
        self.happen(name, event(*facts, again_id=again))
        state = self.states[name]
        if again in names(state) or (state.running is not None and state.running.item_id == again):
            self.submitted.append(again)

    @rule(name=st.sampled_from(NAMES), data=st.data())
    def remove(self, name: str, data: st.DataObject) -> None:
        if there := names(self.states[name]):
            removed = data.draw(st.sampled_from(there))
            assert self.happen(name, q.Removed((removed,)))
            self.taken_out.append(removed)

    @rule(name=st.sampled_from(NAMES))
    def clear(self, name: str) -> None:
        self.taken_out += names(self.states[name])
        self.happen(name, q.Cleared())

    @rule(name=st.sampled_from(NAMES))
    def release(self, name: str) -> None:
        for each in self.states[name].waiting:
            if each.state == "held":
                self.happen(name, q.Released(each.item_id))
                self.released.add(each.item_id)

    @rule(name=st.sampled_from(NAMES), event=st.sampled_from([q.Started(), q.StopAsked(), q.StopCancelled()]))
    def control(self, name: str, event: q.Event) -> None:
        self.happen(name, event)

    @rule(count=st.integers(0, 2))
    def workers_come_or_go(self, count: int) -> None:
        self.free_workers = count
        for name in NAMES:
            self.happen(name, q.Nudged())

    @rule(
        data=st.data(),
        status=st.sampled_from(["completed", "failed", "stopped", "aborted", "halted"]),
        has_worker=st.booleans(),
    )
    def item_ends(self, data: st.DataObject, status: Any, has_worker: bool) -> None:
        if self.on_worker:
            name = data.draw(st.sampled_from(sorted(self.on_worker)))
            ended = self.on_worker.pop(name)
            self.free_workers += has_worker
            self.end(name, q.Ended, ended.item_id, ItemResult(exit_status=status))

    @rule(data=st.data(), has_worker=st.booleans())
    def worker_dies(self, data: st.DataObject, has_worker: bool) -> None:
        if self.on_worker:
            name = data.draw(st.sampled_from(sorted(self.on_worker)))
            del self.on_worker[name]
            self.free_workers += has_worker
            self.end(name, q.WorkerLost, FAILED)

    @rule()
    def scan_server_dies(self) -> None:
        self.on_worker.clear()
        self.line = ()
        for name in NAMES:
            self.carry_out(name, *recover(self.durable[name].state(), "the scan server died"))

    @invariant()
    def every_item_is_in_one_place(self) -> None:
        places = list(self.taken_out)
        for name, state in self.states.items():
            places += names(state) + [each.item_id for each in self.durable[name].history]
            places += [] if state.running is None else [state.running.item_id]
        assert sorted(places) == sorted(self.submitted)

    @invariant()
    def nothing_runs_twice_unless_it_was_released(self) -> None:
        twice = {name for name in self.starts if self.starts.count(name) > 1}
        assert twice <= self.released

    @invariant()
    def no_device_is_used_by_two_at_once(self) -> None:
        used = [device for each in self.on_worker.values() for device in devices_of(each)]
        assert len(used) == len(set(used))

    @invariant()
    def who_waits_longest_waits_only_for_what_runs_or_for_a_worker(self) -> None:
        for name in self.line[:1]:
            first = next_to_run(self.states[name])
            assert first is not None
            wanted = set(devices_of(first))
            others = [each for other, each in self.on_worker.items() if other != name]
            assert not self.free_workers or any(wanted & set(devices_of(each)) for each in others)

    @invariant()
    def what_is_durable_is_the_state(self) -> None:
        for name, state in self.states.items():
            durable = self.durable[name].state()
            assert (durable.waiting, durable.running, durable.mode) == (state.waiting, state.running, state.mode)
            assert durable.revision == state.revision
            assert (durable.loop, durable.ignore_failures, durable.autostart) == (
                state.loop,
                state.ignore_failures,
                state.autostart,
            )

    @invariant()
    def what_a_queue_says_runs_is_what_its_worker_has(self) -> None:
        for name, state in self.states.items():
            assert self.on_worker.get(name) == state.running


QueueMachine.TestCase.settings = hypothesis_settings(max_examples=150, stateful_step_count=40, deadline=None)
TestQueueMachine = QueueMachine.TestCase


def using(name: str, queue: str, *devices: str) -> QueueItem:
    return QueueItem(item_id=name, plan="count", queue=queue, properties={"devices": list(devices)})


def test_an_item_whose_device_another_queue_uses_waits_and_says_for_whom() -> None:
    states = {
        "": QueueState(running=using("a", "", "samx", "det"), mode="running"),
        "align": QueueState(waiting=(using("b", "align", "det.channel"),), has_worker=True),
    }
    state = replace(states["align"], taken=taken_by_others("align", states, ()))
    state, commands = step(state, q.Started())
    assert (state.mode, state.running) == ("running", None)
    assert not any(isinstance(command, q.RunOnWorker) for command in commands)
    assert blocked(state, state.waiting[0]) == "det is held by count (item a) of queue main"
    states[""] = QueueState()
    state, commands = step(replace(state, taken=taken_by_others("align", states, ("align",))), q.Nudged())
    assert isinstance(commands[-1], q.RunOnWorker)


def test_who_waits_longer_for_a_device_comes_first() -> None:
    states = {
        "": QueueState(running=using("a", "", "x"), mode="running"),
        "both": QueueState(waiting=(using("b", "both", "x", "y"),), mode="running"),
        "late": QueueState(waiting=(using("c", "late", "y"),), mode="running"),
    }
    line = line_up(states, ("both",))
    assert line == ("both", "late")
    late = replace(states["late"], has_worker=True, taken=taken_by_others("late", states, line))
    assert step(late, q.Nudged())[1] == ()
    assert "of queue both, which waits for longer" in blocked(late, late.waiting[0])
    states[""] = QueueState()
    assert taken_by_others("both", states, line) == {}


def test_an_item_runs_at_once_only_if_its_devices_are_free() -> None:
    busy = QueueState(has_worker=True, taken={"x": "scan (item 1) of queue main"})
    with pytest.raises(RefusedError, match="x is held by scan") as refused:
        step(busy, q.Executed(using("a", "align", "x")))
    assert refused.value.code == "device_held"
    assert step(busy, q.Executed(using("b", "align", "y")))[0].running is not None


def test_an_end_that_belongs_to_another_item_is_refused() -> None:
    with pytest.raises(UnknownItemError):
        step(stepped(waiting("a", has_worker=True), q.Started()), q.Ended("b", COMPLETED))


def test_an_edit_in_place_does_not_release_a_held_item_and_a_new_one_takes_its_place_free() -> None:
    held, _ = step(QueueState(waiting=(item("a"),)), q.Held("a", "it was running when the scan server ended"))
    edited, _ = step(held, q.Edited("a", item("a")))
    assert (edited.waiting[0].state, edited.waiting[0].held) == ("held", "it was running when the scan server ended")
    replaced, _ = step(held, q.Edited("a", item("b")))
    assert [(each.item_id, each.state) for each in replaced.waiting] == [("b", "waiting")]
