"""A session's report: human and agent apart, what took effect apart from what did not, and honest when cut."""

from __future__ import annotations

from typing import Any

from remit_daemon.ledger.report import STEPS, build, few_lines, lines
from remit_daemon.ledger.schema import open_reader
from remit_daemon.ledger.store import Ledger
from remit_daemon.wire.escape import escape


def act(op: str, path: str, outcome: str = "ok", verdict: str = "allow", **fields: Any) -> dict[str, Any]:
    return {
        "actor": "agent", "agent": "claude", "session": "s1", "op": op, "path": path, "verdict": verdict, "outcome": outcome,
        "time": 1000.0, **fields,
    }  # fmt: skip


def report(ledger: Ledger, *rows: dict[str, Any], within: float = 10.0) -> dict[str, Any]:
    ledger.append(rows)
    db = open_reader(ledger.path)
    try:
        return build(db, "s1", within)
    finally:
        db.close()


def test_what_was_done_denied_and_asked(ledger: Ledger) -> None:
    found = report(
        ledger,
        act("write", "/p/a.py"),
        act("write", "/p/a.py"),
        act("write", "/dev/null"),
        act("rename", "/p/x", path2="/p/b.py"),
        act("delete", "/p/old"),
        act("write", "/p/no", "denied", "ask", prompt="p1"),
        act("read", "/p/yes", "ok", "ask", prompt="p2", time=1200.0),
        act("read", "/k\x1b[2J", "refused", "deny", rule="f:1"),
        act("connect", "pypi.org:443"),
        act("request", "GET https://api.x.org/a?b"),
        {"actor": "human", "agent": "claude", "session": "s1", "op": "answer", "prompt": "p2", "verdict": "allow", "note": "allow it"},
        act("write", "/elsewhere", session="s2"),
    )  # fmt: skip
    assert found["acts"] == {"write": 4, "rename": 1, "delete": 1, "read": 2, "connect": 1, "request": 1}
    assert found["human"] == {"answer": 1}
    assert found["changed"] == {"number": 2, "paths": ["/p/a.py", "/p/b.py"]}
    assert found["deleted"] == {"number": 1, "paths": ["/p/old"]}
    assert found["hosts"] == [{"host": "pypi.org", "acts": 1}, {"host": "api.x.org", "acts": 1}]
    assert found["denied"]["number"] == 2
    assert found["asked"] == {"number": 2, "allowed": 1, "denied": 1, "missed": 0}
    assert [a["rule"] for a in found["answers"]] == ["allow it"]
    assert found["directories"][0] == {"path": "/p", "acts": 6, "changes": 3}
    assert sum(found["timeline"]["acts"]) == 10
    assert len(found["timeline"]["acts"]) <= STEPS
    said = [*few_lines(found, escape), *lines(found, escape)]
    assert not any("\x1b" in line for line in said)
    assert few_lines(found, escape)[0] == "2 files changed, 1 file deleted"
    assert len(few_lines(found, escape)) <= 4


def test_a_later_outcome_counts(ledger: Ledger) -> None:
    (seq,) = ledger.append([act("write", "/p/held", "held", "ask", prompt="p1")])
    ledger._db.execute(
        "INSERT INTO rows SELECT seq + 1, time_ns, actor, agent, session, pid, proc, exe, sha256, 'done', path, path2, verdict,"
        " 'expired', rule, prompt, note, argv, seq FROM rows WHERE seq = ?",
        (seq,),
    )
    db = open_reader(ledger.path)
    found = build(db, "s1", 10.0)
    db.close()
    assert (found["changed"]["number"], found["asked"]["missed"]) == (0, 1)


def test_what_is_only_bookkeeping_or_an_error_of_linux_is_not_denied(ledger: Ledger) -> None:
    found = report(
        ledger,
        act("write", "/p/a"),
        act("left", "/p/a", "", ""),
        act("create", "/p/a", "EEXIST"),
        act("write", "/p/b", "ENOSPC", "allow", prompt="p1"),
        act("read", "/p/c", "gone", "ask", prompt="p2"),
    )
    assert (found["denied"]["number"], found["acts"]) == (0, {"write": 2, "create": 1, "read": 1})
    assert found["asked"] == {"number": 2, "allowed": 1, "denied": 0, "missed": 1}


def test_what_came_and_went_within_the_session_is_no_file_that_it_changed(ledger: Ledger) -> None:
    found = report(
        ledger,
        act("create", "/p/tmp"),
        act("link", "/p/tmp", path2="/p/object"),
        act("delete", "/p/tmp"),
        act("create", "/p/f.lock"),
        act("rename", "/p/f.lock", path2="/p/f"),
        act("write", "/p/old"),
        act("delete", "/p/old"),
    )
    assert found["changed"]["paths"] == ["/p/object", "/p/f"]
    assert found["deleted"]["paths"] == ["/p/old"]


def test_nothing_worth_saying_is_not_said(ledger: Ledger) -> None:
    assert few_lines(report(ledger, act("read", "/p/a")), escape) == []


def test_a_report_that_was_cut_says_so(ledger: Ledger) -> None:
    found = report(ledger, *(act("write", f"/p/{n}") for n in range(5000)), within=-1.0)
    assert found["at_least"]
    assert found["acts"].get("write", 0) < 5000
