"""What a RunEngine needs to work with remote devices; the only module here that knows bluesky."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bec_bluesky.proxy._device import RemoteDevice
from bec_bluesky.proxy._readahead import ReadAhead
from bec_bluesky.proxy._status import RemoteStatus
from bec_bluesky.proxy._step import register_step

if TYPE_CHECKING:
    from bec_bluesky.proxy._link import DeviceLink

__all__ = ["NOT_DONE", "prepare_engine"]

NOT_DONE = "not done: "
"""Begins the notes of a `WaitForTimeoutError` that say what was waited for in vain."""


def prepare_engine(RE: Any, link: "DeviceLink", *, read_ahead: bool = True) -> None:
    """Replace the commands of a RunEngine that take what a device returns as it is, and send at `wait` what is held.

    The link must live in the RunEngine's loop. `read_ahead` lets readings travel with completions (`_readahead.py`);
    documents are the same without.
    """
    if link.loop is not RE.loop:
        raise ValueError("the link lives in another loop than the RunEngine: connect it with loop=RE.loop")
    RE.register_command("configure", _configure(RE))
    RE._status_object_completed = _completed(RE, RE._status_object_completed)
    RE.register_command("wait", _wait(RE, link, RE._command_registry["wait"]))
    RE.register_command("monitor", _monitor(RE, RE._command_registry["monitor"]))
    if read_ahead:
        _read_ahead(RE, link)
    register_step(RE, link)


def _configure(RE: Any) -> Any:
    from bluesky.utils import IllegalMessageSequence

    async def configure(msg: Any) -> tuple[Any, Any]:
        """Configure an object, whose `configure` may give an awaitable; the RunEngine's own command does not wait."""
        run = RE._run_bundlers.get(msg.run)
        if run is not None and run.bundling:
            raise IllegalMessageSequence("Cannot configure after 'create' but before 'save' Aborting!")
        result = msg.obj.configure(*msg.args, **msg.kwargs)
        old, new = await result if inspect.isawaitable(result) else result
        if run is not None:
            await run.configure(msg)
        return old, new

    return configure


def _completed(RE: Any, stock: Callable[..., None]) -> Callable[..., None]:
    def completed(status: Any, future: Any, pardon_failures: Any) -> None:
        """Let the plan see what a device's method raised as it is: in process there would be no status to fail."""
        if not getattr(status, "was_refused", False) or pardon_failures.is_set():
            stock(status, future, pardon_failures)
            return
        if status.verb == "kickoff":  # it does not fly: nothing of it is to be collected
            for run in RE._run_bundlers.values():
                run._uncollected.discard(status.device)
        elif status.verb == "stage":
            RE._staged.discard(status.device)
        with RE._state_lock:
            RE._exception = status.exception()
        future.set_exception(RE._exception)
        future.exception()  # the plan sees it at its next message, whether or not it waits

    return completed


def _wait(RE: Any, link: "DeviceLink", stock: Any) -> Any:
    from bluesky.run_engine import WaitForTimeoutError

    async def wait(msg: Any) -> Any:
        # send what is held, then wait as ever
        link.operations.flush()
        try:
            return await stock(msg)
        except WaitForTimeoutError as error:
            group = msg.args[0] if msg.args else msg.kwargs["group"]
            for status in RE._status_objs.get(group, ()):
                if isinstance(status, RemoteStatus) and not status.done:
                    error.add_note(f"{NOT_DONE}{status.told}")
            raise

    wait.__doc__ = stock.__doc__
    return wait


def _monitor(RE: Any, stock: Any) -> Any:
    async def monitor(msg: Any) -> None:
        # what `subscribe` of the device raises is the plan's business, and no change after this message may be missed
        await stock(msg)
        if isinstance(msg.obj, RemoteDevice):
            await msg.obj._has_begun()
            await RE._reset_checkpoint_state_coro()  # as stock did before: now the first event counts, as in process

    monitor.__doc__ = stock.__doc__
    return monitor


def _read_ahead(RE: Any, link: "DeviceLink") -> None:
    ahead = link.operations.read_ahead = ReadAhead(link)
    for command in ("sleep", "wait_for", "input"):  # the plan lets time pass
        _surround(RE, command, before=ahead.discard)
    _surround(RE, "open_run", before=ahead.begin_run)
    _surround(RE, "create", before=ahead.begin_event)
    _surround(RE, "save", after=lambda: ahead.end_event(is_saved=True))
    _surround(RE, "drop", after=lambda: ahead.end_event(is_saved=False))


def _surround(
    RE: Any, command: str, *, before: Callable[[], None] | None = None, after: Callable[[], None] | None = None
) -> None:
    stock = RE._command_registry[command]

    async def surrounded(msg: Any) -> Any:
        if before is not None:
            before()
        try:
            return await stock(msg)
        finally:
            if after is not None:
                after()

    surrounded.__doc__ = stock.__doc__
    RE.register_command(command, surrounded)
