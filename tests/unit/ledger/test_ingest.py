from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fakes.ledger import CLAUDE, T0, Clock, act, add, count, done
from remit_daemon.ledger import store
from remit_daemon.ledger.queries import Filter
from remit_daemon.ledger.store import Ledger, LedgerError
from remit_daemon.wire.journal import pack


def outcomes(ledger: Ledger) -> list[str]:
    return [entry["outcome"] for entry in ledger.query(Filter(actor="agent"))]


def damages(ledger: Ledger) -> list[str]:
    return [entry["note"] for entry in ledger.query(Filter(op="damage"))]


def test_a_done_beside_its_act_is_one_row(ledger: Ledger, journal: str) -> None:
    add(journal, act(1, argv=("a", "\udcff")), done(1), act(2, outcome="passed"), act(3), done(3, "EISDIR"))
    assert ledger.ingest(CLAUDE, journal) == 5
    assert ledger.size() == 3
    assert outcomes(ledger) == ["ok", "passed", "EISDIR"]
    entry = ledger.query(Filter(limit=3))[0]
    assert entry == {
        "seq": 1, "time": (T0 + 1) / 1e9, "actor": "agent", "agent": "claude", "session": "s1", "pid": 12,
        "proc": "4026", "exe": "/usr/bin/node", "sha256": "ab" * 32, "op": "write", "path": "/p/a", "path2": "",
        "verdict": "allow", "outcome": "ok", "rule": "user.toml:3", "prompt": "", "note": "", "argv": ["a", "\udcff"],
    }  # fmt: skip


def test_a_later_done_is_a_row_of_its_own_and_shown_with_its_act(ledger: Ledger, journal: str) -> None:
    add(journal, act(1), act(2, verdict="ask", outcome="held"))
    ledger.ingest(CLAUDE, journal)
    assert outcomes(ledger) == ["pending", "held"]
    add(journal, done(2, "denied"), done(1, "ENOSPC"))
    assert ledger.ingest(CLAUDE, journal) == 2
    assert ledger.size() == 4
    assert outcomes(ledger) == ["ENOSPC", "denied"]
    completions = ledger.query(Filter(op="done"))
    assert [(e["act"], e["outcome"]) for e in completions] == [(2, "denied"), (1, "ENOSPC")]
    assert ledger.query(Filter(outcome="denied"))[0]["seq"] == 2
    assert ledger.query(Filter(outcome="held")) == []
    assert ledger.verify().ok


def test_records_are_read_once(ledger: Ledger, journal: str) -> None:
    assert ledger.ingest(CLAUDE, journal) == 0  # no journal yet
    add(journal, act(1), done(1))
    assert ledger.ingest(CLAUDE, journal) == 2
    assert ledger.ingest(CLAUDE, journal) == 0
    assert ledger.size() == 1


def test_an_unfinished_record_waits(ledger: Ledger, journal: str) -> None:
    whole = act(1) + done(1)
    for size in range(len(whole) + 1):
        with open(journal, "wb") as file:
            file.write(whole[:size])
        ledger.ingest(CLAUDE, journal)
    assert ledger.size() == 2  # the act came before its done was whole
    assert outcomes(ledger) == ["ok"]
    assert damages(ledger) == []


def test_reading_goes_on_over_the_chunk(
    ledger: Ledger, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "CHUNK", 400)
    for seq in range(1, 50):
        add(journal, act(seq), done(seq))
    assert ledger.ingest(CLAUDE, journal) == 98
    assert outcomes(ledger) == ["ok"] * 49


def test_damage_is_told_and_ends_the_reading(ledger: Ledger, journal: str) -> None:
    bad = bytearray(act(2))
    bad[-1] ^= 1
    add(journal, act(1), bytes(bad), act(3))
    assert ledger.ingest(CLAUDE, journal) == 1
    (note,) = damages(ledger)
    assert f"offset {len(act(1))}" in note
    assert "checksum" in note
    damage = ledger.query(Filter(actor="remit"))[0]
    assert (damage["agent"], damage["session"]) == ("claude", "s1")
    assert ledger.ingest(CLAUDE, journal) == 0
    assert ledger.size() == 2
    assert ledger.forget(CLAUDE, journal) is False
    assert os.path.exists(journal)
    assert ledger.verify().ok


