"""Who may do what: the rules of groups, applied to every request."""

from typing import Any

import msgspec

from bec_bluesky.bus import Bus
from bec_bluesky.channels import AROUND
from bec_bluesky.errors import BecBlueskyError, RefusedError
from bec_bluesky.log import logger
from bec_bluesky.messages.around_queue import EndTask, GetRules, Rules, RunFunction, RunScript, SetRules
from bec_bluesky.messages.queue import (
    AddItem,
    AddItems,
    ControlRun,
    EditItem,
    ExecuteItem,
    Request,
    RequestBody,
    SetQueueMode,
    StopQueue,
)
from bec_bluesky.people import DEFAULT_RULES, UserGroups, device_facts
from bec_bluesky.plugins import read_rules
from bec_bluesky.scan_server._devices import DeviceBook
from bec_bluesky.scan_server._item_devices import texts
from bec_bluesky.scan_server._requests import LOOKING
from bec_bluesky.scan_server._surroundings import Surroundings
from bec_bluesky.settings import Settings

__all__ = ["Permissions"]

_log = logger(__name__)
_FIELD = "rules"
_NOBODY: dict[str, Any] = {"user_groups": {"root": {}, "primary": {}}}
"""In force while the rules that should be cannot be read."""


class Permissions:
    """Keeps the rules in force: those that were set last, else the instrument's, else everything is allowed."""

    def __init__(self, bus: Bus, settings: Settings, devices: DeviceBook, around: Surroundings) -> None:
        self._bus, self._settings, self._devices, self._around = bus, settings, devices, around
        self._rules: dict[str, Any] = DEFAULT_RULES
        self._groups = UserGroups(DEFAULT_RULES)

    async def load(self) -> str:
        """Take up the rules; give what is wrong with them, if anything is."""
        try:
            kept = await self._bus.field(AROUND, _FIELD)
            self._use(msgspec.msgpack.decode(kept) if kept else self._of_instrument())
        except BecBlueskyError as error:
            self._use(_NOBODY)
            return f"rules of user groups cannot be used, nobody but people at the instrument may do anything: {error}"
        return ""

    def check(self, request: Request) -> None:
        """Raise RefusedError if a group may not do what is asked for; no group is a person at the instrument.

        Rules never keep anybody from stopping, whatever is wrong with them: the doors have seen that they may write.
        """
        group = request.user_group
        if not group or _stops(request.body):
            return
        if group not in self._groups:
            raise RefusedError(f"Unknown user group: '{group}'", "not_permitted")
        rules = self._groups.of(group)
        if not isinstance(request.body, LOOKING) and not all(each.is_open for each in rules):
            raise RefusedError(
                f"Users from {group!r} group may only look: no plan and no function is open to them", "not_permitted"
            )
        match request.body:
            case AddItem() as item:
                self._check_item(group, item)
            case AddItems(items=items):
                for item in items:
                    self._check_item(group, item)
            case EditItem(item=item) | ExecuteItem(item=item):
                self._check_item(group, item)
            case RunFunction(name=name):
                if not self._groups.is_function_allowed(group, name):
                    text = f"Function {name!r} is not allowed for users from {group!r} group."
                    raise RefusedError(text, "not_permitted")
            case RunScript() if group != "root" and not rules[1].is_unbound:
                raise RefusedError(
                    f"Users from {group!r} group may not run scripts: not everything is open to them", "not_permitted"
                )
            case SetRules() if group != "root":
                raise RefusedError(f"Users from {group!r} group may not set the rules", "not_permitted")
            case _:
                pass

    def _check_item(self, group: str, item: AddItem) -> None:
        if item.kind != "plan":
            return
        if not self._groups.is_plan_allowed(group, item.plan):
            raise RefusedError(f"Plan {item.plan!r} is not allowed for users from {group!r} group.", "not_permitted")
        for name in texts([item.args, item.kwargs]):
            info = self._devices.get(name)
            if info is not None and not self._groups.is_device_allowed(group, info.path, device_facts(info)):
                text = f"{item.plan}: device {name!r} is not allowed for users from {group!r} group."
                raise RefusedError(text, "not_permitted")

    async def set(self, asked: SetRules, request: Request) -> Rules:
        """Set the rules; None reads the instrument's again."""
        rules = self._of_instrument() if asked.user_groups is None else {"user_groups": asked.user_groups}
        groups = UserGroups(rules)
        if rules != self._rules:
            kept = b"" if asked.user_groups is None else msgspec.msgpack.encode(rules)
            await self._bus.put_raw_field(AROUND, _FIELD, kept)
            self._rules, self._groups = rules, groups
        self._around.rules_revision += 1
        _log.info("rules of user groups were set", extra={"user": request.user})
        return await self.get(GetRules(), request)

    async def get(self, asked: GetRules, request: Request) -> Rules:
        """Give the rules in force."""
        return Rules(user_groups=self._rules["user_groups"], revision=self._around.rules_revision)

    def _use(self, rules: dict[str, Any]) -> None:
        self._groups = UserGroups(rules)
        self._rules = rules

    def _of_instrument(self) -> dict[str, Any]:
        found = read_rules(self._settings)
        return DEFAULT_RULES if found is None else found


def _stops(body: RequestBody) -> bool:
    match body:
        case ControlRun(action=action):
            return action in ("pause", "pause_now", "finish", "stop", "abort", "halt")
        case StopQueue(cancel=cancel):
            return not cancel
        case SetQueueMode():
            return body == SetQueueMode(autostart=False)
        case _:
            return isinstance(body, EndTask)
