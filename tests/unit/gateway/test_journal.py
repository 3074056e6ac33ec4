"""The gateway's journal: whole records or none, whatever the names in it and whatever the disk does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remit_daemon.gateway import journal as module
from remit_daemon.gateway.authority import Origin
from remit_daemon.gateway.journal import Journal
from remit_daemon.wire import journal as records
from remit_daemon.wire.journal import JournalFailed

ORIGIN = Origin(7, "77", "/usr/bin/curl", "curl")


def rows(path: Path) -> list[list[str]]:
    raw = path.read_bytes()
    found = list(records.unpack(raw))
    assert (found[-1][1] if found else 0) == len(raw)  # nothing unread at its end
    return [fields for fields, _ in found]


def test_it_is_new_and_private(tmp_path: Path) -> None:
    path = tmp_path / "j"
    Journal(str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        Journal(str(path))
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        Journal(str(tmp_path / "link"))


@pytest.mark.parametrize(
    "name", ["a\0b", "\ud800", "x" * 100_000, "\U0001f600" * 20_000, "line\nbreak\x1b[2J", "é"]
)
def test_any_name_can_be_recorded(tmp_path: Path, name: str) -> None:
    journal = Journal(str(tmp_path / "j"), clock=lambda: 5)
    origin = Origin(7, name, name, name, (name,) * 200)
    journal.act(
        "connect", "deny", "refused", origin, name, path2=name, rule=name, note=name, argv=origin.argv
    )
    (row,) = rows(tmp_path / "j")
    assert len(row) >= len(records.ACT_FIELDS)
    assert row[:6] == ["act", "1", "5", "connect", "deny", "refused"]
    assert sum(map(len, row[len(records.ACT_FIELDS) :])) <= module.MAX_ARGV


def test_half_a_record_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(str(tmp_path / "j"))
    assert journal.act("connect", "allow", "pending", ORIGIN, "a:1") == 1
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, raw: write(fd, raw[: len(raw) // 2]))
    with pytest.raises(JournalFailed):
        journal.act("connect", "allow", "pending", ORIGIN, "b:1")
    monkeypatch.undo()
    assert journal.act("connect", "allow", "pending", ORIGIN, "c:1") == 2  # no number is left out
    journal.done(2, "ok")
    assert [(r[0], r[1]) for r in rows(tmp_path / "j")] == [("act", "1"), ("act", "2"), ("done", "2")]


def test_what_cannot_be_taken_back_ends_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(str(tmp_path / "j"))
    write = os.write

    def refuses(*_: object) -> None:
        raise OSError(1, "append only")

    monkeypatch.setattr(os, "write", lambda fd, raw: write(fd, raw[:5]))
    monkeypatch.setattr(os, "ftruncate", refuses)
    with pytest.raises(JournalFailed):
        journal.act("connect", "allow", "pending", ORIGIN, "a:1")
    monkeypatch.undo()
    with pytest.raises(JournalFailed):
        journal.act("connect", "allow", "pending", ORIGIN, "b:1")


def test_a_full_disk_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "j"))
    full = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr(journal, "_fd", full)
    with pytest.raises(JournalFailed, match="cannot be written"):
        journal.act("connect", "allow", "pending", ORIGIN, "a:1")
    journal.done(1, "ok")  # the effect has happened: nothing to refuse
    os.close(full)


def test_remitd_is_told_but_not_for_every_record(tmp_path: Path) -> None:
    pokes: list[int] = []
    journal = Journal(str(tmp_path / "j"), poke=lambda: pokes.append(1))
    for _ in range(50):
        journal.act("connect", "deny", "refused", ORIGIN, "a:1")
    assert 1 <= len(pokes) < 50


def test_what_was_let_go_is_not_written(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "journal"))
    journal.close()
    with (tmp_path / "other").open("wb") as other:  # has the number that the journal's had
        journal.close()
        with pytest.raises(JournalFailed):
            journal.act("connect", "allow", "pending", ORIGIN, "a:1")
        assert os.fstat(other.fileno()).st_size == 0
