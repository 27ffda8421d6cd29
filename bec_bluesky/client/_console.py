"""The console from a client: what plans, scripts and functions print on the server."""

from collections.abc import AsyncGenerator, Iterator

import msgspec

from bec_bluesky.bus import Bus
from bec_bluesky.channels import CONSOLE
from bec_bluesky.client._loop import LoopThread
from bec_bluesky.messages.common import ConsoleText

__all__ = ["ConsoleDoor", "last_texts"]


class ConsoleDoor:
    """Call it for the last lines as text; `follow()` gives them as they come."""

    def __init__(self, loop: LoopThread, bus: Bus) -> None:
        self._loop, self._bus = loop, bus

    def __call__(self, lines: int = 100, *, source: str = "") -> str:
        """Give the last lines; `source` (worker, the id of a task or of an item) gives those of one only."""
        return "".join(text.text for text in self.texts(lines, source=source))

    def texts(self, lines: int = 100, *, source: str = "") -> list[ConsoleText]:
        """Give what the last lines are of, with times and sources, oldest first."""
        return self._loop.call(last_texts(self._bus, lines, source))

    def follow(self, *, source: str = "") -> Iterator[ConsoleText]:
        """Give what is printed from now on, for ever; a lost Redis is waited for."""
        after = self._loop.call(self._bus.last_id(CONSOLE))
        return self._loop.iterate(_follow(self._bus, after, source))


async def last_texts(bus: Bus, lines: int, source: str = "") -> list[ConsoleText]:
    """Give the last lines of the console, or of one source, oldest first."""
    kept = CONSOLE.length or 0
    found: list[ConsoleText] = []
    for _, text in await bus.newest(CONSOLE, kept if source else min(kept, max(1, lines))):
        if lines <= 0:
            break
        if _is_of(text, source):
            parts = text.text.splitlines(keepends=True)[-lines:]
            lines -= len(parts)
            found.append(msgspec.structs.replace(text, text="".join(parts)))
    return found[::-1]


async def _follow(bus: Bus, after: str, source: str) -> AsyncGenerator[ConsoleText, None]:
    async for _, text in bus.follow(CONSOLE, after):
        if _is_of(text, source):
            yield text


def _is_of(text: ConsoleText, source: str) -> bool:
    return not source or source in (text.source, text.item_id)
