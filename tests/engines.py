"""A bare RunEngine for a test, and its end."""

import asyncio
import contextlib
from collections.abc import Iterator

from bluesky import RunEngine

from tests.patience import PATIENCE

__all__ = ["running_engine"]


@contextlib.contextmanager
def running_engine(*, call_returns_result: bool = True) -> Iterator[RunEngine]:
    """A RunEngine with a loop of its own, which ends with the block, as does what ophyd-async left running there."""
    loop = asyncio.new_event_loop()
    engine = RunEngine({}, loop=loop, context_managers=[], call_returns_result=call_returns_result)
    try:
        yield engine
    finally:
        if engine.state != "idle":
            engine.halt()
        asyncio.run_coroutine_threadsafe(_end_tasks(), loop).result(PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        engine._th.join(10.0)
        loop.close()


async def _end_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
