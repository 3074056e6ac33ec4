"""Whatever is done to a ledger behind its checkpoints, verify says so."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.ledger import CLAUDE, Clock, act, add, count, done
from remit_daemon.ledger import merkle, notes
from remit_daemon.ledger.rows import COLUMNS, Row, leaf_bytes
from remit_daemon.ledger.schema import SELECT_ROWS
from remit_daemon.ledger.store import Ledger
from remit_daemon.ledger.verify import Report, verify_file

KEY = Ed25519PrivateKey.from_private_bytes(b"t" * 32)
ROWS = 300  # over one tile of 256
POINTS = (100, 200, ROWS)

pytestmark = pytest.mark.filterwarnings("error")


def fill(directory: str, rows: int = ROWS, points: tuple[int, ...] = POINTS) -> Ledger:
    """Make a ledger of ``rows`` rows, ``done`` and ``count`` rows among them, with checkpoints at ``points``."""
    ledger = Ledger(os.path.join(directory, "ledger.db"), key=KEY, clock=Clock())
    journal = os.path.join(directory, "journal")
    number = 0
    while ledger.size() < rows:
        number += 1
        kind = number % 10
        add(
            journal,
            count(number, "read", 3) if kind == 5 else act(number, path=f"/p/{number}", argv=("x",)),
        )
        ledger.ingest(CLAUDE, journal)
        if kind == 7 and ledger.size() < rows and ledger.size() not in points:
            add(journal, done(number))
            ledger.ingest(CLAUDE, journal)
        if ledger.size() in points:
            ledger.checkpoint()
    return ledger


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = str(tmp_path_factory.mktemp("pristine"))
    ledger = fill(directory)
    assert ledger.verify().errors == []
    ledger.close()
    return directory


class Copy:
    """A copy of a ledger to be tampered with."""

    def __init__(self, source: str, place: str) -> None:
        self.path = os.path.join(place, "ledger.db")
        self.checkpoints = os.path.join(place, "checkpoints")
        for name in ("ledger.db", "checkpoints"):
            shutil.copy(os.path.join(source, name), place)
        for suffix in ("-wal", "-shm"):
            if os.path.exists(self.path + suffix):
                os.unlink(self.path + suffix)
        self.db = sqlite3.connect(self.path, isolation_level=None)

    def sql(self, statement: str, *values: object) -> int:
        return self.db.execute(statement, values).rowcount

    def rehash(self) -> None:
        """Make all that is stored beside the rows agree with them, as an attacker without the key could."""
        nodes: list[tuple[int, bytes]] = []
        tree = merkle.Frontier(levels=frozenset([8]), on_node=lambda _l, i, d: nodes.append((i, d)))
        for values in self.db.execute(f"{SELECT_ROWS} ORDER BY seq"):
            tree.append(merkle.leaf_hash(leaf_bytes(Row(*values))))
        self.sql("UPDATE tree SET size = ?, edge = ?", tree.size, tree.edge())
        self.sql("DELETE FROM nodes")
        self.db.executemany("INSERT INTO nodes VALUES (?, ?)", nodes)

    def verify(self) -> Report:
        self.db.close()
        return verify_file(self.path, self.checkpoints, KEY.public_key())


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


def fresh(pristine: str, place: Path) -> Copy:
    directory = place / str(len(os.listdir(place)))
    directory.mkdir()
    return Copy(pristine, str(directory))


tampering = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@tampering
@given(seq=st.integers(1, ROWS), column=st.sampled_from(COLUMNS[1:]), rehash=st.booleans())
def test_a_flip_in_any_column(pristine: str, place: Path, seq: int, column: str, rehash: bool) -> None:
    copy = fresh(pristine, place)
    change = {
        "time_ns": "time_ns + 1",
        "pid": "pid + 1",
        "act": "COALESCE(act, 1) + 1",
        "argv": "'[\"y\"]'",
    }
    assert (
        copy.sql(
            f"UPDATE rows SET {column} = {change.get(column, column + ' || char(120)')} WHERE seq = ?", seq
        )
        == 1
    )
    if rehash:
        copy.rehash()
    report = copy.verify()
    assert not report.ok
    if rehash:
        assert any("a row was altered" in error for error in report.errors)


@tampering
@given(seq=st.integers(1, ROWS), renumber=st.booleans(), rehash=st.booleans())
def test_a_row_removed(pristine: str, place: Path, seq: int, renumber: bool, rehash: bool) -> None:
    copy = fresh(pristine, place)
    copy.sql("DELETE FROM rows WHERE seq = ?", seq)
    if renumber:
        copy.sql("UPDATE rows SET seq = -seq WHERE seq > ?", seq)
        copy.sql("UPDATE rows SET seq = -seq - 1 WHERE seq < 0")
    if rehash:
        copy.rehash()
    assert not copy.verify().ok


@tampering
@given(seq=st.integers(1, ROWS), rehash=st.booleans())
def test_a_row_inserted(pristine: str, place: Path, seq: int, rehash: bool) -> None:
    copy = fresh(pristine, place)
    copy.sql("UPDATE rows SET seq = -seq WHERE seq >= ?", seq)
    copy.sql("UPDATE rows SET seq = -seq + 1 WHERE seq < 0")
    others = ", ".join(COLUMNS[1:])
    copy.sql(f"INSERT INTO rows SELECT ?, {others} FROM rows WHERE seq = ?", seq, 1 if seq > 1 else 2)
    if rehash:
        copy.rehash()
    assert not copy.verify().ok


@tampering
@given(one=st.integers(1, ROWS), other=st.integers(1, ROWS), rehash=st.booleans())
def test_two_rows_exchanged(pristine: str, place: Path, one: int, other: int, rehash: bool) -> None:
    if one == other:
        return
    copy = fresh(pristine, place)
    before = copy.db.execute(f"{SELECT_ROWS} ORDER BY seq").fetchall()
    copy.sql("UPDATE rows SET seq = -1 WHERE seq = ?", one)
    copy.sql("UPDATE rows SET seq = ? WHERE seq = ?", one, other)
    copy.sql("UPDATE rows SET seq = ? WHERE seq = -1", other)
    # Two count rows of the same moment differ in their seq alone: exchanging these changes nothing.
    same = copy.db.execute(f"{SELECT_ROWS} ORDER BY seq").fetchall() == before
    if rehash:
        copy.rehash()
    assert copy.verify().ok == same


@tampering
@given(keep=st.integers(0, ROWS - 1), drop_points=st.booleans())
def test_rows_cut_off_behind_a_checkpoint(pristine: str, place: Path, keep: int, drop_points: bool) -> None:
    copy = fresh(pristine, place)
    copy.sql("DELETE FROM rows WHERE seq > ?", keep)
    if drop_points:
        copy.sql("DELETE FROM checkpoints WHERE size > ?", keep)
    copy.rehash()
    report = copy.verify()
    assert any("cut off or set back" in error for error in report.errors)


@tampering
@given(st.integers(0, 10**9), st.integers(0, 7))
def test_a_bit_flipped_in_the_checkpoints_file(pristine: str, place: Path, at: int, bit: int) -> None:
    copy = fresh(pristine, place)
    with open(copy.checkpoints, "r+b") as file:
        raw = bytearray(file.read())
        raw[at % len(raw)] ^= 1 << bit
        file.seek(0)
        file.write(raw)
    assert not copy.verify().ok


@settings(tampering, max_examples=150)
@given(st.integers(0, 10**9), st.integers(0, 7))
def test_a_bit_flipped_in_the_database_changes_no_row_unseen(
    pristine: str, place: Path, at: int, bit: int
) -> None:
    copy = fresh(pristine, place)
    before = copy.db.execute(SELECT_ROWS).fetchall()
    copy.db.close()
    with open(copy.path, "r+b") as file:
        raw = bytearray(file.read())
        raw[at % len(raw)] ^= 1 << bit
        file.seek(0)
        file.write(raw)
    report = verify_file(copy.path, copy.checkpoints, KEY.public_key())
    if report.ok:  # unused space, or a count that SQLite keeps for itself
        db = sqlite3.connect(copy.path)
        assert db.execute(SELECT_ROWS).fetchall() == before
        db.close()


def test_rollback_of_the_whole_database(tmp_path: Path) -> None:
    ledger = fill(str(tmp_path), rows=50, points=(40,))
    ledger._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    old = (tmp_path / "ledger.db").read_bytes()
    for _ in range(2):
        ledger.append([{"actor": "human", "op": "revoke"}])
        ledger.checkpoint()
    ledger.close()
    (tmp_path / "ledger.db").write_bytes(old)
    again = Ledger(str(tmp_path / "ledger.db"), key=KEY)
    again.append([{"actor": "human", "op": "grant"}])
    again.checkpoint()  # and history goes on from there
    report = again.verify()
    again.close()
    assert not report.ok
    assert any("set back" in error for error in report.errors)


def test_an_added_checkpoint_of_another_key(pristine: str, place: Path) -> None:
    copy = fresh(pristine, place)
    other = notes.sign(notes.Checkpoint(250, b"r" * 32), Ed25519PrivateKey.generate())
    copy.sql("INSERT INTO checkpoints VALUES (250, ?)", other)
    assert not copy.verify().ok


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_checkpoints_taken_from_the_database(pristine: str, place: Path, lost: int) -> None:
    copy = fresh(pristine, place)
    copy.sql(
        "DELETE FROM checkpoints WHERE size IN (SELECT size FROM checkpoints ORDER BY size DESC LIMIT ?)",
        lost,
    )
    assert not copy.verify().ok


@pytest.mark.parametrize("kept", [(), (0,), (1,), (0, 2), (1, 2), (1, 0, 2)])
def test_checkpoints_taken_from_the_file(pristine: str, place: Path, kept: tuple[int, ...]) -> None:
    copy = fresh(pristine, place)
    text = Path(copy.checkpoints).read_text()
    whole, _ = notes.split(text)
    Path(copy.checkpoints).write_text("".join(whole[i] + "\n" for i in kept))
    assert not copy.verify().ok


def test_counts_and_indexes_that_lie(pristine: str, place: Path) -> None:
    copy = fresh(pristine, place)
    copy.sql("UPDATE counts SET n = n + 1")
    assert copy.verify().errors == ["the stored counts are not those of the rows"]
    copy = fresh(pristine, place)
    (sql,) = copy.db.execute("SELECT sql FROM sqlite_schema WHERE name = 'rows_path'").fetchone()
    copy.sql("PRAGMA writable_schema = ON")
    copy.sql("UPDATE sqlite_schema SET sql = ? WHERE name = 'rows_path'", sql + " WHERE path <> '/p/3'")
    assert not copy.verify().ok


def test_a_crash_before_or_within_the_write_of_the_file_is_mended(tmp_path: Path) -> None:
    fill(str(tmp_path), rows=60, points=(20, 40, 60)).close()
    file = tmp_path / "checkpoints"
    text = file.read_text()
    whole, _ = notes.split(text)
    start = len(text) - len(whole[-1]) - 1
    for cut in (start, start + 1, start + 50, len(text) - 1):
        file.write_text(text[:cut])
        ledger = Ledger(str(tmp_path / "ledger.db"), key=KEY)
        assert ledger.verify().errors == []
        assert file.read_text() == text
        ledger.close()


def test_what_it_cannot_find_is_said(tmp_path: Path) -> None:
    ledger = fill(str(tmp_path), rows=60, points=(40,))
    report = ledger.verify()
    assert (report.ok, report.rows, report.checkpoints, report.unsigned) == (True, 60, 1, 20)
    assert any("after the last checkpoint" in line for line in report.limits)
    ledger._db.execute("DELETE FROM rows WHERE seq > 50")
    ledger._db.execute("DELETE FROM nodes")
    assert not ledger.verify().ok  # as long as the stored hashes were not made to agree
    ledger._db.close()


def test_proofs_hold_against_a_checkpoint(tmp_path: Path) -> None:
    ledger = fill(str(tmp_path), rows=ROWS)
    new = notes.read(ledger.checkpoint(), KEY.public_key())
    for seq in (1, 2, 128, 256, 257, ROWS):
        leaf, path = ledger.prove_inclusion(seq)
        assert merkle.root_from_inclusion(merkle.leaf_hash(leaf), seq - 1, ROWS, path) == new.root
    stored = [n for (n,) in ledger._db.execute("SELECT note FROM checkpoints ORDER BY size")]
    for note in stored:
        old = notes.read(note, KEY.public_key())
        assert merkle.consistent(old.size, old.root, new.size, new.root, ledger.prove_consistency(old.size))
    ledger.close()


def test_a_changed_table_is_found(pristine: str, place: Path) -> None:
    """A bit of the tables' own text, which no row hangs on, and at which writers stumble."""
    copy = fresh(pristine, place)
    copy.db.close()
    raw = Path(copy.path).read_bytes()
    assert b"CHECK (one = 1)" in raw
    Path(copy.path).write_bytes(raw.replace(b"CHECK (one = 1)", b"CHECK (nne = 1)"))
    assert not verify_file(copy.path, copy.checkpoints, KEY.public_key()).ok
