"""The one way into a run's stream of documents: compare, then append, in one script.

It writes only if the newest entry is the one that the writer believes in, and nothing once a newer scan server exists.
So repeating it is harmless, a gap or a second writer cannot come into being, and a run is announced together with its
first and its last document.
"""

import hashlib

from bec_bluesky.channels import EPOCH, RUNS, document_stream

__all__ = ["APPENDED", "FENCED", "GAP", "SCRIPT", "SHA", "arguments", "keys"]

APPENDED, GAP, FENCED = 1, 0, 2
"""First number of the answer; the second is the newest entry, or for FENCED the token of the other scan server."""

SCRIPT = """
local epoch = redis.call('GET', KEYS[1])
if epoch and tonumber(epoch) > tonumber(ARGV[1]) then return {2, tonumber(epoch)} end
local top = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
local last = 0
if top[1] then last = tonumber(string.match(top[1][1], '^%d+')) end
if last ~= tonumber(ARGV[2]) then return {0, last} end
if ARGV[3] ~= '' then redis.call('XADD', KEYS[3], '*', 'm', ARGV[3]) end
for i = 5, #ARGV, 2 do
  last = last + 1
  redis.call('XADD', KEYS[2], string.format('%d-0', last), 'n', ARGV[i], 'd', ARGV[i + 1])
end
if ARGV[4] ~= '' then redis.call('XADD', KEYS[3], '*', 'm', ARGV[4]) end
return {1, last}
"""
SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()


def keys(beamline: str, run_uid: str) -> list[str]:
    """Give the keys of the script for one run."""
    return [EPOCH.key(beamline), document_stream(beamline, run_uid), RUNS.key(beamline)]


def arguments(
    token: int, last: int, opened: bytes, closed: bytes, documents: list[tuple[str, bytes]]
) -> list[str | bytes | int]:
    """Give its arguments: `opened` and `closed` are announcements, empty for none."""
    flat: list[str | bytes | int] = [token, last, opened, closed]
    for name, data in documents:
        flat += (name, data)
    return flat
