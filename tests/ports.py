"""Ports that stay free until a server takes them, however late that starts."""

import itertools
import os
import random
import socket
from collections.abc import Iterator

__all__ = ["free_ports"]

_FIRST, _EACH = 20_000, 1_500
"""Below what the kernel gives to outgoing connections, which would be first; a range for each of eight workers."""


def _candidates() -> Iterator[int]:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    first = _FIRST + int(worker) % 8 * _EACH
    begin = random.randrange(_EACH)  # for who else tests on this machine
    return (first + (begin + number) % _EACH for number in itertools.count())


_ports = _candidates()


def free_ports(count: int) -> list[int]:
    """Give ports of the loopback interface that are free, for TCP and for UDP, and that no other test here gets."""
    return list(itertools.islice(filter(_is_free, _ports), count))


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(type=kind) as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
