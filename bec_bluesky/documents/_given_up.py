"""The runs on which a required callback gave up: their documents are kept, and its next start feeds them again."""

from collections import deque
from collections.abc import Callable, Collection

from bec_bluesky.bus import Bus
from bec_bluesky.channels import GIVEN_UP
from bec_bluesky.documents._stored import let_go, mark_stored

__all__ = ["GivenUp", "Tell", "given_up_runs", "leave_given_up"]

Tell = Callable[[int], None]
"""Takes how many there are."""


class GivenUp:
    """A table on Redis, {run: why}, of one callback."""

    def __init__(self, bus: Bus, consumer: str, tell: Tell) -> None:
        self._bus = bus
        self._consumer = consumer
        self._tell = tell
        self._runs: set[str] = set()
        self._again: deque[str] = deque()

    async def load(self) -> None:
        """Take up what an earlier process left."""
        self._runs = set(await self._bus.fields(GIVEN_UP, consumer=self._consumer))
        self._again = deque(sorted(self._runs))
        self._tell(len(self._runs))

    @property
    def next(self) -> str | None:
        """The run to be fed once more, until it is passed: one at a time, there may be a night's worth of them."""
        return self._again[0] if self._again else None

    def passed(self) -> None:
        """Go on to the next one."""
        self._again.popleft()

    async def add(self, run: str, reason: str) -> None:
        """Note a run, with its reason."""
        await self._bus.put_raw_field(GIVEN_UP, run, reason, consumer=self._consumer)
        self._runs.add(run)
        self._tell(len(self._runs))

    async def drop(self, run: str) -> None:
        """Forget a run that is stored after all, or gone."""
        if run in self._runs:
            await self._bus.delete_fields(GIVEN_UP, run, consumer=self._consumer)
            self._runs.discard(run)
            self._tell(len(self._runs))


async def given_up_runs(bus: Bus) -> dict[str, dict[str, str]]:
    """Give {run: {callback: why}} of all runs on which required callbacks gave up."""
    found: dict[str, dict[str, str]] = {}
    for consumer, runs in (await bus.find_tables(GIVEN_UP, "consumer")).items():
        for run, reason in runs.items():
            found.setdefault(run, {})[consumer] = bytes(reason).decode(errors="replace")
    return found


async def leave_given_up(bus: Bus, run: str, required: Collection[str]) -> None:
    """Let a run stay unwritten by those who gave up: its documents go once all others of the required have it."""
    consumers = (await given_up_runs(bus)).get(run, {})
    await mark_stored(bus, run, *consumers)
    for consumer in consumers:
        await bus.delete_fields(GIVEN_UP, run, consumer=consumer)
    await let_go(bus, run, required)
