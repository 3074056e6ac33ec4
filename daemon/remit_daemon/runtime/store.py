"""The daemon's own memory: sessions, prompts, grants, what counts against limits, known agents, organisation keys and trusted
projects, in one SQLite file.

Records are kept as JSON under their id. Every event's changes are one transaction, committed before anything is
answered, so that a killed daemon comes back with the same prompts under the same ids.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from remit_daemon.broker import agents
from remit_daemon.broker.agents import KnownAgent, of_json
from remit_daemon.broker.events import Drop, Store
from remit_daemon.broker.records import (
    Account,
    Grant,
    Prompt,
    Session,
    Standing,
    account_of,
    grant_of,
    prompt_of,
    session_of,
    standing_of,
    to_json,
)
from remit_daemon.tokens.keys import Key, key_of
from remit_daemon.tokens.keys import to_json as key_json

_SCHEMA = """
CREATE TABLE IF NOT EXISTS session (id TEXT PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS prompt (id TEXT PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS grant_ (id TEXT PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS account (id TEXT PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS key (id TEXT PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trust (dir BLOB PRIMARY KEY, digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS agent (name TEXT PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS standing (id TEXT PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""
KEPT_SESSIONS = 500  # ended ones beyond this are forgotten; the ledger has them
_TABLES = {
    "session": "session", "prompt": "prompt", "grant": "grant_", "account": "account", "standing": "standing",
}  # fmt: skip


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

    def standing(self) -> Standing:
        """Return what holds for all sessions. Raises StoreError."""
        try:
            return next((standing_of(t) for t in self._texts("standing")), Standing())
        except (sqlite3.Error, ValueError, TypeError) as e:
            raise StoreError(f"the store holds a record that cannot be read: {e}") from None

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
        except BaseException as e:
            if self._db.in_transaction:  # or the next event, whosever, would find it open
                self._db.execute("ROLLBACK")
            if isinstance(e, (sqlite3.Error, ValueError)):  # SQLite's text takes no lone surrogates
                raise StoreError(f"cannot write the store: {e}") from None
            raise

    def organisation_keys(self) -> list[Key]:
        """Return the organisation keys, oldest first. Raises StoreError on one that cannot be read."""
        try:
            rows = self._db.execute("SELECT record FROM key").fetchall()
            return sorted((key_of(text) for (text,) in rows), key=lambda k: k.created)
        except (sqlite3.Error, ValueError, KeyError, TypeError) as e:
            raise StoreError(f"the store holds a key that cannot be read: {e}") from None

    def keep_key(self, key: Key) -> None:
        """Keep ``key``, in place of an older record of it. Raises StoreError."""
        self._run("INSERT OR REPLACE INTO key VALUES (?, ?)", (key.id, key_json(key)))

    def drop_key(self, ident: str) -> None:
        """Forget a key. Raises StoreError."""
        self._run("DELETE FROM key WHERE id = ?", (ident,))

    def _run(self, sql: str, values: tuple[str, ...]) -> None:
        try:
            self._db.execute(sql, values)
        except sqlite3.Error as e:
            raise StoreError(f"cannot write the store: {e}") from None

    def trust(self, directory: str, digest: str) -> None:
        """Remember that the project file of ``directory`` is trusted while its digest is ``digest``."""
        self._write("INSERT OR REPLACE INTO trust VALUES (?, ?)", (_raw(directory), digest))

    def trusted(self, directory: str) -> str:
        """Return the trusted digest of ``directory``, or ""."""
        row = self._db.execute("SELECT digest FROM trust WHERE dir = ?", (_raw(directory),)).fetchone()
        return str(row[0]) if row else ""

    def agents(self) -> dict[str, KnownAgent]:
        """Return the known agents by name. Raises StoreError on a record that cannot be read."""
        try:
            found = [of_json(t) for (t,) in self._db.execute("SELECT record FROM agent ORDER BY name")]
        except (sqlite3.Error, ValueError, KeyError, TypeError) as e:
            raise StoreError(f"the store holds an agent that cannot be read: {e}") from None
        return {agent.name: agent for agent in found}

    def keep_agent(self, agent: KnownAgent) -> None:
        """Remember ``agent``. Raises StoreError."""
        self._write("INSERT OR REPLACE INTO agent VALUES (?, ?)", (_key(agent.name), agents.to_json(agent)))

    def forget_agent(self, name: str) -> None:
        """Forget the agent called ``name``. Raises StoreError."""
        self._write("DELETE FROM agent WHERE name = ?", (_key(name),))

    def _write(self, sql: str, values: tuple[str | bytes, ...]) -> None:
        try:
            self._db.execute(sql, values)
        except sqlite3.Error as e:
            raise StoreError(f"cannot write the store: {e}") from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _raw(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _key(name: str) -> str:
    return name.encode("ascii", "backslashreplace").decode(
        "ascii"
    )  # SQLite's text takes no lone surrogates


def _number(record: Prompt | Grant) -> int:
    return int(record.id[1:])
