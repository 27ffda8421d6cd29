"""An index of the history in a SQLite file: which entries of the stream are those that are asked for.

The stream on Redis is the history. The file is made from it, and may be deleted at any time. An entry `<ms>-<number>`
has the key `ms * 10**6 + number`.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path

from bec_bluesky.messages.queue import GetHistory, QueueItem
from bec_bluesky.scan_server._history_words import bounds, queue_of, status_of, text_of, words_of

__all__ = ["HistoryIndex"]

_VERSION = 1
"""Of the tables below; a file of another one is made anew."""
_PART = 10**6
_LAST_KEY = 2**63 - 1
_LAST_LETTER = "\U0010ffff"
_TRIGRAM = 3
"""Letters of the shortest word that the index of texts finds; shorter ones are looked for in the texts."""
_FEW = 1000
"""Items whose texts are looked through one by one rather than by their index."""
_BUSY = 1.0
"""Seconds for which another process that writes is waited for."""
_FACETS = ("plan", "user", "sample", "status", "queue")
_CREATE = (
    "CREATE TABLE items"
    " (key INTEGER PRIMARY KEY, item_id TEXT, plan TEXT, user TEXT, sample TEXT, status TEXT, queue TEXT)",
    "CREATE TABLE texts (key INTEGER PRIMARY KEY, text TEXT)",
    "CREATE TABLE runs (key INTEGER, run_uid TEXT, scan_id INTEGER)",
    "CREATE VIRTUAL TABLE words USING fts5"
    " (text, content='texts', content_rowid='key', tokenize='trigram case_sensitive 1', columnsize=0)",
    *(
        f"CREATE INDEX items_{name} ON items ({name})"
        for name in ("item_id", "plan", "user", "sample", "status", "queue")
    ),
    *(f"CREATE INDEX runs_{name} ON runs ({name})" for name in ("run_uid", "scan_id")),
    f"PRAGMA user_version = {_VERSION}",
)

_Fact = tuple[str, *tuple[str | int, ...]]
"""A condition, and its values."""


class HistoryIndex:
    """The file. Calls of several threads wait for each other; raises sqlite3's errors.

    It needs FTS5 with trigrams, of SQLite 3.34 and newer.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()  # whoever cancels a call goes on while its thread is still in SQLite
        self._opened: sqlite3.Connection | None = None

    def last(self) -> tuple[str, str] | None:
        """Give the newest entry that is in it, and its item's id."""
        with self._lock:
            row = self._database.execute("SELECT key, item_id FROM items ORDER BY key DESC LIMIT 1").fetchone()
        return None if row is None else (_id_of(row[0]), row[1])

    def add(self, entries: Iterable[tuple[str, QueueItem]]) -> None:
        """Add entries that are newer than those in it; others are left out: another process may have added them."""
        with self._lock, self._database as database:
            database.execute("BEGIN IMMEDIATE")
            last = database.execute("SELECT coalesce(max(key), -1) FROM items").fetchone()[0]
            new = [(key, item) for stream_id, item in entries if (key := _key_of(stream_id)) > last]
            database.executemany(
                "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?)",
                ((key, i.item_id, i.plan, i.user, i.sample, status_of(i), queue_of(i)) for key, i in new),
            )
            texts = [(key, text_of(item)) for key, item in new]
            database.executemany("INSERT INTO texts VALUES (?, ?)", texts)
            database.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", texts)
            results = [(key, item.result) for key, item in new if item.result is not None]
            database.executemany(
                "INSERT INTO runs VALUES (?, ?, ?)",
                ((key, *run) for key, r in results for run in zip(r.run_uids, r.scan_ids, strict=False)),
            )

    def find(self, asked: GetHistory, before: str | None, limit: int) -> list[str]:
        """Give ids of entries, newest first, that are older than `before`."""
        with self._lock:
            return self._find(asked, before, limit)

    def _find(self, asked: GetHistory, before: str | None, limit: int) -> list[str]:
        facts = _facts(asked)
        words = words_of(asked)
        indexed = [word for word in words if len(word) >= _TRIGRAM]
        if indexed and facts and self._are_few(facts):
            indexed = []
        looked_for = [word for word in words if not indexed or len(word) < _TRIGRAM]
        tables, key = ("words", "words.rowid") if indexed else ("items", "items.key")
        if indexed and facts:
            tables += " CROSS JOIN items ON items.key = words.rowid"
        if looked_for:
            tables += f" CROSS JOIN texts ON texts.key = {key}"
        if indexed:
            facts.append(("words MATCH ?", " ".join('"{}"'.format(word.replace('"', '""')) for word in indexed)))
        facts += [("instr(texts.text, ?)", word) for word in looked_for]
        facts.append((f"{key} BETWEEN ? AND ?", *_keys(asked, before)))
        rows = self._select(f"SELECT {key} FROM {tables} WHERE {_all(facts)} ORDER BY {key} DESC LIMIT {limit}", facts)
        return [_id_of(key) for (key,) in rows]

    def _are_few(self, facts: list[_Fact]) -> bool:
        some = f"SELECT 1 FROM items WHERE {_all(facts)} LIMIT {_FEW + 1}"
        return self._select(f"SELECT count(*) FROM ({some})", facts)[0][0] <= _FEW

    def _select(self, statement: str, facts: list[_Fact]) -> list[tuple[int]]:
        return self._database.execute(statement, [value for _, *values in facts for value in values]).fetchall()

    @property
    def _database(self) -> sqlite3.Connection:
        if self._opened is None:
            self._opened = self._connect()
            if self._opened.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                self.clear()
        return self._opened

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
        database.execute("PRAGMA synchronous = NORMAL")
        return database

    def clear(self) -> None:
        """Make the file anew, with nothing in it."""
        with self._lock:
            self.close()
            for suffix in ("", "-journal"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
            self._opened = self._connect()
            with self._opened as database:
                database.execute("BEGIN IMMEDIATE")
                for statement in _CREATE:
                    database.execute(statement)

    def close(self) -> None:
        """Close the file, once no call is in it; the next use opens it."""
        with self._lock:
            if self._opened is not None:
                with contextlib.suppress(sqlite3.Error):
                    self._opened.close()
                self._opened = None


def _facts(asked: GetHistory) -> list[_Fact]:
    """Give conditions on the table of items."""
    facts: list[_Fact] = [(f"items.{name} = ?", value) for name in _FACETS if (value := getattr(asked, name))]
    if asked.item_id:
        keys = "SELECT key FROM items WHERE item_id BETWEEN ? AND ?"
        facts.append((f"items.key IN ({keys})", asked.item_id, asked.item_id + _LAST_LETTER))
    if asked.run_uid:
        keys = "SELECT key FROM runs WHERE run_uid BETWEEN ? AND ?"
        facts.append((f"items.key IN ({keys})", asked.run_uid, asked.run_uid + _LAST_LETTER))
    if asked.scan_id is not None:
        facts.append(("items.key IN (SELECT key FROM runs WHERE scan_id = ?)", asked.scan_id))
    return facts


def _all(facts: list[_Fact]) -> str:
    return " AND ".join(condition for condition, *_ in facts)


def _keys(asked: GetHistory, before: str | None) -> tuple[int, int]:
    """Give the first and the last key that the bounds of time and the cursor allow."""
    oldest, newest = bounds(asked)
    first = 0 if oldest == "-" else _key_of(f"{oldest}-0")
    last = _LAST_KEY if newest == "+" else _key_of(f"{newest}-{_PART - 1}")
    return first, last if before is None else min(last, _key_of(before) - 1)


def _key_of(stream_id: str) -> int:
    milliseconds, _, number = stream_id.partition("-")
    return min(int(milliseconds) * _PART + int(number), _LAST_KEY)


def _id_of(key: int) -> str:
    return f"{key // _PART}-{key % _PART}"
