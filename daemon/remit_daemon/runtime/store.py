"""The daemon's own memory: sessions, prompts, grants, what counts against limits, and trusted projects, in one SQLite file.

Records are kept as JSON under their id. Every event's changes are one transaction, committed before anything is
answered, so that a killed daemon comes back with the same prompts under the same ids.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from remit_daemon.broker.events import Drop, Store
from remit_daemon.broker.records import (
    Account,
    Grant,
    Prompt,
    Session,
    account_of,
    grant_of,
    prompt_of,
    session_of,
    to_json,
)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS session (id TEXT PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS prompt (id TEXT PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS grant_ (id TEXT PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS account (id TEXT PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trust (dir BLOB PRIMARY KEY, digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""
KEPT_SESSIONS = 500  # ended ones beyond this are forgotten; the ledger has them
_TABLES = {"session": "session", "prompt": "prompt", "grant": "grant_", "account": "account"}


class StoreError(Exception):
    """The store cannot be read or written."""


class Memory:
    """The open store; one connection, used from the event loop only."""

    def __init__(self, path: str) -> None:
        """Open or create the file ``path``. Raises StoreError."""
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as e:
            raise StoreError(f"cannot open {path}: {e}") from None

    def load(self) -> tuple[list[Session], list[Prompt], list[Grant]]:
        """Return everything that is kept, oldest first. Raises StoreError on a record that cannot be read."""
        try:
            sessions = [session_of(t) for t in self._texts("session")]
            prompts = [prompt_of(t) for t in self._texts("prompt")]
            grants = [grant_of(t) for t in self._texts("grant")]
        except (sqlite3.Error, ValueError, KeyError, TypeError) as e:
            raise StoreError(f"the store holds a record that cannot be read: {e}") from None
        sessions.sort(key=lambda s: s.started)
        ended = [s for s in sessions if not s.live]
        for old in ended[: max(0, len(ended) - KEPT_SESSIONS)]:
            self._db.execute("DELETE FROM session WHERE id = ?", (old.id,))
            sessions.remove(old)
        return sessions, sorted(prompts, key=_number), sorted(grants, key=_number)

    def accounts(self) -> list[Account]:
        """Return what counts against limits. Raises StoreError on a record that cannot be read."""
        try:
            return [account_of(t) for t in self._texts("account")]
        except (sqlite3.Error, ValueError, KeyError, TypeError) as e:
            raise StoreError(f"the store holds an account that cannot be read: {e}") from None

    def _texts(self, kind: str) -> list[str]:
        return [t for (t,) in self._db.execute(f"SELECT record FROM {_TABLES[kind]}")]  # noqa: S608

    def counter(self, name: str) -> int:
        """Return the highest number ever given to a ``prompt`` or ``grant``."""
        row = self._db.execute("SELECT value FROM counter WHERE name = ?", (name,)).fetchone()
        return int(row[0]) if row else 0

    def keep(self, changes: Iterable[Store | Drop]) -> None:
        """Make ``changes`` durable, all or none. Raises StoreError."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for change in changes:
                if isinstance(change, Drop):
                    self._db.execute(f"DELETE FROM {_TABLES[change.kind]} WHERE id = ?", (change.id,))  # noqa: S608
                    continue
                record = change.record
                kind = type(record).__name__.lower()
                sql = f"INSERT OR REPLACE INTO {_TABLES[kind]} VALUES (?, ?)"  # noqa: S608
                self._db.execute(sql, (record.id, to_json(record)))
                if isinstance(record, (Prompt, Grant)):
                    self._db.execute(
                        "INSERT INTO counter VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET value = max(value, excluded.value)",
                        (kind, _number(record)),
                    )
            self._db.execute("COMMIT")
        except sqlite3.Error as e:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise StoreError(f"cannot write the store: {e}") from None

    def trust(self, directory: str, digest: str) -> None:
        """Remember that the project file of ``directory`` is trusted while its digest is ``digest``."""
        try:
            self._db.execute("INSERT OR REPLACE INTO trust VALUES (?, ?)", (_raw(directory), digest))
        except sqlite3.Error as e:
            raise StoreError(f"cannot write the store: {e}") from None

    def trusted(self, directory: str) -> str:
        """Return the trusted digest of ``directory``, or ""."""
        row = self._db.execute("SELECT digest FROM trust WHERE dir = ?", (_raw(directory),)).fetchone()
        return str(row[0]) if row else ""

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _raw(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _number(record: Prompt | Grant) -> int:
    return int(record.id[1:])