@pytest.mark.parametrize(
    "record",
    [
        pack(["what"]), pack(["act", "2"]), pack(["done", "1"]), pack(["count", "2", "0", "read", "many"]),
        act(2, pid="x"), act(2, pid="-4"), act(2, op=""), pack(["done", "one", "0", "ok"]), pack([""]),
    ],
)  # fmt: skip
def test_a_whole_record_that_says_nothing_is_damage(ledger: Ledger, journal: str, record: bytes) -> None:
    add(journal, act(1), record)
    ledger.ingest(CLAUDE, journal)
    assert len(damages(ledger)) == 1
    assert len(outcomes(ledger)) == 1


def test_gaps_and_repetitions_in_the_numbers_are_told(ledger: Ledger, journal: str) -> None:
    add(journal, act(1, outcome="ok"), act(4, outcome="ok"), act(5, outcome="ok"))
    ledger.ingest(CLAUDE, journal)
    add(journal, act(5, outcome="ok"), act(6, outcome="ok"))
    ledger.ingest(CLAUDE, journal)
    assert damages(ledger) == ["the journal goes from record 1 to 4", "the journal goes from record 5 to 5"]
    assert outcomes(ledger) == ["ok"] * 5  # nothing was left out for it


def test_a_journal_whose_start_is_gone_is_told(ledger: Ledger, journal: str) -> None:
    add(journal, act(3, outcome="ok"))
    ledger.ingest(CLAUDE, journal)
    assert len(damages(ledger)) == 1


def test_a_journal_that_shrank_is_told(ledger: Ledger, journal: str) -> None:
    add(journal, act(1), done(1))
    ledger.ingest(CLAUDE, journal)
    os.truncate(journal, 5)
    assert ledger.ingest(CLAUDE, journal) == 0
    assert "ends before offset" in damages(ledger)[0]


def test_a_done_without_an_open_act_is_told(ledger: Ledger, journal: str) -> None:
    add(journal, act(1), done(1), done(1), act(2, outcome="passed"), done(2), done(9))
    ledger.ingest(CLAUDE, journal)
    add(journal, act(3))
    ledger.ingest(CLAUDE, journal)
    add(journal, done(3), done(3))
    ledger.ingest(CLAUDE, journal)
    assert len(damages(ledger)) == 4
    assert ledger.verify().ok


def test_counts_add_up_and_are_rows_too(ledger: Ledger, journal: str) -> None:
    add(journal, count(1, "read", 5), count(2, "list", 1), count(3, "read", 6))
    ledger.ingest(CLAUDE, journal)
    add(journal, count(4, "read", 1))
    ledger.ingest(CLAUDE, journal)
    assert ledger.counts("s1") == {"read": 12, "list": 1}
    assert ledger.counts("s2") == {}
    assert ledger.query(Filter()) == []
    assert [(e["path"], e["note"]) for e in ledger.query(Filter(op="count"))] == [
        ("read", "11"), ("list", "1"), ("read", "1"),
    ]  # fmt: skip


def test_forgetting_takes_the_rest_and_deletes_the_file(ledger: Ledger, journal: str) -> None:
    add(journal, act(1), act(2)[:-3])
    ledger.ingest(CLAUDE, journal)
    add(journal)
    assert ledger.forget(CLAUDE, journal) is True
    assert not os.path.exists(journal)
    assert "ends inside a record" in damages(ledger)[0]
    add(journal, act(1))  # the deletion did not survive a power failure
    assert ledger.ingest(CLAUDE, journal) == 0
    assert ledger.forget(CLAUDE, journal) is True
    assert ledger.size() == 2


def test_sessions_do_not_mix(ledger: Ledger, tmp_path: Path) -> None:
    codex = store.SessionInfo("s2", "codex")
    one, two = str(tmp_path / "1"), str(tmp_path / "2")
    add(one, act(1, path="/one"))
    add(two, act(1, path="/two"))
    ledger.ingest(CLAUDE, one)
    ledger.ingest(codex, two)
    add(two, done(1, "EIO"))
    ledger.ingest(codex, two)
    assert [(e["agent"], e["path"], e["outcome"]) for e in ledger.query(Filter())] == [
        ("claude", "/one", "pending"), ("codex", "/two", "EIO"),
    ]  # fmt: skip


