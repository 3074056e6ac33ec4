"""The gateway's journal: numbered, whole, and whatever a sender named is in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit_daemon.gateway.authority import Origin
from remit_daemon.gateway.journal import MAX_ARGV, MAX_FIELD, Journal, tail
from remit_daemon.wire import journal as records
from remit_daemon.wire.journal import JournalFailed


def rows(path: Path) -> list[list[str]]:
    return [f for f, _ in records.unpack(path.read_bytes())]


def test_it_is_new_private_and_numbered(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(str(path), clock=lambda: 5)
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert [journal.act("connect", "allow", "pending", Origin(), f"{n}") for n in range(3)] == [1, 2, 3]
    journal.done(2, "ok")
    journal.done_all([(1, "ok"), (3, "ECONNRESET")])
    assert [r[:2] for r in rows(path)] == [
        ["act", "1"],
        ["act", "2"],
        ["act", "3"],
        ["done", "2"],
        ["done", "1"],
        ["done", "3"],
    ]
    journal.sync()
    with pytest.raises(FileExistsError):
        Journal(str(path))
    os.symlink(tmp_path / "elsewhere", tmp_path / "link")
    with pytest.raises(OSError):
        Journal(str(tmp_path / "link"))
    assert not (tmp_path / "elsewhere").exists()


@given(st.lists(st.text(max_size=40), min_size=4, max_size=4))
def test_any_text_is_one_field(texts: list[str]) -> None:
    raw = records.seal(
        b"act\x001\x005\0"
        + tail("connect", "deny", "refused", Origin(exe=texts[0]), texts[1], rule=texts[2], note=texts[3])
    )
    ((fields, _),) = records.unpack(raw)
    assert len(fields) == 15
    assert fields[3:6] == ["connect", "deny", "refused"]
    for at, text in ((8, texts[0]), (10, texts[1]), (12, texts[2]), (14, texts[3])):
        if "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text):
            assert fields[at] == text


@pytest.mark.parametrize(
    "text", ["a\0b", "\ud800", chr(0xDC80), "x" * (MAX_FIELD * 2), "\n\r\t\x1b[2J", "\u202e"]
)
def test_hostile_text_is_written(tmp_path: Path, text: str) -> None:
    journal = Journal(str(tmp_path / "journal"))
    journal.act("connect", "deny", "refused", Origin(), text, note=text, argv=[text] * 20)
    journal.done(1, text)
    act, done = rows(tmp_path / "journal")
    assert len(act[10]) <= MAX_FIELD + 10
    assert sum(map(len, act)) < MAX_ARGV + 4 * MAX_FIELD
    assert len(done) == 4


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "journal"))
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal._fd)
    os.close(full)
    with pytest.raises(JournalFailed):
        journal.act("connect", "allow", "pending", Origin(), "x")
    journal.done(1, "ok")  # the effect has been: no error
    journal.done_all([(1, "ok")])


def test_growth_is_told_and_not_too_often(tmp_path: Path) -> None:
    told: list[int] = []
    journal = Journal(str(tmp_path / "journal"), poke=lambda: told.append(1))
    for _ in range(1000):
        journal.again(b"x")
    assert 1 <= len(told) < 500
