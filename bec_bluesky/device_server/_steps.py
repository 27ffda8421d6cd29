"""Instructions in phases: what comes after a `then` starts when everything before it has ended well.

A point of a step scan is one instruction: move, then trigger, then read. Each operation has its own answer as ever;
those of a phase that ended well wait a moment for the next ones, so that a fast point is one message back.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator

import msgspec

from bec_bluesky.device_server._batch import Batch
from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.devices import Answer, Instruction, Op
from bec_bluesky.messages.failures import tell

__all__ = ["GIVE_UP", "THEN", "Steps"]

THEN = "then"
"""Verb that parts two phases."""
GIVE_UP = "give_up"
"""Verb that lets no further phase of an instruction start; its argument is the id of one of that one's operations."""
_LONGEST_HOLD = 0.02
"""Seconds that the news of an ended phase may wait for the next one's."""


class Steps:
    """Starts the phases of instructions one after the other; lives in the service's loop."""

    def __init__(
        self,
        where: str,
        say: Callable[[str, Answer], None],
        start: Callable[[Batch, list[Op]], None],
        read: Callable[[Batch], None],
    ) -> None:
        self._where = where
        self._say = say
        self._start = start
        self._read = read
        self._under_way: set[_Step] = set()

    def begin(self, instruction: Instruction) -> None:
        """Start the first phase."""
        step = _Step(instruction, self._say)
        self._under_way.add(step)
        self._proceed(step)

    def give_up(self, client: str, number: int | None = None) -> None:
        """Start nothing more of the instruction with this operation; None: of none of this client's."""
        for step in [each for each in self._under_way if each.client == client]:
            if number is None or step.has(number):
                self._end(step, "it was given up")

    def give_up_all(self) -> None:
        """Start nothing more of any instruction."""
        for step in list(self._under_way):
            self._end(step, "everything was stopped")

    def _proceed(self, step: "_Step") -> None:
        ops = step.next_phase()
        after = [] if step.reading is None else step.reading.args
        batch = Batch(
            msgspec.structs.replace(step.instruction, ops=ops, after=after),
            self._where,
            step.hear,
            self._read,
            on_end=lambda is_well: self._phase_ended(step, is_well=is_well),
        )
        self._start(batch, ops)

    def _phase_ended(self, step: "_Step", *, is_well: bool) -> None:
        if step not in self._under_way:
            return
        if not is_well:
            self._end(step, "what comes before it failed")
        elif step.is_more:
            self._proceed(step)
        else:
            self._under_way.discard(step)

    def _end(self, step: "_Step", why: str) -> None:
        self._under_way.discard(step)
        step.release()
        refusal = RefusedError(f"not started: {why}", "not_started")
        for op in step.take_rest():
            failure = tell(refusal, device=op.device or None, where=self._where)
            self._say(step.client, Answer(op.id, "failed", failure))


class _Step:
    """An instruction in phases that is under way."""

    def __init__(self, instruction: Instruction, say: Callable[[str, Answer], None]) -> None:
        self.instruction = instruction
        self.client = instruction.client
        self.reading: Op | None = None
        """The `read_all` that comes with the end of the phase that is under way: it needs no phase of its own."""
        self._phases = list(_phases(instruction.ops))
        self._say = say
        self._held: list[Answer] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_more(self) -> bool:
        """Whether there is another phase."""
        return bool(self._phases)

    def next_phase(self) -> list[Op]:
        """Give the operations that are next."""
        phase = self._phases.pop(0)
        if [op.verb for later in self._phases for op in later] == ["read_all"]:
            self.reading = self._phases.pop()[0]
        return phase

    def has(self, number: int) -> bool:
        """Whether an operation is of this instruction."""
        return any(op.id == number for op in self.instruction.ops)

    def take_rest(self) -> list[Op]:
        """Give the operations that were not started, and will not be."""
        rest = [op for phase in self._phases for op in phase]
        if self.reading is not None:
            rest.append(self.reading)
        self._phases, self.reading = [], None
        return rest

    def hear(self, client: str, answer: Answer) -> None:
        """Say an answer, or keep it a moment if others will follow."""
        if answer.code == "readings":
            reading, self.reading = self.reading, None
            if reading is None:
                return  # it was given up meanwhile
            answer = Answer(reading.id, "result", answer.payload)
        if answer.code != "done" or not (self._phases or self.reading):
            self.release()
            self._say(client, answer)
            return
        self._held.append(answer)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LONGEST_HOLD, self.release)

    def release(self) -> None:
        """Say what is kept."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, []
        for answer in held:
            self._say(self.client, answer)


def _phases(ops: Iterable[Op]) -> Iterator[list[Op]]:
    phase: list[Op] = []
    for op in ops:
        if op.device or op.verb != THEN:
            phase.append(op)
        elif phase:
            yield phase
            phase = []
    if phase:
        yield phase
