"""Runs that earlier processes left open in the catalogue, and the closing of those whose documents are lost."""

import logging
from collections.abc import Iterable

from bec_bluesky.documents import Emit, RunProblem
from writers._tiled_pending import catalogued
from writers._tiled_server import TiledServer

__all__ = ["LeftRuns"]

_log = logging.getLogger(__name__)


class LeftRuns:
    """What one owner has begun and nobody ended. Asked and told under the writer's lock; `settle()` alone is not."""

    def __init__(self) -> None:
        self._found: set[str] | None = None
        """Those without a stop document; None before that was asked."""
        self._to_close: set[str] = set()
        """Those whose documents are lost."""

    @property
    def is_known(self) -> bool:
        """Whether the server was asked."""
        return self._found is not None

    @property
    def has_errands(self) -> bool:
        """Whether the server is to be asked, or a run to be closed."""
        return self._found is None or bool(self._to_close)

    def besides(self, runs: Iterable[str]) -> list[str]:
        """Give those that are not among `runs`."""
        return list((self._found or set()) - set(runs))

    def came(self, uid: str) -> None:
        """Note that documents of a run have come after all."""
        self._to_close.discard(uid)
        if self._found is not None:
            self._found.discard(uid)

    def lose(self, uid: str) -> bool:
        """Have a run closed; False if it is none of these."""
        if self._found is None or uid not in self._found:
            return False
        self._found.discard(uid)
        self._to_close.add(uid)
        return True

    def found(self, uids: set[str]) -> None:
        """Take what the server says is open."""
        self._found = uids

    def settle(self, server: TiledServer, emit: Emit) -> None:
        """Close the lost ones, and say so; if the server goes away, its error passes, and they are tried again."""
        for uid in list(self._to_close):
            server.allow_operation()
            try:
                if server.close_lost(uid):
                    emit(catalogued(server.uri, uid, server.scan_id(uid)))
            except Exception as error:  # whatever a server of somebody else's makes of it
                if server.has_gone(error):
                    raise
                text = f"a run whose documents are lost stays open in the catalogue: {type(error).__name__}: {error}"
                _log.warning(text, exc_info=error, extra={"run": uid})
                emit(RunProblem(run_uid=uid, source="tiled", text=text))
            self._to_close.discard(uid)
