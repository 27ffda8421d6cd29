"""Who may do what, and who did: users, roles and keys, rules of groups, and the command log on disk.

Nothing here knows Redis.
"""

from bec_bluesky.people._book import ACCESS_TIME, PROVIDER, REFRESH_TIME, PeopleBook
from bec_bluesky.people._command_file import CommandFile, Wanted
from bec_bluesky.people._patterns import DeviceNames, NamePatterns
from bec_bluesky.people._principals import PUBLIC, SINGLE_USER, ApiKey, Principal, Session, User
from bec_bluesky.people._roles import ALL_SCOPES, ROLES, STOPPING, default_group, role_named
from bec_bluesky.people._rules import DEFAULT_RULES, GroupRules, UserGroups, device_facts

__all__ = [
    "ACCESS_TIME",
    "ALL_SCOPES",
    "DEFAULT_RULES",
    "PROVIDER",
    "PUBLIC",
    "REFRESH_TIME",
    "ROLES",
    "SINGLE_USER",
    "STOPPING",
    "ApiKey",
    "CommandFile",
    "DeviceNames",
    "GroupRules",
    "NamePatterns",
    "PeopleBook",
    "Principal",
    "Session",
    "User",
    "UserGroups",
    "Wanted",
    "default_group",
    "device_facts",
    "role_named",
]
