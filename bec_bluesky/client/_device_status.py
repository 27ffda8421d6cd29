"""What `set`, `trigger` … give to a person: wait for it, look at it, stop it."""

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bec_bluesky.proxy import RemoteStatus

if TYPE_CHECKING:
    from bec_bluesky.client._device import Device

__all__ = ["DeviceStatus", "fraction_of"]


class DeviceStatus(RemoteStatus):
    """Something under way on a device, or its end.

    `done`, `success` and `exception()` tell; `wait(timeout)` waits, and raises what went wrong. Callbacks and watchers
    run in the thread of the client's loop, where nothing may wait.
    """

    def __init__(self, device: "Device", verb: str, args: tuple[Any, ...]) -> None:
        link = device.link
        super().__init__(link, link.device(device.path), verb, args)
        self._of = device
        self._reported: dict[str, Any] = {}
        self.watch(self._note)

    def _note(self, **progress: Any) -> None:
        self._reported = progress

    @property
    def progress(self) -> float | None:
        """How much of it is done, 0 to 1; None as long as the device does not say."""
        return 1.0 if self.success else fraction_of(self._reported)

    def stop(self) -> None:
        """Stop the device; this then fails."""
        self._of.stop()

    def wait_and_show(self, timeout: float | None = None, console: Console | None = None) -> None:
        """Do as `wait` does, with a bar on a terminal as long as the device reports progress (0.1 s and longer)."""
        console = console or Console(stderr=True)
        if console.is_terminal:
            with _Bar(console, self):
                self.wait(timeout)
        else:
            self.wait(timeout)


class _Bar:
    """One line that shows a status as it proceeds, and vanishes with its end."""

    def __init__(self, console: Console, status: DeviceStatus) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True
        )
        self._lock = threading.Lock()
        self._task: TaskID | None = None
        self._is_over = False
        self._name = status.device.path
        status.watch(self._proceed)

    def __enter__(self) -> None: ...

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._is_over = True
            if self._task is not None:
                self._progress.stop()

    def _proceed(self, **progress: Any) -> None:
        with self._lock:
            if self._is_over:
                return
            if self._task is None:
                self._task = self._progress.add_task(self._name, total=1.0)
                self._progress.start()
            self._progress.update(self._task, completed=fraction_of(progress), description=self._text(progress))

    def _text(self, progress: dict[str, Any]) -> str:
        text = self._name
        with contextlib.suppress(KeyError, TypeError, ValueError):  # a device may report what it likes
            text += f" {progress['current']:.6g} → {progress['target']:.6g} {progress.get('unit') or ''}"
        return text.rstrip()


def fraction_of(progress: dict[str, Any]) -> float | None:
    """Compute the part that is done from the keywords of `Status.watch`; None if they do not tell."""
    try:
        whole = abs(progress["target"] - progress["initial"])
        left = abs(progress["target"] - progress["current"])
    except (KeyError, TypeError):
        return None
    return 1.0 if not whole else float(min(1.0, max(0.0, 1.0 - left / whole)))
