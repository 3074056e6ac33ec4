from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fakes.ledger import CLAUDE, T0, Clock, act, add
from remit_daemon.ledger import files
from remit_daemon.ledger.files import Commit, Left, Unsettled
from remit_daemon.ledger.queries import Filter
from remit_daemon.ledger.store import Ledger, LedgerError, SessionInfo
from remit_daemon.wire.journal import pack

OBJECT, OTHER = "fe01.1.d3c02000e73e71a2", "fe01.1.d4c0200011223344"
SUM = "cd" * 32


def did(seq: int, object: str = "", outcome: str = "ok") -> bytes:
    return pack(["done", str(seq), str(T0 + seq), outcome, *([object] if object else [])])


def take(ledger: Ledger, journal: str, *records: bytes) -> list[tuple[str, str]]:
    add(journal, *records)
    ledger.ingest(CLAUDE, journal)
    return [(of.object, of.path) for of in ledger.waiting(10)]


def test_what_waits_follows_the_sessions_own_renames(ledger: Ledger, journal: str) -> None:
    assert take(ledger, journal, act(1, "create", "/p/a.tmp"), did(1, OBJECT)) == [(OBJECT, "/p/a.tmp")]
    assert take(ledger, journal, act(2, "rename", "/p/a.tmp", path2="/p/a"), did(2)) == [(OBJECT, "/p/a")]
    assert take(ledger, journal, act(3, "rename", "/p", path2="/q"), did(3)) == [(OBJECT, "/q/a")]
    assert take(ledger, journal, act(4, "rename", "/q/a", path2="/r"), did(4, "", "ENOENT")) == [
        (OBJECT, "/q/a")
    ]
    assert take(ledger, journal, act(5, "create", "/q/b"), did(5, OTHER)) == [
        (OBJECT, "/q/a"),
        (OTHER, "/q/b"),
    ]
    assert take(ledger, journal, act(6, "rename", "/q/b", path2="/q/a"), did(6)) == [(OTHER, "/q/a")]
    assert take(ledger, journal, act(7, "link", "/q/a", path2="/q/c"), did(7, OTHER)) == [(OTHER, "/q/c")]
    assert take(ledger, journal, act(8, "delete", "/q/a"), did(8)) == [(OTHER, "/q/c")]
    assert take(ledger, journal, act(9, "delete", "/q/c"), did(9)) == []


def test_an_act_without_effect_or_object_waits_for_nothing(ledger: Ledger, journal: str) -> None:
    assert take(ledger, journal, act(1), did(1, "", "ok"), act(2), did(2, OBJECT, "EACCES"), act(3, "read"), did(3, OBJECT)) == []  # fmt: skip


def test_a_done_in_a_later_batch_counts(ledger: Ledger, journal: str) -> None:
    assert take(ledger, journal, act(1, "write", "/p/a")) == []
    assert take(ledger, journal, did(1, OBJECT)) == [(OBJECT, "/p/a")]


def test_a_git_object_that_is_gone_still_waits_and_goes_first(ledger: Ledger, journal: str) -> None:
    loose = "/p/.git/objects/ab/" + "c" * 38
    take(
        ledger, journal, act(1, "create", "/p/x"), did(1, OTHER), act(2, "create", "/p/.git/objects/ab/tmp_obj_1"), did(2, OBJECT),
        act(3, "link", "/p/.git/objects/ab/tmp_obj_1", path2=loose), did(3, OBJECT),
        act(4, "delete", "/p/.git/objects/ab/tmp_obj_1"), did(4), act(5, "delete", loose), did(5),
    )  # fmt: skip
    first = ledger.waiting(10)[0]
    assert (first.path, first.git_object) == (loose, ("/p/.git", "ab" + "c" * 38))
    assert ledger.waiting(10)[1].git_object is None


