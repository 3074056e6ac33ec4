"""The supervisor's journal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remit_daemon.supervisor import record
from remit_daemon.supervisor.target import Targets
from remit_daemon.wire import journal


def test_an_act_is_completed_by_its_own_number_when_a_count_comes_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Static reads are counted every half minute, behind an act: its completion must not name the count."""
    monkeypatch.setattr(record, "_COUNT_EVERY", -1.0)
    path = tmp_path / "s1.journal"
    written = record.Journal(str(path), Targets(1), lambda: None)
    written.static_reads = 3
    first = written.act("exec", "allow", "pending", None, "/bin/true")
    second = written.act("exec", "allow", "pending", None, "/bin/false")
    written.done(second, "passed")
    written.done(first, "passed")
    records = [fields[:2] for fields, _ in journal.unpack(path.read_bytes())]
    assert records == [["act", "1"], ["count", "2"], ["act", "3"], ["done", "3"], ["done", "1"]]


def test_half_a_record_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full in the middle of a record: the act is refused, and what comes later can be read."""
    path = tmp_path / "s1.journal"
    written = record.Journal(str(path), Targets(1), lambda: None)
    written.act("read", "allow", "pending", None, "/a")
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, raw: real(fd, raw[:7]))
    with pytest.raises(record.JournalFailed):
        written.act("read", "allow", "pending", None, "/b")
    monkeypatch.undo()
    assert written.act("read", "allow", "pending", None, "/c") == 2
    records = [(fields[1], fields[10]) for fields, _ in journal.unpack(path.read_bytes())]
    assert records == [("1", "/a"), ("2", "/c")]


def test_what_cannot_be_taken_back_ends_the_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = record.Journal(str(tmp_path / "s1.journal"), Targets(1), lambda: None)
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, raw: real(fd, raw[:7]))
    monkeypatch.setattr(os, "ftruncate", lambda fd, size: os.close(-1))
    with pytest.raises(record.JournalFailed):
        written.act("read", "allow", "pending", None, "/b")
    monkeypatch.undo()
    with pytest.raises(record.JournalFailed, match="half a record"):
        written.act("read", "allow", "pending", None, "/c")
