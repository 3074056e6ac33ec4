"""Checking a ledger: every hash is computed again from the rows, and the root compared with every checkpoint.

Found: a row flipped, removed, inserted or moved; rows cut off, or the whole database set back, behind a checkpoint that is
still known here; a checkpoint that was altered or removed from one of its two places. Not found: see LIMITS.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from remit_daemon.ledger import merkle, notes
from remit_daemon.ledger.rows import Row, leaf_bytes
from remit_daemon.ledger.schema import SELECT_ROWS, TILE_LEVEL, LedgerError, is_ours, open_reader

MAX_ERRORS = 100  # more do not tell more

LIMITS = (
    "rows after the last checkpoint can be cut off or rewritten without a trace",
    "setting back the database and the checkpoints file together to the same earlier moment is found only"
    " by a checkpoint kept elsewhere",
    "whoever holds the ledger's key (any unconfined program of yours can read it) can write another history",
)


@dataclass(slots=True)
class Report:
    """What ``verify`` found: ``ok`` when ``errors`` is empty. ``unsigned`` rows are behind the last checkpoint."""

    ok: bool = True
    rows: int = 0
    checkpoints: int = 0
    unsigned: int = 0
    errors: list[str] = field(default_factory=list)
    limits: tuple[str, ...] = LIMITS

    def fault(self, text: str) -> None:
        """Add an error."""
        self.ok = False
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(text)


def verify_file(path: str, checkpoints_path: str, public: Ed25519PublicKey) -> Report:
    """Check the ledger in ``path`` and the file of its checkpoints against the key ``public``.

    Reads one moment of the database, so a writer may go on meanwhile. Faults are in the report; raises nothing.
    """
    report = Report()
    try:
        # First the file: it is written last, so whatever it names is in the database by now.
        filed = _read_checkpoints(checkpoints_path, report)
        db = open_reader(path)
    except (LedgerError, OSError) as e:
        report.fault(str(e))
        return report
    try:
        _check(db, filed, public, report)
    except (sqlite3.Error, TypeError, ValueError) as e:
        report.fault(f"the database is damaged: {e}")
    finally:
        db.close()
    return report


def _read_checkpoints(path: str, report: Report) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
            whole, rest = notes.split(file.read())
    except FileNotFoundError:
        return []
    if rest:
        report.fault("the checkpoints file ends inside a checkpoint")
    return whole


def _check(db: sqlite3.Connection, filed: list[str], public: Ed25519PublicKey, report: Report) -> None:
    if not is_ours(db):
        report.fault("the database's tables are not as remit makes them")
    stored: list[str] = [str(note) for (note,) in db.execute("SELECT note FROM checkpoints ORDER BY size")]
    claims = _claims(stored, filed, public, report)
    report.checkpoints = len(claims)

    nodes: dict[int, bytes] = {}
    tree = merkle.Frontier(
        levels=frozenset([TILE_LEVEL]), on_node=lambda _level, index, digest: nodes.update({index: digest})
    )
    counts: Counter[tuple[str, str]] = Counter()
    done: set[int] = set()
    _compare_root(tree, claims, report)
    expected = 1
    for values in db.execute(f"{SELECT_ROWS} ORDER BY seq"):
        row = Row(*values)
        if row.seq != expected:
            report.fault(
                f"row {expected} is missing" if row.seq > expected else f"row {row.seq} is out of place"
            )
        expected = row.seq + 1
        try:
            leaf = leaf_bytes(row)
            if row.op == "count":
                counts[row.session, row.path] += int(row.note)
            if row.act is not None:
                if row.act in done or not 0 < row.act < row.seq:
                    report.fault(f"row {row.seq} completes row {row.act}, which it cannot")
                done.add(row.act)
        except (TypeError, ValueError):
            report.fault(f"row {row.seq} holds what no row can")
            leaf = b""
        tree.append(merkle.leaf_hash(leaf))
        _compare_root(tree, claims, report)
    report.rows = tree.size
    signed = max(claims, default=0)
    report.unsigned = max(0, tree.size - signed)
    for size in sorted(claims):
        if size > tree.size:
            report.fault(
                f"a checkpoint covers {size} rows, but there are {tree.size}: rows were cut off or set back"
            )
    _check_served(db, tree, nodes, counts, report)


def _claims(
    stored: list[str], filed: list[str], public: Ed25519PublicKey, report: Report
) -> dict[int, tuple[bytes, str]]:
    """Return the root that each checkpoint claims, by size, once per place that differs."""
    claims: dict[int, tuple[bytes, str]] = {}
    for place, found in (("database", stored), ("file", filed)):
        last = 0
        for number, note in enumerate(found, 1):
            try:
                checkpoint = notes.read(note, public)
            except ValueError as e:  # NoteError, or text that was never UTF-8
                report.fault(f"checkpoint {number} in the {place}: {e}")
                continue
            if checkpoint.size <= last:
                report.fault(f"checkpoint {number} in the {place} is out of order")
            last = checkpoint.size
            known = claims.setdefault(checkpoint.size, (checkpoint.root, place))
            if known[0] != checkpoint.root:
                report.fault(f"the two checkpoints of {checkpoint.size} rows differ: history was rewritten")
    # The file is written after the database and may be one behind; anything else is somebody's doing.
    if filed not in (stored, stored[:-1]):
        lost, extra = len(set(stored) - set(filed)), len(set(filed) - set(stored))
        if extra:
            report.fault(
                f"{extra} checkpoints of the file are not in the database: it was set back or altered"
            )
        if lost:
            report.fault(f"{lost} checkpoints of the database are not in the file")
        if not lost and not extra:
            report.fault("the checkpoints of the file are out of order")
    return claims


def _compare_root(tree: merkle.Frontier, claims: dict[int, tuple[bytes, str]], report: Report) -> None:
    claim = claims.get(tree.size)
    if claim is not None and claim[0] != tree.root():
        report.fault(f"the first {tree.size} rows are not those of their checkpoint: a row was altered")


def _check_served(
    db: sqlite3.Connection,
    tree: merkle.Frontier,
    nodes: dict[int, bytes],
    counts: Counter[tuple[str, str]],
    report: Report,
) -> None:
    """Check what the database keeps beside the rows: hashes, counts, and the indexes that queries go by."""
    if db.execute("SELECT size, edge FROM tree").fetchall() != [(tree.size, tree.edge())]:
        report.fault("the stored hashes are not those of the rows: rows were altered, added or cut off")
    if dict(db.execute("SELECT idx, hash FROM nodes").fetchall()) != nodes:
        report.fault("the stored inner hashes are not those of the rows")
    if {(s, op): n for s, op, n in db.execute("SELECT session, op, n FROM counts")} != dict(counts):
        report.fault("the stored counts are not those of the rows")
    for (text,) in db.execute("PRAGMA integrity_check"):
        if text != "ok":
            report.fault(f"the database is damaged: {text}")
