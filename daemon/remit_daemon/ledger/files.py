"""Files by what they are: the very object that a session wrote, and the content that it left in it.

A path is a name, and names move: a program writes a new file and renames it over the old one, a person moves a directory. So a
journal names the *object* of each write (``kernel.objects``), and once the session's writes to it have been quiet, its content is
looked at and a row is written:

    left    path   sha256 of the content       note "OBJECT ROW SIZE CTIME_NS"      ROW: seq of the last act on it
    left    path   ""                          note "OBJECT ROW why not known"
    commit  path   of the repository           note "ID what is to be said of it"   a git commit whose object a session wrote

They are rows as all others: hashed, signed, verified. What waits to be looked at is the table ``unsettled``; it follows the
session's own renames, links and deletions. Those of others it does not see: the object's name then tells that another file is there.

No extended attribute is put on the files themselves: it would change them (ctime, backups), go along with copies and say of those
what is true of the original, and be the agent's to write wherever it may set one.
"""

from __future__ import annotations

import json
import re
import sqlite3
from typing import Any, NamedTuple

from remit_daemon.ledger.intake import Batch, SessionInfo
from remit_daemon.ledger.rows import Row, load_text, store_text
from remit_daemon.ledger.schema import SELECT_ROWS

MAX_UNSETTLED = (
    100_000  # files that wait; beyond, a write is known by its path alone (each is some 300 bytes here)
)
_NEAR = (
    20_000  # rows in which a process's start is looked for: one that wrote more before is not git unpacking
)
_GIT_OBJECT = re.compile(r"(.*)/objects/([0-9a-f]{2})/([0-9a-f]{38}(?:[0-9a-f]{24})?)")


class Unsettled(NamedTuple):
    """A file that a session wrote and that was not looked at since.

    ``seq`` is the row of the last act on it, ``time_ns`` its time; 0 for git's objects, which go first: they are written
    once, and may soon be packed away.
    """

    object: str
    session: str
    agent: str
    path: str
    seq: int
    time_ns: int

    @property
    def git_object(self) -> tuple[str, str] | None:
        """The git directory and the object's id where it is a loose object (gitrepository-layout(5)), else None."""
        found = _GIT_OBJECT.fullmatch(self.path)
        return (found[1], found[2] + found[3]) if found else None


class Left(NamedTuple):
    """What a session left in a file; ``sha256`` is "" where its content is not known, for the reason ``why``."""

    of: Unsettled
    sha256: str = ""
    size: int = 0
    ctime_ns: int = 0
    why: str = ""


class Commit(NamedTuple):
    """A git commit whose object a session wrote; ``text`` says what is to be said of it."""

    of: Unsettled
    repository: str
    id: str
    text: str


class Trace(NamedTuple):
    """A ``left`` row, read: ``row`` is its own seq, ``seq`` that of the act."""

    row: int
    time_ns: int
    object: str
    session: str
    agent: str
    path: str
    seq: int
    sha256: str
    size: int
    ctime_ns: int


def entry_of(found: Left | Commit) -> dict[str, Any]:
    """Return the row to write for ``found``, as ``rows.from_mapping`` takes it."""
    of = found.of
    entry = {"actor": "agent", "agent": of.agent, "session": of.session}
    if isinstance(found, Commit):
        note = f"{found.id} {found.text}"
        return entry | {"op": "commit", "outcome": "ok", "path": found.repository, "note": note}
    what = f"{found.size} {found.ctime_ns}" if found.sha256 else found.why
    note = f"{of.object} {of.seq} {what}"
    return entry | {"op": "left", "path": of.path, "sha256": found.sha256, "note": note}


def follow(db: sqlite3.Connection, session: SessionInfo, batch: Batch) -> None:
    """Bring ``unsettled`` up to what ``batch`` of ``session``'s journal did. Its rows are in the database."""
    first = batch.rows[0].seq if batch.rows else 0
    room = -1
    for seq, object in batch.changed:
        row = batch.rows[seq - first] if seq >= first > 0 else _row(db, seq)
        if row is None:
            continue
        if row.op in ("write", "create") and object:
            if room < 0:
                room = _room(db)
            if room > 0:
                room -= 1
                _await(db, row, object)
        elif row.op == "link" and object:
            db.execute(
                "UPDATE unsettled SET path = ?, seq = ?, time_ns = ? WHERE object = ?",
                (row.path2, seq, 0 if _GIT_OBJECT.fullmatch(row.path2) else row.time_ns, object),
            )
        elif row.op == "rename":
            _move(db, row.path, row.path2)
        elif row.op == "delete" and not _GIT_OBJECT.fullmatch(row.path):
            db.execute("DELETE FROM unsettled WHERE path = ?", (row.path,))


def wrote(db: sqlite3.Connection, seq: int, object: str) -> None:
    """Have the file ``object``, which the act of row ``seq`` opened to be written, wait to be looked at."""
    row = _row(db, seq)
    if row is not None and _room(db) > 0:
        _await(db, row, store_text(object))


def _room(db: sqlite3.Connection) -> int:
    found: int = db.execute("SELECT count(*) FROM unsettled").fetchone()[0]
    return MAX_UNSETTLED - found


def _await(db: sqlite3.Connection, row: Row, object: str) -> None:
    db.execute(
        "INSERT OR REPLACE INTO unsettled VALUES (?, ?, ?, ?, ?, ?)",
        (object, row.session, row.agent, row.path, row.seq, row.time_ns),
    )


