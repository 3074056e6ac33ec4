"""The ledger's tables, and how a database file is opened.

``rows`` is the ledger. The rest serves it: ``tree`` and ``nodes`` are hashes of rows (``verify`` computes them
again), ``checkpoints`` the signed notes, ``journals`` and ``open_acts`` where reading of each
journal (by its file's name; a session has one of its supervisor and one of each gateway) stands. ``unsettled`` are the files that
sessions have written and whose content was not looked at yet (``files``): work to do, not history, so no row of the tree.
"""

from __future__ import annotations

import os
import sqlite3

from remit_daemon.ledger.rows import COLUMNS

VERSION = 2
TILE_LEVEL = 8  # every 256 rows leave one node, so that a proof hashes at most 256 rows and these
_BUSY_MS = 5000  # only a reader's checkpoint ever holds the lock, and briefly
_CACHE_KIB = 16 << 10  # the path index is written all over; the daemon as a whole has 80 MB

# What gives a path its present content or name, and the outcomes after which it may really have done so.
CHANGES = "op IN ('write','create','delete','rename','link','symlink')"
TOOK_EFFECT = "outcome IN ('ok','passed','allowed','pending','held')"

_SCHEMA = f"""
CREATE TABLE rows (
  seq INTEGER PRIMARY KEY, time_ns INTEGER NOT NULL, actor TEXT NOT NULL, agent TEXT NOT NULL,
  session TEXT NOT NULL, pid INTEGER NOT NULL, proc TEXT NOT NULL, exe TEXT NOT NULL, sha256 TEXT NOT NULL,
  op TEXT NOT NULL, path TEXT NOT NULL, path2 TEXT NOT NULL, verdict TEXT NOT NULL, outcome TEXT NOT NULL,
  rule TEXT NOT NULL, prompt TEXT NOT NULL, note TEXT NOT NULL, argv TEXT NOT NULL, act INTEGER
) STRICT;
CREATE INDEX rows_path ON rows (path);
CREATE INDEX rows_path2 ON rows (path2) WHERE path2 <> '';
CREATE INDEX rows_session ON rows (session);
CREATE INDEX rows_time ON rows (time_ns);
CREATE INDEX rows_act ON rows (act) WHERE act IS NOT NULL;
CREATE INDEX rows_actor ON rows (actor) WHERE actor <> 'agent';
CREATE INDEX rows_denial ON rows (session) WHERE verdict IN ('ask','deny');
CREATE INDEX rows_grant ON rows (rule) WHERE substr(rule, 1, 6) = 'grant:';
CREATE INDEX rows_change ON rows (path) WHERE {CHANGES} AND {TOOK_EFFECT};
CREATE TABLE tree (one INTEGER PRIMARY KEY CHECK (one = 1), size INTEGER NOT NULL, edge BLOB NOT NULL) STRICT;
INSERT INTO tree VALUES (1, 0, x'');
CREATE TABLE nodes (idx INTEGER PRIMARY KEY, hash BLOB NOT NULL) STRICT;
CREATE TABLE checkpoints (size INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT;
CREATE TABLE journals (
  name TEXT PRIMARY KEY, path TEXT NOT NULL, offset INTEGER NOT NULL, next_number INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('open','damaged','done'))
) STRICT;
CREATE TABLE open_acts (
  name TEXT NOT NULL, number INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (name, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE counts (
  session TEXT NOT NULL, op TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (session, op)
) STRICT, WITHOUT ROWID;
CREATE INDEX rows_left ON rows (note) WHERE op = 'left';
CREATE INDEX rows_commit ON rows (note) WHERE op = 'commit';
CREATE INDEX rows_content ON rows (sha256) WHERE op = 'left' AND sha256 <> '';
CREATE TABLE unsettled (
  object TEXT PRIMARY KEY, session TEXT NOT NULL, agent TEXT NOT NULL, path TEXT NOT NULL, seq INTEGER NOT NULL,
  time_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX unsettled_path ON unsettled (path);
CREATE INDEX unsettled_time ON unsettled (time_ns);
PRAGMA user_version = {VERSION};
"""  # noqa: S608 - constants

_SHAPE = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"
SELECT_ROWS = f"SELECT {', '.join(COLUMNS)} FROM rows"  # noqa: S608 - constants
INSERT_ROW = f"INSERT INTO rows VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608 - constants


class LedgerError(Exception):
    """The ledger cannot be opened, read or written. What needed a row must then be denied."""


def open_writer(path: str) -> sqlite3.Connection:
    """Open the database file ``path`` for the one writer, creating it with mode 0600.

    Raises LedgerError when it is damaged, another version's, or cannot be made.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_MS / 1000)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        db.execute("BEGIN IMMEDIATE")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in _SCHEMA.split(";\n"):
                db.execute(statement)
        elif version != VERSION:
            raise LedgerError(
                f"{path} is a ledger of version {version}, this remit knows {VERSION}; move it away, and a new one is begun"
            )
        db.execute("COMMIT")
    except sqlite3.Error as e:
        raise LedgerError(f"cannot open the ledger {path}: {e}") from None
    except OSError as e:
        raise LedgerError(f"cannot open the ledger {path}: {e.strerror}") from None
    return db


def open_reader(path: str) -> sqlite3.Connection:
    """Open the database file ``path`` to read one moment of it. Raises LedgerError."""
    try:
        db = sqlite3.connect(
            f"file:{_uri(path)}?mode=ro", uri=True, isolation_level=None, timeout=_BUSY_MS / 1000
        )
        db.text_factory = _decode
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("BEGIN")
    except sqlite3.Error as e:
        raise LedgerError(f"cannot read the ledger {path}: {e}") from None
    return db


def is_ours(db: sqlite3.Connection) -> bool:
    """Say whether the tables and indexes of ``db`` are just those that we make. Raises sqlite3.Error."""
    made = sqlite3.connect(":memory:")
    try:
        made.executescript(_SCHEMA)
        wanted = made.execute(_SHAPE).fetchall()
    finally:
        made.close()
    return db.execute(_SHAPE).fetchall() == wanted


def _decode(raw: bytes) -> str:
    # A damaged file may hold any bytes as text; kept apart, so that their row's hash cannot come out right.
    return raw.decode("utf-8", "surrogateescape")


def _uri(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
