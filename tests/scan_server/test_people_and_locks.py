"""Groups may do what their rules say and nothing else; a lock keeps out whoever has not its key."""

from pathlib import Path
from typing import Any

import pytest

from bec_bluesky.bus import Bus
from bec_bluesky.errors import RefusedError
from bec_bluesky.messages.around_queue import EndTask, GetLock, GetRules, LockAll, RunScript, SetRules, Unlock
from bec_bluesky.messages.queue import (
    AddItem,
    ClearQueue,
    ControlRun,
    GetQueue,
    GetStatus,
    Request,
    RequestBody,
    SetQueueMode,
    StartQueue,
    StopQueue,
)
from bec_bluesky.scan_server import ScanServer
from bec_bluesky.scan_server._permissions import Permissions
from bec_bluesky.scan_server._surroundings import Surroundings
from bec_bluesky.settings import Settings
from tests.scan_server.scan_server_harness import Client

GROUPS: dict[str, Any] = {
    "root": {"allowed_plans": [None], "allowed_devices": [None], "allowed_functions": [None]},
    "primary": {"allowed_plans": [None], "allowed_devices": [None], "allowed_functions": [None]},
    "chemists": {"allowed_plans": [":^count"], "allowed_devices": [":^det"]},
    "watchers": {},
}


def refused_by(permissions: Permissions, body: RequestBody, group: str) -> str:
    """Give the code of a refusal, or nothing."""
    request = Request(request_id="1", reply_to="c", deadline=0.0, user="ann", user_group=group, body=body)
    try:
        permissions.check(request)
    except RefusedError as refused:
        return refused.code
    return ""


@pytest.fixture
async def permissions(bus: Bus, settings: Settings) -> Permissions:
    permissions = Permissions(bus, settings, {}, Surroundings())  # pyright: ignore[reportArgumentType]  # no devices
    await permissions.set(
        SetRules(user_groups=GROUPS), Request(request_id="0", reply_to="c", deadline=0.0, user="ann", body=GetRules())
    )
    return permissions


async def test_a_group_that_nothing_is_open_to_may_only_look(permissions: Permissions) -> None:
    for looking in (GetStatus(), GetQueue(), GetLock(), GetRules()):
        assert refused_by(permissions, looking, "watchers") == ""
    resume = ControlRun(action="resume")
    edits = (ClearQueue(), LockAll(key="k", queue=True), SetQueueMode(loop=True))
    for writing in (*edits, StartQueue(), StopQueue(cancel=True), resume):
        assert refused_by(permissions, writing, "watchers") == "not_permitted", writing
        assert refused_by(permissions, writing, "chemists") == "", writing


async def test_rules_keep_nobody_from_stopping(permissions: Permissions) -> None:
    actions = [ControlRun(action=each) for each in ("pause", "pause_now", "finish", "stop", "abort", "halt")]
    for group in ("watchers", "chemists", "a group that was taken out of the rules"):
        for stopping in (*actions, StopQueue(), SetQueueMode(autostart=False), EndTask(task_id="t")):
            assert refused_by(permissions, stopping, group) == "", stopping
    assert refused_by(permissions, StartQueue(), "a group that was taken out of the rules") == "not_permitted"


async def test_no_group_but_root_gives_itself_other_rules(permissions: Permissions) -> None:
    for group in ("watchers", "chemists", "primary"):
        assert refused_by(permissions, SetRules(user_groups=GROUPS), group) == "not_permitted", group
    assert refused_by(permissions, SetRules(user_groups=GROUPS), "root") == ""
    assert refused_by(permissions, SetRules(user_groups=GROUPS), "") == ""


async def test_scripts_are_for_groups_that_everything_is_open_to(permissions: Permissions) -> None:
    assert refused_by(permissions, RunScript(script="1"), "chemists") == "not_permitted"
    assert refused_by(permissions, RunScript(script="1"), "primary") == ""


async def test_rules_that_cannot_be_read_close_everything_for_groups(
    bus: Bus, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "profile_collection").mkdir()
    (tmp_path / "profile_collection" / "user_group_permissions.yaml").write_text("user_groups: {primary: {}}")
    permissions = Permissions(bus, settings.with_(profile=tmp_path), {}, Surroundings())  # pyright: ignore[reportArgumentType]  # no devices
    assert "root" in await permissions.load()
    assert refused_by(permissions, AddItem(plan="count"), "primary") == "not_permitted"
    assert refused_by(permissions, ControlRun(action="abort"), "primary") == ""
    assert refused_by(permissions, AddItem(plan="count"), "") == ""


async def test_autostart_in_the_same_request_does_not_carry_an_edit_past_the_lock(
    server: ScanServer, client: Client
) -> None:
    await client.ask(LockAll(key="k", queue=True, note="alignment"))
    for autostart in (True, False):
        with pytest.raises(RefusedError, match="alignment") as refused:
            await client.ask(SetQueueMode(loop=True, autostart=autostart))
        assert refused.value.code == "locked"
    assert not (await client.status()).loop
    await client.ask(SetQueueMode(autostart=False))
    await client.ask(Unlock(key="k"))
    await client.ask(SetQueueMode(loop=True))
