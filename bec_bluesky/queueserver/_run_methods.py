"""Methods about the running plan, and the status."""

from collections.abc import Mapping
from typing import Any

from bec_bluesky.errors import BadArgumentError, RefusedError
from bec_bluesky.messages.queue import ControlRun, RunAction
from bec_bluesky.queueserver._scan_server import ScanServerAccess

__all__ = ["RunMethods"]

_PAUSES: dict[str, RunAction] = {"deferred": "pause", "immediate": "pause_now"}
_RUNS = ("active", "open", "closed")


class RunMethods:
    """Status, `re_…`."""

    def __init__(self, access: ScanServerAccess) -> None:
        self._access = access

    async def status(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Give the status."""
        return self._access.status()

    async def pause(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Pause the running plan, at its next checkpoint or at once."""
        option = params.get("option", "deferred")
        if option not in _PAUSES:
            raise BadArgumentError(f"Option '{option}' is not supported. Available options: {tuple(_PAUSES)}")
        if not self._access.has_environment:
            raise RefusedError("Environment does not exist. Can not pause Run Engine.", "no_environment")
        status = self._access.mirror.status
        running = None if status is None else status.running
        if running is None:
            state = self._access.state
            raise RefusedError(
                f"Failed to pause the queue. Queue is not running. Manager state: {state}", "nothing_runs"
            )
        self._access.feed.say("Pausing the queue (currently running plan) ...")
        await self._access.change(ControlRun(action=_PAUSES[option], item_id=running.item_id), params)
        self._access.pause_asked_of = running.item_id
        return {}

    async def resume(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Go on with a paused plan."""
        return await self._go_on("resume", "Resuming paused plan ...", params)

    async def stop(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """End a paused plan as a success."""
        return await self._go_on("stop", "Stopping paused plan ...", params)

    async def abort(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """End a paused plan as aborted, with its clean-up."""
        return await self._go_on("abort", "Aborting paused plan ...", params)

    async def halt(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """End a paused plan without clean-up."""
        return await self._go_on("halt", "Halting paused plan ...", params)

    async def _go_on(self, action: RunAction, text: str, params: Mapping[str, Any]) -> dict[str, Any]:
        await self._access.mirror.refresh()
        state = self._access.state
        if state != "paused":
            raise RefusedError(f"RE Manager is not paused: current state is '{state}'", "not_paused")
        self._access.feed.say(text)
        await self._access.change(ControlRun(action=action), params)
        return {}

    async def runs(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """List the runs of the running plan, or of the last one."""
        option = params.get("option", "active")
        if option not in _RUNS:
            raise BadArgumentError(f"Option '{option}' is not supported. Available options: {_RUNS}")
        status = self._access.mirror.status
        runs = [] if status is None else status.runs
        wanted = [run for run in runs if option == "active" or run.is_open == (option == "open")]
        listed = [
            {
                "uid": run.uid,
                "scan_id": run.scan_id,
                "is_open": run.is_open,
                "exit_status": run.exit_status or None,
            }
            for run in wanted
        ]
        return {"run_list": listed, "run_list_uid": self._access.status()["run_list_uid"]}

    async def metadata(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Give what the RunEngine keeps between plans: the last scan number; each item brings its own metadata."""
        if not self._access.has_environment:
            raise RefusedError("Environment does not exist. Cannot retrieve RE metadata.", "no_environment")
        status = self._access.mirror.status
        scan_id = status.runs[-1].scan_id if status is not None and status.runs else None
        return {"re_metadata": {} if scan_id is None else {"scan_id": scan_id}}
