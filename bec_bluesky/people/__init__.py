"""Who may do what, and who did: rules of groups as bluesky-queueserver writes them, and the command log on disk.

Nothing here knows Redis.
"""

from bec_bluesky.people._command_file import CommandFile, Wanted
from bec_bluesky.people._patterns import DeviceNames, NamePatterns
from bec_bluesky.people._rules import DEFAULT_RULES, GroupRules, UserGroups

__all__ = ["DEFAULT_RULES", "CommandFile", "DeviceNames", "GroupRules", "NamePatterns", "UserGroups", "Wanted"]