def left(ledger: Ledger, path: str = "/p/a", object: str = OBJECT, sha256: str = SUM, seq: int = 1) -> None:
    of = Unsettled(object, "s1", "claude", path, seq, T0)
    ledger.settle([Left(of, sha256, 40, 12345)] if sha256 else [Left(of, why="too big to hash")], [of])


def test_what_was_left_is_found_by_object_and_by_content(ledger: Ledger, journal: str) -> None:
    take(ledger, journal, act(1, "create", "/p/a"), did(1, OBJECT))
    left(ledger)
    assert ledger.waiting(10) == []
    trace = ledger.left_in(OBJECT)
    assert trace is not None
    assert (trace.path, trace.seq, trace.sha256, trace.size, trace.ctime_ns) == ("/p/a", 1, SUM, 40, 12345)
    assert ledger.left_in(OBJECT[:-1]) is None
    assert ledger.left_in(OBJECT + "00") is None
    left(ledger, "/p/b", OTHER, SUM)
    assert ledger.left_with(SUM, "/p/b").path == "/p/b"  # type: ignore[union-attr]
    assert ledger.left_with(SUM, "/elsewhere").path == "/p/a"  # type: ignore[union-attr]
    assert ledger.left_with("", "/p/a") is None
    left(ledger, sha256="", seq=2)
    again = ledger.left_in(OBJECT)
    assert again is not None
    assert (again.seq, again.sha256) == (2, "")


def test_a_file_written_again_meanwhile_stays_on_the_list(ledger: Ledger, journal: str) -> None:
    take(ledger, journal, act(1), did(1, OBJECT))
    before = ledger.waiting(10)
    take(ledger, journal, act(2), did(2, OBJECT))
    ledger.settle([], before)
    assert [of.seq for of in ledger.waiting(10)] == [2]


def test_a_commit_is_found_by_the_beginning_of_its_id(ledger: Ledger) -> None:
    of = Unsettled(OBJECT, "s1", "claude", "/p/.git/objects/ab/" + "c" * 38, 1, 0)
    ledger.settle([Commit(of, "/p", "ab" + "c" * 38, "made in this session, without its trailer")], [of])
    assert [e["path"] for e in ledger.commits("abccccc")] == ["/p"]
    assert ledger.commits("abd") == []
    assert ledger.query(Filter())[0]["op"] == "commit"


def test_the_rows_are_signed_with_the_rest(ledger: Ledger, journal: str, tmp_path: Path) -> None:
    take(ledger, journal, act(1, "create", "/p/a"), did(1, OBJECT))
    left(ledger)
    ledger.checkpoint()
    assert ledger.verify().ok
    db = sqlite3.connect(tmp_path / "ledger.db")
    db.execute("UPDATE rows SET sha256 = ? WHERE op = 'left'", ("ef" * 32,))
    db.commit()
    db.close()
    assert not ledger.verify().ok


def test_a_ledger_of_another_version_is_named(tmp_path: Path, clock: Clock, key: Ed25519PrivateKey) -> None:
    path = str(tmp_path / "old.db")
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 1")
    db.close()
    with pytest.raises(LedgerError, match=r"old\.db is a ledger of version 1"):
        Ledger(path, key=key, clock=clock)


@pytest.mark.parametrize("room", [0, 1])
def test_no_more_wait_than_may(
    ledger: Ledger, journal: str, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_UNSETTLED", room)
    assert len(take(ledger, journal, act(1), did(1, OBJECT), act(2), did(2, OTHER))) == room


def test_the_program_that_wrote_it_is_its_process_last_start(ledger: Ledger, journal: str) -> None:
    take(
        ledger, journal, act(1, "exec", "/usr/bin/git", outcome="passed", argv=("git", "fetch")),
        act(2, "exec", "/usr/bin/git", outcome="passed", pid="13", argv=("git", "unpack-objects")), act(3, "create", "/p/a", pid="13"),
    )  # fmt: skip
    ledger.ingest(SessionInfo("s2", "codex"), journal + "2")
    assert ledger.program_of(3) == ["git", "unpack-objects"]
    assert ledger.program_of(99) == []
