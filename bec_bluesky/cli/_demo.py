"""`demo`: a whole beamline on a soft IOC, three scans, and each of them read back in three ways."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bec_bluesky import plugins
from bec_bluesky.cli._frame_analysis import analyse_frames
from bec_bluesky.cli._launch import Background
from bec_bluesky.cli._lock import read_record
from bec_bluesky.cli._options import connected
from bec_bluesky.cli._readback import FinishedRun, Way, check, find_in_file, read_all, ways
from bec_bluesky.client import Client, LiveView, raise_if_failed, result_text
from bec_bluesky.errors import BecBlueskyError, NoReplyError, SettingsError
from bec_bluesky.messages.products import AnalysisResult, Point, RunOpened
from bec_bluesky.messages.queue import ItemDone
from bec_bluesky.settings import DEFAULT_PROFILE, Settings

__all__ = ["demo", "demo_settings"]

BEAMLINE = "demo"
_PLANS_TIMEOUT = 60.0
_DEVICES_TIMEOUT = 60.0
_FILES_TIMEOUT = 60.0


@dataclass(frozen=True)
class Scan:
    """One scan of the demo."""

    title: str
    plan: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def flight(self) -> tuple[str, float, float] | None:
        """Axis, start and stop, if a motor moves while frames are taken."""
        if "motor" not in self.kwargs:
            return None
        return self.kwargs["motor"], self.kwargs["start"], self.kwargs["stop"]


SCANS = (
    Scan("line scan", "scan", (["ph_det"], "ph_mtr", -15, 15), {"num": 16}),
    Scan("grid scan", "grid_scan", (["blob"], "stage_y", -0.5, 0, 3, "stage_x", 0, 3.2, 7), {"snake_axes": True}),
    Scan(
        "fly scan", "fly_scan", (["blob"],), {"num": 20, "exposure": 0.1, "motor": "stage_x", "start": 0, "stop": 3.2}
    ),
)
"""The camera's frames get brighter and darker as sin(x): a hump at x = π/2."""
DEVICES = ("ph_det", "ph_mtr", "blob", "stage_x", "stage_y")
"""Those of the scans."""


def demo_settings(settings: Settings, data: Path | None) -> Settings:
    """Give the demo a beamline, a profile and, unless one is named, a data directory of its own."""
    profile = DEFAULT_PROFILE / "profile_collection" / "mini_beamline"
    if not (profile / "profile.toml").is_file():
        raise SettingsError(f"the demo's profile {profile} is not there: install bec-bluesky anew")
    off = {"qserver_control_address": "", "qserver_info_address": "", "qserver_http_port": -1}
    directory = data or settings.data_dir / "demo"
    return settings.with_(beamline=BEAMLINE, profile=profile, data_dir=directory, api_port=0, **off)


def demo(settings: Settings, data: Path | None, *, keep: bool) -> int:
    """Run the demo; 0 if every way gives the same numbers. Whatever happens, nothing is left running without `keep`."""
    began = time.monotonic()
    console = Console(highlight=False, soft_wrap=True)
    settings = demo_settings(settings, data)
    say: Callable[[str], None] = lambda text: console.print(text, markup=False, style="dim")  # noqa: E731  # passed on
    background = _start(settings, say)
    is_kept = background is None
    try:
        if background is not None:
            background.wait_for("essential")
        runs = _scan(settings, console, began)
        if background is not None:
            background.wait_for("ready")
        _wait_for_files(settings, runs)
        if background is not None and keep:
            background.release()
            is_kept = True
    finally:
        if background is not None and not is_kept:
            background.stop()
    # read back last: without --keep from the files alone, as whoever copies the lines will do
    problems = _read_back(settings, runs, console)
    if problems:
        raise BecBlueskyError("; ".join(problems))
    console.print(
        f"\nAll three ways give the same numbers. The demo took {time.monotonic() - began:.0f} s.", style="green"
    )
    if is_kept:
        where = f"--data {settings.data_dir} --beamline {settings.beamline}"
        console.print(
            f"The beamline is still up: look with `bec-bluesky {where} status`, scan with `bec-bluesky {where} run …`, "
            f"stop it with `bec-bluesky {where} down`",
            markup=False,
        )
    return 0


def _start(settings: Settings, say: Callable[[str], None]) -> Background | None:
    """Start the beamline, on a leash; None if an earlier `demo --keep` left it up."""
    record = read_record(settings)
    if record is not None and record.is_up:
        say(f"the demo's beamline is up already (pid {record.supervisor.pid}): using it")
        return None
    say(f"starting beamline {settings.beamline!r} in {settings.data_dir}")
    return Background.launch(settings, say, leash=True)


