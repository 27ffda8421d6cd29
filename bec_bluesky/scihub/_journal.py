"""The run log and its outbox, in one SQLite file: an entry and the place it came from are written together."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bec_bluesky.errors import SettingsError

__all__ = ["Entry", "Journal"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    uid TEXT PRIMARY KEY, scan_id INTEGER NOT NULL, plan TEXT NOT NULL, user TEXT NOT NULL,
    opened REAL NOT NULL, closed REAL, exit_status TEXT, documents INTEGER
);
CREATE INDEX IF NOT EXISTS runs_by_scan_id ON runs (scan_id);
CREATE TABLE IF NOT EXISTS files (
    run TEXT NOT NULL, writer TEXT NOT NULL, path TEXT NOT NULL, size INTEGER NOT NULL, problems TEXT NOT NULL,
    PRIMARY KEY (run, writer, path)
);
CREATE TABLE IF NOT EXISTS results (
    run TEXT NOT NULL, analysis TEXT NOT NULL, x TEXT NOT NULL, y TEXT NOT NULL, found TEXT NOT NULL,
    PRIMARY KEY (run, analysis, x, y)
);
CREATE TABLE IF NOT EXISTS outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT, connector TEXT NOT NULL, entry TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0, problem TEXT NOT NULL DEFAULT '',
    UNIQUE (connector, entry)
);
CREATE TABLE IF NOT EXISTS cursors (stream TEXT PRIMARY KEY, last TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Entry:
    """What a connector delivers: one event of a run, with an id that makes delivering it twice recognisable."""

    key: str
    """`<run uid>:<kind>`"""
    kind: str
    """run_closed, file_ready or result."""
    run: str
    facts: dict[str, Any]

    def to_json(self) -> str:
        """Give it as one line, the same for the same entry."""
        return json.dumps(vars(self), sort_keys=True, default=str, ensure_ascii=False)


class Journal:
    """The run log; used from one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self._path, isolation_level=None)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise SettingsError(
                f"the run log {self._path} cannot be written ({error}): set BEC_BLUESKY_DATA_DIR to another directory"
            ) from error
        return self

    def __exit__(self, *exc: object) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @property
    def connection(self) -> sqlite3.Connection:
        """The open database."""
        if self._connection is None:
            raise RuntimeError("the journal is not open: use `with Journal(…)`")
        return self._connection

    @contextmanager
    def together(self) -> Iterator[sqlite3.Connection]:
        """Write everything in the block or nothing."""
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def cursor(self, stream: str) -> str:
        """Give the id up to which a stream was taken in."""
        row = self.connection.execute("SELECT last FROM cursors WHERE stream = ?", (stream,)).fetchone()
        return row["last"] if row else "0-0"

    def opened(self, uid: str, scan_id: int, plan: str, user: str, time: float) -> None:
        """Note that a run was opened."""
        self.connection.execute(
            "INSERT OR IGNORE INTO runs (uid, scan_id, plan, user, opened) VALUES (?, ?, ?, ?, ?)",
            (uid, scan_id, plan, user, time),
        )

    def closed(self, uid: str, time: float, exit_status: str, documents: int) -> None:
        """Note that a run was closed."""
        self.connection.execute(
            "UPDATE runs SET closed = ?, exit_status = ?, documents = ? WHERE uid = ?",
            (time, exit_status, documents, uid),
        )

    def file(self, run: str, writer: str, path: str, size: int, problems: list[str]) -> None:
        """Note a file of a run."""
        self.connection.execute(
            "INSERT OR REPLACE INTO files (run, writer, path, size, problems) VALUES (?, ?, ?, ?, ?)",
            (run, writer, path, size, json.dumps(problems, ensure_ascii=False)),
        )

    def result(self, run: str, analysis: str, x: str, y: str, found: dict[str, Any]) -> None:
        """Note what an analysis found."""
        self.connection.execute(
            "INSERT OR REPLACE INTO results (run, analysis, x, y, found) VALUES (?, ?, ?, ?, ?)",
            (run, analysis, x, y, json.dumps(found, default=str)),
        )

    def move(self, stream: str, last: str) -> None:
        """Note how far a stream was taken in."""
        self.connection.execute("INSERT OR REPLACE INTO cursors (stream, last) VALUES (?, ?)", (stream, last))

    def post(self, connector: str, entry: Entry) -> None:
        """Put an entry into the outbox; the same entry is there once."""
        self.connection.execute(
            "INSERT OR IGNORE INTO outbox (connector, entry) VALUES (?, ?)", (connector, entry.to_json())
        )

    def due(self, connector: str, now: float, *, most: int = 100) -> list[tuple[int, Entry, int]]:
        """Give what is to be delivered now, oldest first: (number, entry, tries so far)."""
        rows = self.connection.execute(
            "SELECT number, entry, tries FROM outbox WHERE connector = ? AND due <= ? ORDER BY number LIMIT ?",
            (connector, now, most),
        )
        return [(row["number"], Entry(**json.loads(row["entry"])), row["tries"]) for row in rows]

    def delivered(self, number: int) -> None:
        """Take an entry out of the outbox."""
        self.connection.execute("DELETE FROM outbox WHERE number = ?", (number,))

    def postpone(self, number: int, due: float, problem: str) -> None:
        """Try an entry again later."""
        self.connection.execute(
            "UPDATE outbox SET tries = tries + 1, due = ?, problem = ? WHERE number = ?", (due, problem, number)
        )

    def waiting(self) -> int:
        """Count what is not delivered yet."""
        return int(self.connection.execute("SELECT count(*) FROM outbox").fetchone()[0])

    def run_facts(self, uid: str) -> dict[str, Any]:
        """Give the row of a run as a dict; empty if it is not known."""
        row = self.connection.execute("SELECT * FROM runs WHERE uid = ?", (uid,)).fetchone()
        return dict(row) if row else {}
