"""Methods about the lists of plans and devices, and who may use them."""

from collections.abc import Callable, Mapping
from typing import Any

from bec_bluesky.errors import BadArgumentError
from bec_bluesky.messages.around_queue import GetRules, Rules, SetRules
from bec_bluesky.people import UserGroups
from bec_bluesky.queueserver._descriptions import allowed_devices, describe_devices, describe_plans
from bec_bluesky.queueserver._scan_server import ScanServerAccess

__all__ = ["ListMethods"]


class ListMethods:
    """`plans_…`, `devices_…`, `permissions_…`."""

    def __init__(self, access: ScanServerAccess) -> None:
        self._access = access
        self._made: dict[str, tuple[Any, dict[str, Any]]] = {}
        """{what: (for which ids, description)}"""

    async def plans(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Describe all plans."""
        uid = self._access.status()["plans_existing_uid"]
        return {"plans_existing": self._plans(), "plans_existing_uid": uid}

    async def devices(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Describe all devices."""
        uid = self._access.status()["devices_existing_uid"]
        return {"devices_existing": self._devices(), "devices_existing_uid": uid}

    async def plans_allowed(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Describe the plans that a group may run."""
        group, groups = await self._group(params)
        uid = self._access.status()["plans_allowed_uid"]

        def make() -> dict[str, Any]:
            return {name: each for name, each in self._plans().items() if groups.is_plan_allowed(group, name)}

        return {"plans_allowed": self._once(f"plans of {group}", uid, make), "plans_allowed_uid": uid}

    async def devices_allowed(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Describe the devices that a group may use."""
        group, groups = await self._group(params)
        uid = self._access.status()["devices_allowed_uid"]

        def make() -> dict[str, Any]:
            return allowed_devices(self._devices(), groups, group)

        return {"devices_allowed": self._once(f"devices of {group}", uid, make), "devices_allowed_uid": uid}

    # ── permissions ──

    async def permissions(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Give the rules in force."""
        return {"user_group_permissions": {"user_groups": (await self._rules()).user_groups}}

    async def set_permissions(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Set the rules."""
        if "user_group_permissions" not in params:
            raise BadArgumentError("Parameter 'user_group_permissions' is missing")
        rules = params["user_group_permissions"]
        UserGroups(rules)
        await self._access.change(SetRules(user_groups=rules["user_groups"]), params)
        return {}

    async def reload_permissions(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Read the rules of the instrument's file again."""
        if params.get("restore_permissions", True):
            await self._access.change(SetRules(), params)
        else:
            await self._access.check_key(params, "queue")
        return {}

    # ── parts ──

    async def _rules(self) -> Rules:
        return await self._access.ask(GetRules())

    async def _group(self, params: Mapping[str, Any]) -> tuple[str, UserGroups]:
        if "user_group" not in params:
            raise BadArgumentError("Incorrect request format: user group is not specified")
        group = params["user_group"]
        groups = UserGroups({"user_groups": (await self._rules()).user_groups})
        if not isinstance(group, str) or group not in groups:
            raise BadArgumentError(f"Unknown user group: '{group}'")
        return group, groups

    def _plans(self) -> dict[str, Any]:
        mirror = self._access.mirror
        return self._once("plans", mirror.plans_uid, lambda: describe_plans(mirror.plans))

    def _devices(self) -> dict[str, Any]:
        mirror = self._access.mirror
        return self._once("devices", mirror.devices_uid, lambda: describe_devices(mirror.devices))

    def _once(self, what: str, key: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Give what was made for the same ids, else make it."""
        known = self._made.get(what)
        if known is None or known[0] != key:
            known = self._made[what] = key, make()
        return known[1]
