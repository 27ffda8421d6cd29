"""The status as bluesky-queueserver gives it: 27 fields."""

from datetime import datetime
from typing import Any

from bec_bluesky import __version__
from bec_bluesky.messages.queue import ScanServerStatus
from bec_bluesky.queueserver._mirror import Mirror, uid_of

__all__ = ["MESSAGE", "manager_state", "status_of"]

MESSAGE = f"RE Manager v0.0.25 (bec-bluesky {__version__})"
"""Clients tell by its beginning which interface they talk to."""
_ENVIRONMENT = {
    "opening": "creating_environment",
    "closing": "closing_environment",
    "destroying": "destroying_environment",
}
_WORKER = {"opening": "initializing", "closing": "closing", "destroying": "closing", "closed": "closed"}
_RE = {"no_worker": "idle", "starting": "idle"}


def manager_state(status: ScanServerStatus | None, foreground: bool) -> str:
    """Give the word for what goes on; `foreground`: whether a task runs for which the queue waits."""
    if status is None:
        return "initializing"
    if status.environment in _ENVIRONMENT:
        return _ENVIRONMENT[status.environment]
    if status.running is not None:
        return "paused" if status.run_state == "paused" else "executing_queue"
    if foreground:
        return "executing_task"
    return "starting_queue" if status.queue_state == "running" else "idle"


def status_of(mirror: Mirror, *, foreground: bool, pause_pending: bool) -> dict[str, Any]:
    """Write the status."""
    status = mirror.status
    state = manager_state(status, foreground)
    if status is None:
        status = ScanServerStatus(time=0.0, queue_state="stopped", run_state="no_worker", waiting=0)
    running = status.running
    has_environment = status.environment not in ("closed", "opening")
    worker = _WORKER.get(status.environment)
    if worker is None:
        worker = "executing_plan" if running is not None else "executing_task" if foreground else "idle"
    lock = status.lock
    written: dict[str, Any] = {
        "msg": MESSAGE,
        "items_in_queue": status.waiting,
        "items_in_history": mirror.history_size,
        "running_item_uid": None if running is None else running.item_id,
        "manager_state": state,
        "queue_stop_pending": status.queue_state == "stopping",
        "queue_autostart_enabled": status.autostart,
        "worker_environment_exists": has_environment,
        "worker_environment_state": worker,
        "worker_background_tasks": max(0, status.tasks - foreground),
        "re_state": _RE.get(status.run_state, status.run_state) if has_environment else None,
        "ip_kernel_state": "disabled" if has_environment else None,
        "ip_kernel_captured": True if has_environment else None,
        "pause_pending": pause_pending,
        "run_list_uid": uid_of("runs", [(run.uid, run.is_open, run.exit_status) for run in status.runs]),
        "plan_queue_uid": mirror.queue_uid,
        "plan_history_uid": mirror.history_uid,
        "devices_existing_uid": mirror.devices_uid,
        "plans_existing_uid": mirror.plans_uid,
        "devices_allowed_uid": uid_of("allowed", mirror.devices_uid, status.rules_revision),
        "plans_allowed_uid": uid_of("allowed", mirror.plans_uid, status.rules_revision),
        "plan_queue_mode": {"loop": status.loop, "ignore_failures": status.ignore_failures},
        "task_results_uid": uid_of("tasks", status.tasks_revision),
        "lock_info_uid": uid_of("lock", lock),
        "lock": {
            "environment": lock is not None and lock.environment,
            "queue": lock is not None and lock.queue,
        },
    }
    return written | {
        "status_uid": uid_of(sorted(written.items(), key=lambda each: each[0])),
        "time": datetime.now().isoformat(),
    }
