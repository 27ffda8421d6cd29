"""Rules of user groups: which plans, devices and functions each may use."""

from collections.abc import Mapping
from typing import Any

from bec_bluesky.errors import BadArgumentError, choices
from bec_bluesky.messages.devices import DeviceInfo
from bec_bluesky.people._patterns import DeviceNames, NamePatterns

__all__ = ["DEFAULT_RULES", "GroupRules", "UserGroups", "device_facts"]

_ROOT = "root"
_KEYS = tuple(f"{verb}_{what}" for what in ("plans", "devices", "functions") for verb in ("allowed", "forbidden"))
_NAMED = ("plans", "functions")
_HIDDEN = {"plans": ":^_", "devices": ":^_:?.*", "functions": ":^_"}
DEFAULT_RULES: dict[str, Any] = {
    "user_groups": {
        _ROOT: {f"allowed_{what}": [None] for what in _HIDDEN}
        | {f"forbidden_{what}": [pattern] for what, pattern in _HIDDEN.items()},
        "primary": {f"allowed_{what}": [None] for what in _HIDDEN} | {f"forbidden_{what}": [None] for what in _HIDDEN},
    }
}
"""Everything whose name does not begin with an underscore."""


class GroupRules:
    """What one group may use, leaving out what bounds all groups."""

    def __init__(self, name: str, rules: Mapping[str, Any]) -> None:
        """Read the rules; raises BadArgumentError that names what is wrong."""
        self.name = name
        lists: dict[str, list[Any]] = {}
        for key, patterns in rules.items():
            if key not in _KEYS:
                raise BadArgumentError(f"user group {name!r} has no {key!r}: {choices(key, _KEYS)}")
            if not isinstance(patterns, list) or None in patterns[1:]:
                raise BadArgumentError(
                    f"user group {name!r}, {key}: {patterns!r} must be a list of patterns; null may be the first"
                )
            lists[key] = patterns
        self._lists = lists
        try:
            self._plans = [NamePatterns(lists.get(f"{verb}_plans", [])) for verb in ("allowed", "forbidden")]
            self._functions = [NamePatterns(lists.get(f"{verb}_functions", [])) for verb in ("allowed", "forbidden")]
            devices = [lists.get(f"{verb}_devices", []) for verb in ("allowed", "forbidden")]
            self._all_devices = bool(devices[0]) and devices[0][0] is None
            self._devices = [[DeviceNames(each) for each in of if each is not None] for of in devices]
        except ValueError as error:
            raise BadArgumentError(f"user group {name!r}: {error}") from None

    def is_plan_allowed(self, name: str) -> bool:
        return _is_allowed(self._plans, name)

    def is_function_allowed(self, name: str) -> bool:
        return _is_allowed(self._functions, name)

    @property
    def is_open(self) -> bool:
        """Whether any plan or function is open to the group: else it may only look."""
        return any(self._lists.get(f"allowed_{what}") for what in _NAMED)

    @property
    def is_unbound(self) -> bool:
        """Whether everything is open to the group (null) and nothing forbidden: only then may it run Python text."""
        return all(
            self._lists.get(f"allowed_{what}", [])[:1] == [None]
            and self._lists.get(f"forbidden_{what}", []) in ([], [None])
            for what in _HIDDEN
        )

    def is_device_allowed(self, path: str, facts: Mapping[str, Any]) -> bool:
        """Tell for a dotted path; `facts` say is_readable, is_movable, is_flyable."""
        allowed, forbidden = self._devices
        is_allowed = self._all_devices or any(each.match(path, facts) for each in allowed)
        return is_allowed and not any(each.match(path, facts) for each in forbidden)


def device_facts(info: DeviceInfo) -> dict[str, bool]:
    """Give what rules ask of a device."""
    return {
        "is_readable": "Readable" in info.protocols,
        "is_movable": "Movable" in info.protocols,
        "is_flyable": "Flyable" in info.protocols,
    }


def _is_allowed(patterns: list[NamePatterns], name: str) -> bool:
    allowed, forbidden = patterns
    return (allowed.is_everything or allowed.match(name)) and not forbidden.match(name)


class UserGroups:
    """All groups; `root` bounds every other one."""

    def __init__(self, rules: Mapping[str, Any]) -> None:
        """Read `{"user_groups": {name: {allowed_plans: […], …}}}`; raises BadArgumentError that says what is wrong."""
        groups = rules.get("user_groups") if isinstance(rules, Mapping) else None  # pyright: ignore[reportUnnecessaryIsInstance]  # whatever was given
        if not isinstance(groups, Mapping):
            raise BadArgumentError("Rules must be a dictionary with 'user_groups', a dictionary of groups")
        extra = [key for key in rules if key != "user_groups"]
        if extra:
            raise BadArgumentError(f"Rules have no {extra[0]!r}: there is 'user_groups' only")
        if _ROOT not in groups:
            raise BadArgumentError(f"'user_groups' need the group {_ROOT!r}, which bounds all others")
        if len(groups) < 2:
            raise BadArgumentError(f"'user_groups' need at least one group besides {_ROOT!r}")
        for name, each in groups.items():
            if not isinstance(each, Mapping):
                raise BadArgumentError(f"user group {name!r} must be a dictionary of lists, it is {each!r}")
        self._groups = {str(name): GroupRules(str(name), each) for name, each in groups.items()}

    def __contains__(self, group: object) -> bool:
        return group in self._groups

    def of(self, group: str) -> tuple[GroupRules, GroupRules]:
        """Give the rules that bound a group, and its own; raises BadArgumentError if there is none of that name."""
        if group not in self._groups:
            raise BadArgumentError(f"Unknown user group: '{group}'")
        return self._groups[_ROOT], self._groups[group]

    def is_plan_allowed(self, group: str, name: str) -> bool:
        return all(each.is_plan_allowed(name) for each in self.of(group))

    def is_function_allowed(self, group: str, name: str) -> bool:
        return all(each.is_function_allowed(name) for each in self.of(group))

    def is_device_allowed(self, group: str, path: str, facts: Mapping[str, Any]) -> bool:
        """Tell for a dotted path; `facts` say is_readable, is_movable, is_flyable."""
        return all(each.is_device_allowed(path, facts) for each in self.of(group))