def test_a_session_has_several_journals(ledger: Ledger, tmp_path: Path) -> None:
    own, gateway = str(tmp_path / "s1.journal"), str(tmp_path / "s1.g1.journal")
    add(own, act(1, path="/own"))
    add(gateway, act(1, path="example.com:443"))
    ledger.ingest(CLAUDE, own)
    ledger.ingest(CLAUDE, gateway)
    add(gateway, done(1, "EIO"))
    ledger.ingest(CLAUDE, gateway)
    ledger.ingest(CLAUDE, own)
    assert [(e["session"], e["path"], e["outcome"]) for e in ledger.query(Filter())] == [
        ("s1", "/own", "pending"), ("s1", "example.com:443", "EIO"),
    ]  # fmt: skip
    assert damages(ledger) == []


def test_a_failed_write_changes_nothing_and_can_be_tried_again(
    ledger: Ledger, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(journal, act(1), done(1))
    ledger.append([{"actor": "remit", "op": "reload"}])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_set_journal", full)
        with pytest.raises(LedgerError, match="No space"):
            ledger.ingest(CLAUDE, journal)
    assert ledger.size() == 1
    assert ledger.ingest(CLAUDE, journal) == 2
    assert ledger.verify().ok


def test_append_is_all_or_nothing(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="no actor"):
        ledger.append([{"actor": "human", "op": "grant"}, {"actor": "elf", "op": "grant"}])
    assert ledger.size() == 0
    assert ledger.append([{"actor": "human", "op": "grant"}] * 2) == [1, 2]
    assert ledger.append([]) == []
    assert ledger.verify().ok


def test_sync_makes_that_transaction_durable(ledger: Ledger) -> None:
    seen: list[str] = []
    ledger._db.set_trace_callback(seen.append)
    ledger.append([{"actor": "remit", "op": "reload"}])
    assert not any("synchronous" in line for line in seen)
    ledger.append([{"actor": "human", "op": "grant"}], sync=True)
    ledger._db.set_trace_callback(None)
    begin, commit = (
        max(i for i, line in enumerate(seen) if line.startswith(word)) for word in ("BEGIN", "COMMIT")
    )
    assert "FULL" in seen[begin - 1]
    assert "NORMAL" in seen[commit + 1]
    assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_files_are_private(ledger: Ledger, tmp_path: Path) -> None:
    ledger.append([{"actor": "human", "op": "grant"}])
    ledger.checkpoint()
    for name in os.listdir(tmp_path):
        assert os.stat(tmp_path / name).st_mode & 0o077 == 0, name


def test_opening_what_is_no_ledger_is_refused(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(b"hello" * 1000)
    with pytest.raises(LedgerError, match="cannot open the ledger"):
        Ledger(str(path), key=key)
    with pytest.raises(LedgerError, match="No such file"):
        Ledger(str(tmp_path / "none" / "x.db"), key=key)
    with pytest.raises(LedgerError, match="key"):
        Ledger(str(tmp_path / "y.db"), key=str(path))


def test_checkpoints_come_at_a_bounded_rate(
    ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "CHECKPOINT_ROWS", 10)
    row = {"actor": "remit", "op": "reload"}

    def made() -> int:
        return ledger._db.execute("SELECT count(*) FROM checkpoints").fetchone()[0]  # type: ignore[no-any-return]

    for _ in range(30):
        ledger.append([row])
    assert made() == 0  # not twice a second
    clock.now += store.CHECKPOINT_GAP_NS
    ledger.append([row])
    ledger.append([row])
    assert made() == 1
    clock.now += store.CHECKPOINT_NS - 1
    assert ledger.tick() is False
    clock.now += 1
    assert ledger.tick() is True
    assert ledger.tick() is False
    clock.now -= 2 * store.CHECKPOINT_NS  # set back
    ledger.append([row])
    assert made() == 3


def test_a_checkpoint_that_fails_is_made_good_and_hides_no_row(
    ledger: Ledger, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"actor": "human", "op": "grant"}

    def full(_fd: int, _data: bytes) -> int:
        return 3

    for expected in ([1], [2]):
        clock.now += store.CHECKPOINT_NS
        with monkeypatch.context() as patch:
            patch.setattr(store.os, "write", full)
            assert ledger.append([row]) == expected
        assert "No space" in ledger.trouble
    clock.now += store.CHECKPOINT_NS
    ledger.append([row])
    assert ledger.trouble == ""
    report = ledger.verify()
    assert (report.errors, report.checkpoints) == ([], 3)
