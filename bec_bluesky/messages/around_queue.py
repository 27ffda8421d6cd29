"""Requests about what surrounds the queue: environment, scripts and functions, locks, rules, plans."""

from typing import Any, Literal

import msgspec

from bec_bluesky.messages.common import Message

__all__ = [
    "Command",
    "DeviceNote",
    "EndTask",
    "GetLock",
    "GetRules",
    "GetTasks",
    "KeptScript",
    "KeptScripts",
    "LockAll",
    "LockState",
    "NoteDevices",
    "PlansReloaded",
    "ReloadPlans",
    "Rules",
    "RunFunction",
    "RunScript",
    "SetEnvironment",
    "SetRules",
    "Task",
    "Tasks",
    "Unlock",
]


class SetEnvironment(Message, frozen=True, kw_only=True, tag="set_environment"):
    """Open, close, destroy or update what clients of bluesky-queueserver call the environment.

    Workers are always warm; `open` and `closed` is a mark that those clients see and set, and that nothing else heeds.
    `close` and `destroy` replace the workers; `destroy` also ends what runs. `update` lists plans anew.
    """

    action: Literal["open", "close", "destroy", "update"]


class RunScript(Message, frozen=True, kw_only=True, tag="run_script"):
    """Run Python text on the server, in a process of its own; answered with a Task at once.

    What it defines can be used by later items, functions and scripts, until the environment is closed.
    """

    script: str
    title: str = ""
    update_lists: bool = True
    """Offer the plans that it defines at once; else when plans are listed anew the next time."""


class RunFunction(Message, frozen=True, kw_only=True, tag="run_function"):
    """Call a function that the instrument's start-up files, or scripts run before, define; answered with a Task."""

    name: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}


class EndTask(Message, frozen=True, kw_only=True, tag="end_task"):
    """End a task: its clean-up may take two seconds, then its process is killed. Nothing happens if it has ended."""

    task_id: str


class GetTasks(Message, frozen=True, kw_only=True, tag="get_tasks"):
    """Ask for tasks, newest first; without ids for the latest ones."""

    task_ids: list[str] = []
    limit: int = 50


class LockAll(Message, frozen=True, kw_only=True, tag="lock"):
    """Lock the environment (control of runs and workers), the queue (its edits), or both, with a key and a reason.

    Reading is never locked, stopping neither.
    """

    key: str
    environment: bool = False
    queue: bool = False
    note: str = ""


class Unlock(Message, frozen=True, kw_only=True, tag="unlock"):
    """Take the lock away; `key` is the one it was locked with, or the emergency key."""

    key: str


class GetLock(Message, frozen=True, kw_only=True, tag="get_lock"):
    """Ask for the LockState; a `key` that is given must be right."""

    key: str = ""


class SetRules(Message, frozen=True, kw_only=True, tag="set_rules"):
    """Set who may do what (`user_groups`, as bluesky-queueserver has them); None reads the instrument's file again."""

    user_groups: dict[str, Any] | None = None


class GetRules(Message, frozen=True, kw_only=True, tag="get_rules"):
    """Ask for the Rules in force."""


class ReloadPlans(Message, frozen=True, kw_only=True, tag="reload_plans"):
    """Import one module of plans anew (`plans.scans`, a start-up file's name), or all; answered with PlansReloaded."""

    module: str = ""


class DeviceNote(msgspec.Struct, frozen=True, kw_only=True):
    """A command that a person gave a device past the queue, or that it failed."""

    time: float
    device: str
    """Its path; of the device file, the name of the entry."""
    verb: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    failure: str = ""
    """Why it was refused or failed; empty: it was sent."""


class NoteDevices(Message, frozen=True, kw_only=True, tag="note_devices"):
    """Have the command log tell what a person had devices do; they were told directly already."""

    notes: list[DeviceNote]


class Command(Message, frozen=True, kw_only=True, tag="command"):
    """What somebody asked of the scan server or of a device, and what became of it: a line of the command log."""

    time: float
    """When it was answered."""
    verb: str
    """The request's name on the wire, with its action if it has one: `add_item`, `control_run abort`, `device set`."""
    user: str
    user_group: str = ""
    host: str = ""
    program: str = ""
    """From which computer and by which program it was asked."""
    queue: str = ""
    asked: dict[str, Any] = {}
    """What the request says, without keys of locks; `{"cut": …}` is the beginning of what is very long."""
    outcome: str = "done"
    """done, refused or failed; `sent`: to a device, which tells of a failure in a record of its own."""
    code: str | None = None
    """Of a refusal."""
    answer: str = ""
    """Why it was refused or failed."""
    items: list[str] = []
    """Ids of the items that it made or changed."""


class LockState(Message, frozen=True, kw_only=True, tag="lock_state"):
    """What is locked, by whom and why; the key is not told."""

    environment: bool = False
    queue: bool = False
    user: str = ""
    note: str = ""
    time: float = 0.0
    has_emergency_key: bool = False


class Rules(Message, frozen=True, kw_only=True, tag="rules"):
    """Who may do what, as bluesky-queueserver's `user_groups`."""

    user_groups: dict[str, Any]
    revision: int = 0


class Task(Message, frozen=True, kw_only=True, tag="task"):
    """A script or a function that ran on the server, or runs."""

    task_id: str
    kind: Literal["script", "function", "update"]
    title: str = ""
    user: str = ""
    state: Literal["running", "completed", "failed"] = "running"
    reason: str = ""
    """One sentence of cause; empty unless it failed."""
    traceback: str = ""
    value: Any = None
    """What a function returned, if it can cross."""
    note: str = ""
    """One sentence on what is not as one might expect although it did not fail, e.g. a value that could not cross."""
    output: str = ""
    """The end of what it printed."""
    time_start: float = 0.0
    time_stop: float = 0.0


class KeptScript(Message, frozen=True, kw_only=True, tag="kept_script"):
    """A script that ran well and defines something: workers take that up after the start-up files."""

    script_id: str
    text: str
    title: str = ""
    user: str = ""
    time: float = 0.0


class KeptScripts(Message, frozen=True, kw_only=True, tag="kept_scripts"):
    """All of them, in the order in which they ran."""

    scripts: list[KeptScript] = []


class Tasks(Message, frozen=True, kw_only=True, tag="tasks"):
    """Tasks, newest first."""

    tasks: list[Task]


class PlansReloaded(Message, frozen=True, kw_only=True, tag="plans_reloaded"):
    """What importing plans anew brought; a module that could not be imported keeps its old plans."""

    added: list[str] = []
    changed: list[str] = []
    removed: list[str] = []
    problems: list[str] = []
