"""What holds a plan: suspenders that tripped, wherever they come from, until they let it go on."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

__all__ = ["Suspensions"]


class Suspensions:
    """Knows by what the plan is suspended; lives in the engine's loop.

    bluesky asks a suspender when a plan begins, and is told by it while one runs. One that trips in between, or while
    the plan is paused, would be overlooked: `missed` gives those.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reasons: dict[Any, str] = {}
        """By the event (or what else there is) that ends the suspension."""
        self._watchers: set[asyncio.Task[None]] = set()
        self.hook: Callable[[str], None] = lambda _: None
        """Told by what the plan is suspended; empty: by nothing any more."""

    @property
    def text(self) -> str:
        return "; ".join(dict.fromkeys(self._reasons.values()))

    def begin(self, released: Callable[[], Awaitable[Any]], reason: str) -> None:
        """Note a suspension; it ends when what `released` gives is done."""
        key = getattr(released, "__self__", released)
        self._reasons[key] = " ".join(reason.split()) or "a suspender tripped"
        task = self._loop.create_task(self._watch(key, released), name=f"suspended: {reason}")
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)
        self.hook(self.text)

    async def _watch(self, key: Any, released: Callable[[], Awaitable[Any]]) -> None:
        await released()
        if self._reasons.pop(key, None) is not None:
            self.hook(self.text)

    def missed(self, suspenders: Iterable[Any]) -> list[Any]:
        """Give the suspenders that are tripped and of which the plan knows nothing."""
        return [each for each in suspenders if each.tripped and each._ev is not None and each._ev not in self._reasons]

    def clear(self) -> None:
        """The plan is over."""
        for task in self._watchers:
            task.cancel()
        if self._reasons:
            self._reasons.clear()
            self.hook("")
