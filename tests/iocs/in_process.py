"""A stock RunEngine with the devices of `devices.yaml` in its own process: what the remote chain is compared with.

Started as a process, since EPICS' clients read their environment once and keep threads. Requests and answers are
pickled on its standard input and output.
"""

import asyncio
import contextlib
import importlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from bluesky import RunEngine
from bluesky.utils import FailedStatus

_DEADLINE = 60.0
_TYPES = {"float": float, "numpy:ndarray": np.ndarray}
_ROOT = Path(__file__).parents[2]


class InProcess:
    """The parent's side."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.iocs.in_process"],
            env=os.environ | environment,
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(self, plan: str, *args: Any, **kwargs: Any) -> tuple[list[tuple[str, Any]], BaseException | None]:
        """Run a plan, with devices by name; give its documents, and what it raised."""
        assert self._process.stdin is not None and self._process.stdout is not None
        pickle.dump((plan, args, kwargs), self._process.stdin)
        self._process.stdin.flush()
        return pickle.load(self._process.stdout)

    def end(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.kill()  # pyepics' threads may take their time
        self._process.wait()


def main(requests: BinaryIO, answers: BinaryIO) -> None:
    """Serve until the requests end."""
    import bluesky.plan_stubs
    import bluesky.plans

    from tests.iocs import plans

    RE = RunEngine({}, context_managers=[])
    devices = _Devices(RE.loop)
    places = (plans, bluesky.plans, bluesky.plan_stubs)
    for name, args, kwargs in _requests(requests):
        function = next(getattr(place, name) for place in places if hasattr(place, name))
        plan = function(*devices.in_place_of(args), **devices.in_place_of(kwargs))
        pickle.dump(_documents(RE, plan), answers)
        answers.flush()


def _documents(RE: RunEngine, plan: Any) -> tuple[list[tuple[str, Any]], BaseException | None]:
    documents: list[tuple[str, Any]] = []
    try:
        RE(plan, lambda name, document: documents.append((name, document)))
    except Exception as error:  # noqa: BLE001  # compared with what the queue says
        return documents, _without_surroundings(error)
    return documents, None


def _requests(stream: BinaryIO) -> Iterator[tuple[str, Any, Any]]:
    with contextlib.suppress(EOFError):
        while True:
            yield pickle.load(stream)


def _without_surroundings(error: BaseException) -> BaseException:
    """Keep of an error what can travel: its class and text; of a failed status, those of its cause."""
    cause = error.__cause__ if isinstance(error, FailedStatus) and error.__cause__ is not None else error
    return RuntimeError(f"{type(cause).__name__}: {cause}")


class _Devices:
    """The devices of the file, each made when a plan first names it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        from ruamel.yaml import YAML

        content = YAML(typ="safe").load(Path(__file__).with_name("devices.yaml"))
        self._entries: dict[str, Any] = content["devices"]
        self._loop = loop
        self._made: dict[str, Any] = {}

    def in_place_of(self, value: Any) -> Any:
        """Put devices where a value names them."""
        if isinstance(value, dict):
            return {key: self.in_place_of(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.in_place_of(each) for each in value]
        name, *parts = value.split(".") if isinstance(value, str) else (None,)
        if name not in self._entries:
            return value
        found = self._device(name)
        for part in parts:
            found = found[int(part)] if part.isdigit() else getattr(found, part)
        return found

    def _device(self, name: str) -> Any:
        if name not in self._made:
            coroutine = self._build(name, self._entries[name])
            self._made[name] = asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_DEADLINE)
        return self._made[name]

    async def _build(self, name: str, entry: Any) -> Any:
        module, _, class_ = entry["class"].partition(":")
        args = [_TYPES[each["$type"]] if isinstance(each, dict) else each for each in entry["args"]]
        device = getattr(importlib.import_module(module), class_)(*args, **entry.get("kwargs", {}), name=name)
        if hasattr(device, "connect"):
            await device.connect(timeout=_DEADLINE)
        else:
            await asyncio.to_thread(device.wait_for_connection, timeout=_DEADLINE)
        return device  # what `set:` sets stands in the IOC already: the device server has done so


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not come between
    main(sys.stdin.buffer, answers)
