"""The ledger: rows, their Merkle tree and its checkpoints, in one SQLite file with one writer.

Order of things, and what a crash between two of them leaves:

1. rows, tree, and the journal's offset in one transaction: all or nothing, so no row is lost or doubled;
2. a checkpoint, in a synced transaction of its own: the rows that it covers are on the disk with it;
3. the checkpoint once more in the file ``checkpoints`` beside the database: a crash before this leaves the
   file one behind, which the next start mends.

A transaction that need not be synced may vanish with a power failure, never with the death of a process; its journal
is then read again from the offset that vanished with it.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from remit_daemon.ledger import files, merkle, notes, queries
from remit_daemon.ledger.export import lines
from remit_daemon.ledger.intake import SessionInfo, read_batch
from remit_daemon.ledger.rows import Row, from_mapping, leaf_bytes, load_text, store_text, to_entry
from remit_daemon.ledger.schema import INSERT_ROW, SELECT_ROWS, TILE_LEVEL, LedgerError, open_writer
from remit_daemon.ledger.verify import Report, verify_file
from remit_daemon.wire.journal import MAX_RECORD

CHUNK = 4 * MAX_RECORD  # of a journal in one transaction; more than one record, so reading always moves on
CHECKPOINT_ROWS = 10_000
CHECKPOINT_NS = 60 * 10**9
CHECKPOINT_GAP_NS = 10**9  # never more than one a second, however fast the rows come

__all__ = ["Ledger", "LedgerError", "SessionInfo"]


class Ledger:
    """One open ledger. All methods are synchronous; call them from one thread at a time."""

    def __init__(
        self,
        path: str,
        *,
        key: Ed25519PrivateKey | str,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Open or create the ledger in file ``path`` (its directory must exist).

        ``key`` signs checkpoints; given as a path, it is read from there or created with mode 0600. ``clock`` gives
        nanoseconds since the epoch. Raises LedgerError.
        """
        self.path = path
        self.checkpoints_path = os.path.join(os.path.dirname(path), "checkpoints")
        self._clock = clock
        try:
            self._key = notes.load_key(key) if isinstance(key, str) else key
        except (notes.NoteError, OSError) as e:
            raise LedgerError(f"cannot use the ledger's key: {e}") from None
        self._db = open_writer(path)
        self._new_nodes: list[tuple[int, bytes]] = []
        self._tree = merkle.Frontier(
            levels=frozenset([TILE_LEVEL]),
            on_node=lambda _level, index, digest: self._new_nodes.append((index, digest)),
        )
        self._checked_size = 0
        self._checked_ns = clock()
        self._unfiled: list[str] = []  # checkpoints in the database that the file does not have yet
        self.trouble = ""  # why the last checkpoint could not be written; the rows themselves are safe
        try:
            self._load_tree()
            self._mend_checkpoints()
        except (sqlite3.Error, ValueError, OSError) as e:
            self._db.close()
            raise LedgerError(f"cannot open the ledger {path}: {e}") from None

    # --- writing

    def append(self, entries: Iterable[Mapping[str, Any]], *, sync: bool = False) -> list[int]:
        """Write a row for each of ``entries`` and return their seqs.

        An entry has the keys of a wire Entry, of which ``actor`` and ``op`` are needed; ``time`` (seconds) or
        ``time_ns`` default to now. With ``sync`` the rows are on the disk when this returns. Raises
        ValueError on an entry that is none, LedgerError when nothing was written.
        """
        with self._transaction(sync=sync):
            now = self._clock()
            first = self._tree.size + 1
            rows = [from_mapping(entry, first + i, now) for i, entry in enumerate(entries)]
            self._add(rows)
        self._tick_after_write()
        return [row.seq for row in rows]

    def wrote(self, seq: int, object: str) -> None:
        """Have the file ``object``, which the act of row ``seq`` opened to be written, looked at. Raises LedgerError."""
        with self._transaction(sync=False):
            files.wrote(self._db, seq, object)

    def ingest(self, session: SessionInfo, journal_path: str, *, sync: bool = False, slice: int = 0) -> int:
        """Read on in ``session``'s journal and return how many records were taken in.

        With ``slice`` only about so many bytes of it, at least one record: 0 then means that there is no more.

        Nothing when the journal does not exist, was found damaged before, or was forgotten. Raises LedgerError; what was
        committed until then stays, and the rest is read at the next call.
        """
        total = 0
        while True:
            taken, more = self._ingest_chunk(session, journal_path, sync, slice or CHUNK)
            if slice and more and not taken:  # a record that is longer
                taken, more = self._ingest_chunk(session, journal_path, sync, CHUNK)
            total += taken
            if slice or not more:
                break
        self._tick_after_write()
        return total

    def _ingest_chunk(self, session: SessionInfo, path: str, sync: bool, size: int) -> tuple[int, bool]:
        name = _name(path)
        with self._transaction(sync=sync):
            found = self._db.execute(
                "SELECT offset, next_number, state FROM journals WHERE name = ?", (name,)
            ).fetchone()
            offset, next_number, state = found or (0, -1, "open")
            if state != "open":
                return 0, False
            raw = _read(path, offset, size)
            if raw is None:
                self._damage(session, f"the journal ends before offset {offset}, up to which it was read")
                self._set_journal(name, path, offset, next_number, "damaged")
                return 0, False
            if not raw:
                return 0, False
            batch = read_batch(
                raw,
                session,
                offset=offset,
                first_seq=self._tree.size + 1,
                next_number=next_number,
                open_acts=lambda number: self._open_act(name, number),
                now_ns=self._clock(),
            )
            if batch.end == offset and not batch.damaged:
                return 0, len(raw) == size and size < CHUNK
            self._add(batch.rows)
            db = self._db
            files.follow(db, session, batch)
            db.executemany(
                "DELETE FROM open_acts WHERE name = ? AND number = ?", [(name, n) for n in batch.closed]
            )
            db.executemany(
                "INSERT OR REPLACE INTO open_acts VALUES (?, ?, ?)",
                [(name, n, seq) for n, seq in batch.opened.items()],
            )
            self._set_journal(
                name, path, batch.end, batch.next_number, "damaged" if batch.damaged else "open"
            )
        return batch.records, len(raw) == size and not batch.damaged

    def forget(self, session: SessionInfo, journal_path: str) -> bool:
        """Take in the rest of an ended session's journal, sync, and delete the file.

        An unfinished last record (the supervisor died while writing it, so its act was never answered) is noted in a
        ``damage`` row. Returns False, and keeps the file as evidence, when the journal was found damaged
        before. Raises LedgerError or OSError; call again then.
        """
        self.ingest(session, journal_path)
        name = _name(journal_path)
        with self._transaction(sync=True):
            found = self._db.execute(
                "SELECT offset, next_number, state FROM journals WHERE name = ?", (name,)
            ).fetchone()
            offset, next_number, state = found or (0, -1, "open")
            if state == "damaged":
                return False
            if state == "open":
                rest = _read(journal_path, offset, CHUNK)
                if rest:
                    note = f"the journal ends inside a record ({len(rest)} bytes); its act had not been answered"
                    self._damage(session, note)
                self._db.execute("DELETE FROM open_acts WHERE name = ?", (name,))
                # The journal's line stays: should the deletion not survive a power failure, nothing is read twice.
                self._set_journal(name, journal_path, offset, next_number, "done")
        try:
            os.unlink(journal_path)
        except FileNotFoundError:
            pass
        return True

    def tick(self) -> bool:
        """Write a checkpoint when one is due; True when it did. Call now and then while nothing is appended."""
        rows = self._tree.size - self._checked_size
        passed = abs(
            self._clock() - self._checked_ns
        )  # a clock that was set back must not stop checkpoints
        due = passed >= CHECKPOINT_NS or (rows >= CHECKPOINT_ROWS and passed >= CHECKPOINT_GAP_NS)
        if rows and due:
            self.checkpoint()
            return True
        return False

    def _tick_after_write(self) -> None:
        # The rows are committed: that no checkpoint could be written must not look as if they were not.
        try:
            self.tick()
        except LedgerError as e:
            self.trouble = str(e)
            self._checked_ns = self._clock()

    def checkpoint(self) -> str:
        """Sign the tree as it stands, store the note, sync, and return it."""
        with self._transaction(sync=True):
            size = self._tree.size
            note = notes.sign(notes.Checkpoint(size, self._tree.root()), self._key)
            new = (
                self._db.execute("INSERT OR IGNORE INTO checkpoints VALUES (?, ?)", (size, note)).rowcount
                == 1
            )
        if new:
            self._unfiled.append(note)
        try:
            self._file_checkpoints()
        except OSError as e:
            raise LedgerError(f"cannot write {self.checkpoints_path}: {e.strerror}") from None
        self.trouble = ""
        self._checked_size = size
        self._checked_ns = self._clock()
        return note

    def close(self) -> None:
        """Write a last checkpoint when there are rows without one, and close. Raises LedgerError."""
        try:
            if self._tree.size > self._checked_size:
                self.checkpoint()
        finally:
            self._db.close()

    # --- reading

    def query(self, wanted: queries.Filter) -> list[dict[str, Any]]:
        """Return the Entries that ``wanted`` selects, oldest first; see ``queries.query``."""
        return queries.query(self._db, wanted)

    def page(self, wanted: queries.Filter) -> dict[str, Any]:
        """Return one page of what ``wanted`` selects, and where the next begins; see ``queries.page``."""
        return queries.page(self._db, wanted, self.size())

    def find(self, time: float) -> int | None:
        """Return the seq of the first row of ``time`` (seconds) or later, None when there is none."""
        return queries.find(self._db, time)

    def who(self, path: str, before: int | None = None) -> dict[str, Any]:
        """Return who last wrote, created, renamed or deleted ``path``; see ``queries.who``."""
        return queries.who(self._db, path, before)

    def waiting(self, limit: int) -> list[files.Unsettled]:
        """Return up to ``limit`` files that sessions wrote and that were not looked at since, the oldest first."""
        return files.waiting(self._db, limit)

    def settle(
        self,
        found: Iterable[files.Left | files.Commit],
        done: Iterable[files.Unsettled],
        later: Iterable[files.Unsettled] = (),
    ) -> None:
        """Write a row for each of ``found``, take ``done`` off the list, and have ``later`` wait again. Raises LedgerError."""
        with self._transaction(sync=False):
            now, first = self._clock(), self._tree.size + 1
            self._add([from_mapping(files.entry_of(f), first + i, now) for i, f in enumerate(found)])
            for of in done:
                files.settled(self._db, of)
            for of in later:
                files.put_off(self._db, of, now)
        self._tick_after_write()

    def last_ns(self, session: str) -> int:
        """Return the time of ``session``'s last act, in nanoseconds since the epoch; 0 when it has none."""
        found = self._db.execute(
            "SELECT time_ns FROM rows WHERE session = ? AND actor = 'agent' AND op NOT IN ('left','commit') ORDER BY seq DESC LIMIT 1",
            (store_text(session),),
        ).fetchone()
        return found[0] if found else 0

    def being_written(self, object: str) -> files.Unsettled | None:
        """Return the file named ``object`` where it waits to be looked at."""
        return files.being_written(self._db, object)

    def left_in(self, object: str) -> files.Trace | None:
        """Return what was last left in the file named ``object``."""
        return files.left_in(self._db, object)

    def left_with(self, sha256: str, path: str) -> files.Trace | None:
        """Return where this content was left: at ``path`` if there, else where it was first."""
        return files.left_with(self._db, sha256, path)

    def known_at(self, path: str, since: int) -> bool:
        """Say whether the file that had the name ``path`` is known by its object, from row ``since`` on."""
        return files.known_at(self._db, path, since)

    def program_of(self, seq: int) -> list[str]:
        """Return the arguments with which the process of row ``seq`` was started; empty when not found."""
        return files.program_of(self._db, seq)

    def commits(self, id: str) -> list[dict[str, Any]]:
        """Return the Entries of the commits that sessions wrote and whose id begins with ``id``, oldest first."""
        return [to_entry(row) for row in files.commits(self._db, id, queries.DEFAULT_LIMIT)]

    def denials(self, session: str = "", limit: int = 100) -> list[dict[str, Any]]:
        """Return the last ``limit`` refused acts, of one session or all, oldest first."""
        return queries.denials(self._db, session, limit)

    def counts(self, session: str) -> dict[str, int]:
        """Return how often ``session`` used each operation that is counted and not listed."""
        found = self._db.execute("SELECT op, n FROM counts WHERE session = ?", (store_text(session),))
        return {load_text(op): n for op, n in found}

    def export(self, form: str, wanted: queries.Filter, *, host: str = "") -> Iterator[str]:
        """Yield every selected row as a line of ``form``, ``jsonl`` or ``ocsf``; see ``export.lines``."""
        return lines(self._db, form, wanted, host=host)

    def size(self) -> int:
        """Return the number of rows."""
        return self._tree.size

    def verify(self) -> Report:
        """Check everything that can be checked; on its own connection, so a worker thread may call this."""
        return verify_file(self.path, self.checkpoints_path, self._key.public_key())

    def verifier_line(self) -> str:
        """Return the checkpoint verifier key (C2SP signed-note), to be kept outside this machine."""
        return notes.verifier_line(self._key.public_key())

    def prove_inclusion(self, seq: int, size: int | None = None) -> tuple[bytes, list[bytes]]:
        """Return the leaf bytes of row ``seq`` and its audit path in the tree of ``size`` rows (now: all)."""
        proof = merkle.inclusion_proof(self._range_root, seq - 1, self._tree.size if size is None else size)
        return leaf_bytes(self._rows(seq - 1, seq)[0]), proof

    def prove_consistency(self, old: int, size: int | None = None) -> list[bytes]:
        """Return the proof that the tree of ``old`` rows begins that of ``size`` rows (now: all)."""
        return merkle.consistency_proof(self._range_root, old, self._tree.size if size is None else size)

    # --- within

    @contextmanager
    def _transaction(self, *, sync: bool) -> Iterator[None]:
        db = self._db
        try:
            if sync:  # may only change outside a transaction; syncs the whole WAL, so earlier ones as well
                db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")
            (size,) = db.execute("SELECT size FROM tree").fetchone()
            if size != self._tree.size:
                self._load_tree()
            yield
            db.execute("COMMIT")
        except BaseException as e:
            self._new_nodes.clear()
            try:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                self._load_tree()
            except (sqlite3.Error, ValueError) as worse:
                raise LedgerError(f"cannot write the ledger: {e}; nor read it: {worse}") from None
            if isinstance(e, (sqlite3.Error, OSError)):
                raise LedgerError(f"cannot write the ledger: {e}") from None
            raise
        finally:
            if sync:
                db.execute("PRAGMA synchronous = NORMAL")

    def _add(self, rows: list[Row]) -> None:
        if not rows:
            return
        tree = self._tree
        for row in rows:
            tree.append(merkle.leaf_hash(leaf_bytes(row)))
        db = self._db
        db.executemany(INSERT_ROW, rows)
        db.executemany("INSERT INTO nodes VALUES (?, ?)", self._new_nodes)
        self._new_nodes.clear()
        for row in rows:
            if row.op == "count":
                db.execute(
                    "INSERT INTO counts VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
                    (row.session, row.path, int(row.note)),
                )
        db.execute("UPDATE tree SET size = ?, edge = ?", (tree.size, tree.edge()))

    def _damage(self, session: SessionInfo, note: str) -> None:
        entry = {
            "actor": "remit",
            "op": "damage",
            "agent": session.agent,
            "session": session.id,
            "note": note,
        }
        self._add([from_mapping(entry, self._tree.size + 1, self._clock())])

    def _open_act(self, name: str, number: int) -> int | None:
        found = self._db.execute(
            "SELECT seq FROM open_acts WHERE name = ? AND number = ?", (name, number)
        ).fetchone()
        return found[0] if found else None

    def _set_journal(self, name: str, path: str, offset: int, next_number: int, state: str) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO journals VALUES (?, ?, ?, ?, ?)",
            (name, store_text(path), offset, next_number, state),
        )

    def _load_tree(self) -> None:
        size, edge = self._db.execute("SELECT size, edge FROM tree").fetchone()
        self._tree.restore(size, edge)

    def _rows(self, start: int, end: int) -> list[Row]:
        found = self._db.execute(f"{SELECT_ROWS} WHERE seq > ? AND seq <= ? ORDER BY seq", (start, end))
        return [Row(*row) for row in found]

    def _range_root(self, start: int, end: int) -> bytes:
        width = 1 << TILE_LEVEL
        if end - start == width and start % width == 0:
            found = self._db.execute("SELECT hash FROM nodes WHERE idx = ?", (start // width,)).fetchone()
            if found:
                return bytes(found[0])
        if end - start > width:
            middle = start + (1 << ((end - start - 1).bit_length() - 1))
            return merkle.node_hash(self._range_root(start, middle), self._range_root(middle, end))
        leaves = [merkle.leaf_hash(leaf_bytes(row)) for row in self._rows(start, end)]
        return merkle.range_root(leaves.__getitem__)(0, len(leaves))

    def _mend_checkpoints(self) -> None:
        """Bring the file level with the database after a crash between the two, and drop a half-written last note."""
        last = self._db.execute("SELECT size, note FROM checkpoints ORDER BY size DESC LIMIT 2").fetchall()
        self._checked_size = last[0][0] if last else 0
        try:
            with open(self.checkpoints_path, encoding="utf-8", newline="") as file:
                text = file.read()
        except FileNotFoundError:
            text = ""
        whole, rest = notes.split(text)
        if rest and not rest.isspace() and last and (last[0][1] + "\n").startswith(rest):
            os.truncate(self.checkpoints_path, len(text.encode()) - len(rest.encode()))
            rest = ""
        before_last = last[1][1] if len(last) > 1 else None
        if last and not rest and (whole[-1] if whole else None) == before_last:
            # Anything else is for verify to report, not for us to cover up.
            self._unfiled.append(last[0][1])
            self._file_checkpoints()

    def _file_checkpoints(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self.checkpoints_path, flags, 0o600)
        try:
            size = os.fstat(fd).st_size
            data = "".join(note + "\n" for note in self._unfiled).encode()
            try:
                if os.write(fd, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(fd)
            except OSError:
                os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)
        self._unfiled.clear()


def _name(journal_path: str) -> str:
    """Return what names a journal: its file's name, which begins with its session's id."""
    return store_text(os.path.basename(journal_path))


def _read(path: str, offset: int, size: int) -> bytes | None:
    """Return up to ``size`` bytes from ``offset``, nothing when there is no file, None when it ends before."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return b""
    try:
        if os.fstat(fd).st_size < offset:
            return None
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)
