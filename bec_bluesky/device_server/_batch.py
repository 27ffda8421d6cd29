"""A batch of operations that came together, and the readings that are to come with its end."""

from collections.abc import Callable
from typing import Any

from bec_bluesky.messages.devices import Answer, Instruction, Op
from bec_bluesky.messages.failures import tell

__all__ = ["Batch"]


class Batch:
    """Counts what is under way; the last completion is held until the readings asked for are there."""

    def __init__(
        self,
        instruction: Instruction,
        where: str,
        say: Callable[[str, Answer], None],
        read: Callable[["Batch"], None] = lambda batch: None,
        on_end: Callable[[bool], None] = lambda is_well: None,
    ) -> None:
        """`read` is asked for the readings that are to come with the end, `on_end` told whether all ended well."""
        self.client = instruction.client
        self.token = instruction.token
        self.after = instruction.after
        self.last_id = instruction.ops[-1].id if instruction.ops else 0
        self.size = self._under_way = len(instruction.ops)
        self.readings: dict[str, Any] | None = None
        """Those asked for, if they were taken already, after the end of the last operation."""
        self._has_failed = False
        self._where = where
        self._say = say
        self._read = read
        self._on_end = on_end
        self._held: Answer | None = None

    def answer(self, answer: Answer) -> None:
        """Give the final answer to one operation."""
        self._under_way -= 1
        if self._under_way == 0 and self.after and not self._has_failed and answer.code != "failed":
            self._held = answer
            self._read(self)
        else:
            self._has_failed |= answer.code == "failed"
            self._say(self.client, answer)
        if self._under_way == 0:
            self._on_end(not self._has_failed)

    def fail(self, op: Op, error: BaseException, *, in_call: bool = False) -> None:
        """Answer that an operation failed: at once (`in_call`), or by its status."""
        failure = tell(error, device=op.device or None, where=self._where, in_call=in_call)
        self.answer(Answer(op.id, "failed", failure))

    def release(self, readings: Answer) -> None:
        """Let the held completion go, and the readings with it."""
        if self._held is not None:
            self._say(self.client, self._held)
        self._say(self.client, readings)
