"""Who may do what: rules of groups, as bluesky-queueserver writes them. Pure; nothing here knows Redis."""

from bec_bluesky.people._patterns import DeviceNames, NamePatterns
from bec_bluesky.people._rules import DEFAULT_RULES, GroupRules, UserGroups

__all__ = ["DEFAULT_RULES", "DeviceNames", "GroupRules", "NamePatterns", "UserGroups"]