def _scan(settings: Settings, console: Console, began: float) -> list[FinishedRun]:
    """Run the scans through the queue, shown live."""
    runs: list[FinishedRun] = []
    with connected(settings) as client:
        _wait_for_plans(client)
        _wait_for_devices(client)
        for scan in SCANS:
            console.print(f"\n{scan.title}", style="bold underline")
            item = client.queue.put(scan.plan, scan.args, scan.kwargs, start=True, title=scan.title)
            with LiveView(console) as view:
                for event in item.follow():
                    is_first = not any(run.points for run in runs)
                    view.show(event)
                    match event:
                        case RunOpened():
                            runs.append(FinishedRun(event, flight=scan.flight))
                        case Point():
                            _of(runs, event.run_uid).points.append(event)
                            if is_first:
                                view.say(f"(first live point {time.monotonic() - began:.1f} s after the start)", "dim")
                        case AnalysisResult() if event.final:
                            _of(runs, event.run_uid).results.append(event)
                        case ItemDone():
                            raise_if_failed(event.item)
                        case _:
                            pass
    return runs


def _wait_for_plans(client: Client) -> None:
    """Wait until a worker has said what it offers."""
    deadline = time.monotonic() + _PLANS_TIMEOUT
    wanted = {scan.plan for scan in SCANS}
    while not wanted <= client.plans.keys():
        if time.monotonic() > deadline:
            raise NoReplyError(
                f"no worker offers {', '.join(sorted(wanted - client.plans.keys()))} within {_PLANS_TIMEOUT:g} s: see "
                f"{client.settings.log_dir / 'scan_server.jsonl'}"
            )
        time.sleep(0.1)


def _wait_for_devices(client: Client) -> None:
    """Wait until the devices of the scans are connected: a busy machine takes its time to start the IOC."""
    deadline = time.monotonic() + _DEVICES_TIMEOUT
    while missing := [name for name in DEVICES if name not in client.dev or client.dev[name].state != "connected"]:
        if time.monotonic() > deadline:
            raise NoReplyError(
                f"{', '.join(missing)} not connected within {_DEVICES_TIMEOUT:g} s: see "
                f"{client.settings.log_dir / 'device_server.jsonl'}"
            )
        time.sleep(0.1)


def _wait_for_files(settings: Settings, runs: list[FinishedRun]) -> None:
    """Wait until every run is in its file and in the catalogue."""
    deadline = time.monotonic() + _FILES_TIMEOUT
    with connected(settings) as client:
        for run in runs:
            uid = run.opened.run_uid
            while not {file.kind for file in client.files(uid)} >= {"file", "catalogue"}:
                if time.monotonic() > deadline:
                    alarms = "; ".join(alarm.text for alarm in client.alarms(3)) or "no alarm says why"
                    raise NoReplyError(f"scan {run.opened.scan_id} has no file or is not in the catalogue: {alarms}")
                time.sleep(0.1)
            run.path = next(file.path for file in client.files(uid) if file.kind == "file")


def _read_back(settings: Settings, runs: list[FinishedRun], console: Console) -> list[str]:
    """Execute the lines that read each run back; print what came out, and those lines; give what differs."""
    profile = f"bec-bluesky-{settings.beamline}"
    all_ways = [ways(run, profile, find_in_file(run)) for run in runs]
    console.print(f"\nreading {len(runs)} runs back in three ways …", style="dim")
    readings = iter(read_all([way for each in all_ways for way in each]))
    plugins.mount(settings)
    problems: list[str] = []
    for run, run_ways in zip(runs, all_ways, strict=True):
        pairs = [(way, next(readings)) for way in run_ways]
        different = check(run, pairs)
        problems += different
        frames = analyse_frames(run, pairs[-1][1])
        _print(run, [*run.results, *([frames] if frames else [])], run_ways, console)
        if not different:
            live = [key for key in pairs[-1][1] if key in run.columns]
            same = f"; {' and '.join(live)} also as in the live points" if live else ""
            console.print(f"  all three give the same {', '.join(pairs[-1][1])}{same}", markup=False)
    return problems


def _print(run: FinishedRun, results: list[AnalysisResult], run_ways: list[Way], console: Console) -> None:
    count = len(run.newest_points)
    console.print(f"\nscan {run.opened.scan_id}: {run.opened.plan_name}, {count} points", style="bold")
    for result in results:
        console.print(f"  {result_text(result)}", markup=False, style="cyan")
    console.print(f"  file        {run.path}", markup=False)
    for way in run_ways:
        console.print(f"  {way.name:<11} {way.line}", markup=False)


def _of(runs: list[FinishedRun], uid: str) -> FinishedRun:
    return next(run for run in runs if run.opened.run_uid == uid)
