"""Documents through the profile's callbacks and writers once more, without a running system."""

import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from bec_bluesky import plugins
from bec_bluesky.documents._callback import Document, Emit, RunCallback
from bec_bluesky.documents._file_list import FileList
from bec_bluesky.documents._host import make_callback, option_words, replaced
from bec_bluesky.errors import RefusedError, choices
from bec_bluesky.plugins import Hosted
from bec_bluesky.settings import Settings

__all__ = ["replay"]

_TICK = 0.1
"""Seconds between two ticks of the callbacks."""


def replay(
    settings: Settings,
    documents: Iterable[tuple[str, Document]],
    *,
    emit: Emit,
    only: Collection[str] | None = None,
    directory: Path | None = None,
    at_speed: bool = False,
    offline: bool = False,
    outward: bool = False,
    timeout: float = 60.0,
) -> list[str]:
    """Feed documents to the callbacks that `profile.toml` hosts (`only` those named); give the uids of the runs.

    `emit` gets what they make. `directory` takes the place of `{files_dir}`; files there are not among those of the
    system's runs. `at_speed` keeps the time between documents as it was. `offline` leaves out those that need a running
    system, unless `only` names them. What follows a complete file (copies, a move, commands) is done only with
    `outward`. Raises RefusedError for a name that the profile does not have, and if a writer has not stored a run
    within `timeout` seconds; errors of callbacks pass through.
    """
    plugins.mount(settings)
    profile = plugins.read_profile(settings)
    names = [hosted.name for hosted in profile.hosted]
    for name in only or ():
        if name not in names:
            raise RefusedError(f"{profile.path} hosts no {name!r}: {choices(name, names)}", "unknown_callback")
    words = option_words(settings, files=directory)
    if directory is None:
        emit = FileList(settings.file_list).noting(emit)
    callbacks = [
        make_callback(hosted, replaced(_options(hosted, outward=outward), words), emit)
        for hosted in profile.hosted
        if only is None or hosted.name in only
    ]
    fed = [callback for callback in callbacks if callback.is_offline or only is not None or not offline]
    try:
        runs = _feed(fed, documents, at_speed=at_speed)
        _wait_until_stored(fed, runs, timeout)
        return runs
    finally:
        for callback in callbacks:
            callback.close()


def _options(hosted: Hosted, *, outward: bool) -> dict[str, Any]:
    """Give the options of the profile, without those that act on more than the callback's own files unless asked."""
    left_out = () if outward else getattr(plugins.load_object(hosted.use), "outward_options", ())
    return {name: value for name, value in hosted.options.items() if name not in left_out}


def _feed(callbacks: list[RunCallback], documents: Iterable[tuple[str, Document]], *, at_speed: bool) -> list[str]:
    runs: list[str] = []
    ticked = time.monotonic()
    clock = _Clock() if at_speed else None
    for name, document in documents:
        if clock is not None:
            clock.wait_for(document, lambda: _tick(callbacks))
        if name == "start":
            runs.append(str(document["uid"]))
        for callback in callbacks:
            callback(name, document)
        if time.monotonic() - ticked > _TICK:
            _tick(callbacks)
            ticked = time.monotonic()
    _tick(callbacks)
    return runs


def _tick(callbacks: list[RunCallback]) -> None:
    for callback in callbacks:
        callback.tick()


def _wait_until_stored(callbacks: list[RunCallback], runs: list[str], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    for callback in callbacks:
        for run in runs:
            while run not in callback.open_runs and not callback.is_stored(run):
                if time.monotonic() > deadline:
                    raise RefusedError(
                        f"{type(callback).__name__} has not stored run {run[:8]} within {timeout:g} s: does what it "
                        "writes to answer?",
                        "not_stored",
                    )
                callback.tick()
                time.sleep(_TICK / 2)


class _Clock:
    """Lets as much time pass between two documents as passed when they were emitted."""

    def __init__(self) -> None:
        self._ahead: float | None = None

    def wait_for(self, document: Document, meanwhile: Any) -> None:
        """Wait until it is time for this document; those without a time come at once."""
        then = document.get("time")
        if not isinstance(then, int | float):
            return
        if self._ahead is None:
            self._ahead = time.time() - then
        while (left := then + self._ahead - time.time()) > 0:
            time.sleep(min(left, _TICK))
            meanwhile()