def _move(db: sqlite3.Connection, old: str, new: str) -> None:
    if _GIT_OBJECT.fullmatch(new):
        db.execute("UPDATE unsettled SET path = ?, time_ns = 0 WHERE path = ?", (new, old))
        return
    db.execute("DELETE FROM unsettled WHERE path = ?", (new,))  # it was replaced
    db.execute("UPDATE unsettled SET path = ? WHERE path = ?", (new, old))
    db.execute(
        "UPDATE unsettled SET path = ? || substr(path, ?) WHERE path >= ? AND path < ?",
        (new, len(old) + 1, old + "/", old + "0"),  # "0" follows "/"
    )


def waiting(db: sqlite3.Connection, limit: int) -> list[Unsettled]:
    """Return up to ``limit`` files that were not looked at, the longest unwritten first."""
    found = db.execute(
        "SELECT object, session, agent, path, seq, time_ns FROM unsettled ORDER BY time_ns LIMIT ?",
        (limit,),
    )
    return [_unsettled(values) for values in found]


def settled(db: sqlite3.Connection, of: Unsettled) -> None:
    """Take ``of`` off the list, unless it was written again meanwhile."""
    db.execute("DELETE FROM unsettled WHERE object = ? AND seq = ?", (store_text(of.object), of.seq))


def put_off(db: sqlite3.Connection, of: Unsettled, now_ns: int) -> None:
    """Have ``of`` wait behind the others."""
    db.execute("UPDATE unsettled SET time_ns = ? WHERE object = ?", (now_ns, store_text(of.object)))


def being_written(db: sqlite3.Connection, object: str) -> Unsettled | None:
    """Return the file named ``object`` where it waits to be looked at."""
    values = db.execute(
        "SELECT object, session, agent, path, seq, time_ns FROM unsettled WHERE object = ?",
        (store_text(object),),
    ).fetchone()
    return _unsettled(values) if values else None


def left_in(db: sqlite3.Connection, object: str) -> Trace | None:
    """Return what was last left in the file named ``object``."""
    begins = store_text(object)
    # Few rows have one name; without the plus all rows would be walked from the end.
    here = "INDEXED BY rows_left WHERE op = 'left' AND note >= ? AND note < ? ORDER BY +seq DESC LIMIT 1"
    return _trace(db, here, (begins + " ", begins + "!"))


def left_with(db: sqlite3.Connection, sha256: str, path: str) -> Trace | None:
    """Return the ``left`` row of this content: that of ``path`` if there is one, else the first of all."""
    if not sha256:
        return None
    here = "WHERE op = 'left' AND sha256 <> '' AND sha256 = ?"
    found = _trace(
        db,
        f"INDEXED BY rows_path {here} AND path = ? ORDER BY +seq DESC LIMIT 1",
        (sha256, store_text(path)),
    )
    return found or _trace(db, f"INDEXED BY rows_content {here} ORDER BY seq LIMIT 1", (sha256,))


def known_at(db: sqlite3.Connection, path: str, since: int) -> bool:
    """Say whether the file that had the name ``path`` is known by its object, from row ``since`` on."""
    stored = store_text(path)
    found = db.execute(
        "SELECT 1 FROM unsettled WHERE path = ?1 UNION ALL"
        " SELECT 1 FROM rows WHERE path = ?1 AND op = 'left' AND seq > ?2 LIMIT 1",
        (stored, since),
    ).fetchone()
    return found is not None


def commits(db: sqlite3.Connection, id: str, limit: int) -> list[Row]:
    """Return the ``commit`` rows of the commits whose id begins with ``id`` (hexadecimal), oldest first."""
    found = db.execute(
        f"{SELECT_ROWS} INDEXED BY rows_commit WHERE op = 'commit' AND note >= ? AND note < ? ORDER BY +seq LIMIT ?",
        (id, id + "~", limit),
    )
    return [Row(*values) for values in found]


def program_of(db: sqlite3.Connection, seq: int) -> list[str]:
    """Return the arguments with which the process of row ``seq`` was last started before it; empty when not found."""
    row = _row(db, seq)
    if row is None:
        return []
    found = db.execute(
        "SELECT argv FROM rows WHERE seq < ? AND seq > ? AND session = ? AND pid = ? AND op = 'exec' ORDER BY seq DESC LIMIT 1",
        (seq, seq - _NEAR, row.session, row.pid),
    ).fetchone()
    return [load_text(word) for word in json.loads(found[0])] if found else []


def _trace(db: sqlite3.Connection, rest: str, values: tuple[Any, ...]) -> Trace | None:
    found = db.execute(f"{SELECT_ROWS} {rest}", values).fetchone()
    if found is None:
        return None
    row = Row(*found)
    words = row.note.split(" ")
    size, ctime_ns = (int(words[2]), int(words[3])) if row.sha256 else (0, 0)
    return Trace(
        row.seq, row.time_ns, load_text(words[0]), load_text(row.session), load_text(row.agent), load_text(row.path),
        int(words[1]), row.sha256, size, ctime_ns,
    )  # fmt: skip


def _row(db: sqlite3.Connection, seq: int) -> Row | None:
    values = db.execute(f"{SELECT_ROWS} WHERE seq = ?", (seq,)).fetchone()
    return Row(*values) if values else None


def _unsettled(values: tuple[Any, ...]) -> Unsettled:
    object, session, agent, path, seq, time_ns = values
    return Unsettled(load_text(object), load_text(session), load_text(agent), load_text(path), seq, time_ns)
