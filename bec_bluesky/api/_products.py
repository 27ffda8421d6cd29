"""Plans, runs, points, results and alarms over HTTP."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response, WebSocket, status

from bec_bluesky.api._answers import answer, told
from bec_bluesky.api._json_values import json_value
from bec_bluesky.api._live_events import LiveEvents
from bec_bluesky.api._plan_forms import form_of
from bec_bluesky.api._problems import REQUEST_PROBLEMS, Problem, ProblemError
from bec_bluesky.bus import Bus
from bec_bluesky.channels import ALARMS, DEVICES, ITEMS, PLANS, POINTS, RESULTS, RUNS, Channel
from bec_bluesky.client import last_texts
from bec_bluesky.errors import UnknownItemError, UnknownPlanError
from bec_bluesky.messages.common import Alarm, ConsoleText
from bec_bluesky.messages.devices import DeviceInfo
from bec_bluesky.messages.products import AnalysisResult, Point, RunOpened
from bec_bluesky.messages.queue import PlanInfo, QueueItem

__all__ = ["product_router"]

_STREAM_ID = re.compile(r"\d{1,19}(-\d{1,19})?")
Limit = Annotated[int, Query(ge=1, le=10_000)]
RunUid = Annotated[str, Path(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")]
After = Annotated[str, Query(description="the `next` of an earlier answer", pattern=_STREAM_ID.pattern)]


async def _plan(bus: Bus, name: str) -> PlanInfo:
    found = await bus.field(PLANS, name)
    if found is None:
        error = UnknownPlanError(name[:100], await bus.fields(PLANS))
        raise ProblemError(status.HTTP_404_NOT_FOUND, Problem(detail=str(error), code=error.code))
    return found


def product_router(bus: Bus) -> APIRouter:
    """Make the routes below `/api/v1`."""
    router = APIRouter(prefix="/api/v1", tags=["plans, runs, alarms"], responses=REQUEST_PROBLEMS)

    @router.get("/plans", response_model=None, responses=told(list[PlanInfo]))
    async def plans() -> Response:
        """List the plans that may be asked for, with their parameters."""
        table: dict[str, PlanInfo] = await bus.fields(PLANS)
        return answer([table[name] for name in sorted(table)])

    @router.get("/plans/{name}", response_model=None, responses=told(PlanInfo))
    async def plan(name: str) -> Response:
        """Describe one plan."""
        return answer(await _plan(bus, name))

    @router.get("/plans/{name}/form", response_model=None)
    async def form(name: str) -> Response:
        """Describe the arguments of a plan as a JSON schema, with the devices that there are."""
        tables: dict[str, dict[str, DeviceInfo]] = await bus.find_tables(DEVICES, "server")
        devices = {path: info for table in tables.values() for path, info in table.items()}
        return answer(form_of(await _plan(bus, name), devices))

    @router.get("/queue/items/{item_id}", response_model=None, responses=told(QueueItem))
    async def item(item_id: str) -> Response:
        """Give an item that waits or runs."""
        found = await bus.field(ITEMS, item_id)
        if found is None:
            error = UnknownItemError(f"no item {item_id[:100]!r} waits or runs: those that ended are in /history")
            raise ProblemError(status.HTTP_404_NOT_FOUND, Problem(detail=str(error), code=error.code))
        return answer(found)

    @router.get("/alarms", response_model=None, responses=told(list[Alarm]))
    async def alarms(limit: Limit = 100) -> Response:
        """List the newest alarms, newest first."""
        return answer([alarm for _, alarm in await bus.newest(ALARMS, limit)])

    @router.get("/console", response_model=None, responses=told(list[ConsoleText]))
    async def console(
        lines: Limit = 200,
        source: Annotated[str, Query(description="worker, or the id of a task or of an item; empty: all")] = "",
    ) -> Response:
        """Give the last lines that plans, scripts and functions printed, oldest first."""
        return answer(await last_texts(bus, lines, source))

    @router.get("/runs", response_model=None, responses=told(list[RunOpened]))
    async def runs(limit: Limit = 50) -> Response:
        """List the newest runs, newest first: each as it was opened, with `closed` once it is."""
        events = [event for _, event in await bus.newest(RUNS, 2 * limit)]
        closed = {event.run_uid: event for event in events if not isinstance(event, RunOpened)}
        opened = [event for event in events if isinstance(event, RunOpened)][:limit]
        return answer([json_value(run) | {"closed": json_value(closed.get(run.run_uid))} for run in opened])

    @router.get("/runs/{run_uid}/points", response_model=None, responses=told(Point))
    async def points(run_uid: RunUid, after: After = "0-0", limit: Limit = 1_000) -> Response:
        """Give points of a run in order, as `points`, and `next`, with which one goes on."""
        return answer(await _page(bus, POINTS, "points", run_uid, after, limit))

    @router.get("/runs/{run_uid}/results", response_model=None, responses=told(AnalysisResult))
    async def results(run_uid: RunUid, after: After = "0-0", limit: Limit = 1_000) -> Response:
        """Give results of analyses of a run in order, as `results`, and `next`, with which one goes on."""
        return answer(await _page(bus, RESULTS, "results", run_uid, after, limit))

    @router.websocket("/live")
    async def live(socket: WebSocket, kinds: str = "") -> None:
        """Push {type, data} of what happens, after the present state; `kinds` (comma-separated) chooses."""
        await LiveEvents(socket, bus, frozenset(filter(None, map(str.strip, kinds.split(","))))).serve()

    return router


async def _page(bus: Bus, channel: Channel, word: str, run_uid: str, after: str, limit: int) -> dict[str, Any]:
    entries = await bus.read(channel, after, count=limit, run=run_uid)
    return {word: [message for _, message in entries], "next": entries[-1][0] if entries else after}
