"""The supervisor's journal."""

from __future__ import annotations

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
