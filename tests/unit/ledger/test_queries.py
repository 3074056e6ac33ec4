from __future__ import annotations

from pathlib import Path

import pytest

from fakes.ledger import CLAUDE, T0, act, add, done
from remit_daemon.ledger import queries
from remit_daemon.ledger.queries import Filter
from remit_daemon.ledger.store import Ledger, SessionInfo


def paths(ledger: Ledger, **wanted: object) -> list[str]:
    return [entry["path"] for entry in ledger.query(Filter.of(wanted))]


@pytest.fixture
def filled(ledger: Ledger, journal: str, tmp_path: Path) -> Ledger:
    add(
        journal,
        act(1, "read", "/p/a", outcome="passed"), act(2, "write", "/p/a/b"), done(2),
        act(3, "write", "/p/ab", outcome="passed"), act(4, "delete", "/p", verdict="deny", outcome="refused"),
        act(5, "rename", "/q/x", path2="/p/a/new", outcome="ok"), act(6, "read", "/p/a\\\udcff", outcome="ok"),
    )  # fmt: skip
    ledger.ingest(CLAUDE, journal)
    other = str(tmp_path / "s2.journal")
    add(other, act(1, "exec", "/usr/bin/git", outcome="passed", argv=("git", "push")))
    ledger.ingest(SessionInfo("s2", "codex"), other)
    ledger.append([
        {"actor": "human", "op": "answer", "agent": "claude", "session": "s1", "verdict": "deny", "path": "/p/z"},
        {"actor": "remit", "op": "daemon.start"},
    ])  # fmt: skip
    return ledger


def test_filters(filled: Ledger) -> None:
    assert len(paths(filled)) == 9
    assert paths(filled, actor="human") == ["/p/z"]
    assert paths(filled, actor="remit") == [""]
    assert paths(filled, agent="codex") == ["/usr/bin/git"]
    assert paths(filled, session="s2") == ["/usr/bin/git"]
    assert paths(filled, op="delete") == ["/p"]
    assert paths(filled, outcome="o") == paths(filled, outcome="ok x") == []
    assert paths(filled, outcome="ok") == ["/p/a/b", "/q/x", "/p/a\\\udcff"]
    assert paths(filled, since=T0 / 1e9 + 1) == []
    assert len(paths(filled, until=T0 / 1e9 + 1)) == 9


def test_a_path_selects_whole_components_below_it(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    for few in (queries._FEW, 1):  # by index, and by walking
        monkeypatch.setattr(queries, "_FEW", few)
        assert paths(filled, path="/p/a") == ["/p/a", "/p/a/b", "/q/x"]
        assert paths(filled, path="/p/a/") == ["/p/a", "/p/a/b", "/q/x"]
        assert paths(filled, path="/p/ab") == ["/p/ab"]
        assert paths(filled, path="/p/a\\\udcff") == ["/p/a\\\udcff"]
        assert len(paths(filled, path="/")) == 8
        assert paths(filled, path="/none") == []


def test_without_after_the_newest_and_with_it_the_next(filled: Ledger) -> None:
    assert [e["seq"] for e in filled.query(Filter(limit=2))] == [8, 9]
    assert [e["seq"] for e in filled.query(Filter(limit=2, after=0))] == [1, 2]
    assert [e["seq"] for e in filled.query(Filter(limit=2, after=8))] == [9]
    assert filled.query(Filter(limit=0)) == []


def test_what_a_host_a_rule_and_a_refusal_select(ledger: Ledger, journal: str) -> None:
    add(
        journal,
        act(1, "connect", "a.org:443", outcome="ok"), act(2, "connect", "xa.org:443", outcome="ok"),
        act(3, "resolve", "a.org", outcome="ok"), act(4, "request", "GET https://a.org/p", outcome="ok"),
        act(5, "request", "GET http://a.org:8080/p", outcome="ok", rule="user.toml:9"),
        act(6, "request", "GET https://evil.org/x://a.org/", outcome="ok"),
        act(7, "read", "a.org", outcome="refused", verdict="deny"), act(8, "read", "/x", verdict="ask", outcome="held"),
        done(8, "expired"), act(9, "read", "/y", verdict="ask", outcome="held"),
    )  # fmt: skip
    ledger.ingest(CLAUDE, journal)
    assert paths(ledger, host="a.org") == [
        "a.org:443", "a.org", "GET https://a.org/p", "GET http://a.org:8080/p"
    ]  # fmt: skip
    assert paths(ledger, host="a.org:443") == ["a.org:443"]
    assert paths(ledger, rule="user.toml:9") == ["GET http://a.org:8080/p"]
    assert paths(ledger, denied=True) == ["a.org", "/x"]


def walk(ledger: Ledger, **wanted: object) -> list[int]:
    """Turn every page; return the seqs in the order in which they came."""
    seen: list[int] = []
    forward = "after" in wanted
    for _ in range(200):
        got = ledger.page(Filter.of(wanted))
        seqs = [e["seq"] for e in got["entries"]]
        assert seqs == sorted(seqs)
        seen += seqs if forward else seqs[::-1]
        if got["next"] is None:
            return seen
        wanted |= {"after" if forward else "before": got["next"]}
    raise AssertionError("the pages have no end")


def test_pages_hold_all_that_is_selected_once(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    size = filled.size()
    shown = [e["seq"] for e in filled.query(Filter())]
    for stretch in (1, 2, 3, 100):
        monkeypatch.setattr(queries, "_STRETCH", stretch)
        monkeypatch.setattr(queries, "_STRETCH_INDEXED", stretch)
        for limit in (1, 2, 100):
            assert walk(filled, limit=limit) == shown[::-1]
            assert walk(filled, limit=limit, after=0) == shown
            assert walk(filled, limit=limit, after=4) == [s for s in shown if s > 4]
            assert walk(filled, limit=limit, before=6) == [s for s in shown[::-1] if s < 6]
            assert walk(filled, limit=limit, session="s2") == walk(filled, limit=limit, agent="codex")
            assert walk(filled, op="none") == []
    assert filled.page(Filter(after=size)) == {"entries": [], "next": None, "size": size}
    assert filled.page(Filter(before=1)) == {"entries": [], "next": None, "size": size}


def test_a_page_ends_where_the_ledger_did_and_goes_on_later(filled: Ledger) -> None:
    got = filled.page(Filter(after=filled.size() - 1, limit=10))
    assert got["next"] is None
    filled.append([{"actor": "remit", "op": "later"}])
    assert [e["op"] for e in filled.page(Filter(after=filled.size() - 1))["entries"]] == ["later"]


def test_find_gives_the_first_row_of_a_time(ledger: Ledger) -> None:
    ledger.append([{"actor": "remit", "op": "x", "time": float(t)} for t in (100, 200, 200, 300)])
    assert [ledger.find(t) for t in (0.0, 100.0, 100.5, 200.0, 300.0, 300.5)] == [1, 1, 2, 2, 4, None]


@pytest.mark.parametrize(
    "params",
    [{"colour": "x"}, {"limit": -1}, {"limit": "5"}, {"limit": None}, {"limit": True}, {"path": 5}, {"since": "now"},
     {"since": float("nan")}, {"since": 1e300}, {"after": 1 << 70}, {"before": "x"}, {"denied": "yes"}, {"denied": 1}],
)  # fmt: skip
def test_a_filter_that_is_none_is_refused(params: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="filter"):
        Filter.of(params)


def test_denials(filled: Ledger, journal: str) -> None:
    add(journal, *(act(n, "write", f"/d{n}", verdict="ask", outcome="held") for n in range(7, 12)))
    filled.ingest(CLAUDE, journal)
    assert [e["path"] for e in filled.denials()] == ["/p"]
    add(journal, done(7, "denied"), done(8, "expired"), done(9, "gone"), done(10, "allowed"))
    filled.ingest(CLAUDE, journal)
    assert [e["path"] for e in filled.denials("s1")] == ["/p", "/d7", "/d8"]
    assert [e["outcome"] for e in filled.denials("s1", 1)] == ["expired"]
    assert filled.denials("s2") == []
    assert filled.denials("s1", 0) == []


def who(ledger: Ledger, path: str) -> tuple[str, list[tuple[str, str]]]:
    answer = ledger.who(path)
    return answer["agent"], [(e["op"], e["path"]) for e in answer["entries"]]


def test_who_wrote_last(filled: Ledger) -> None:
    assert who(filled, "/p/a/b") == ("claude", [("write", "/p/a/b")])
    assert who(filled, "/p/a/b/") == ("claude", [("write", "/p/a/b")])
    answer = filled.who("/p/a")  # only read
    assert answer == {"actor": "", "agent": "", "session": "", "entries": [], "text": queries.NO_RECORD}
    assert filled.who("/p")["entries"] == []  # its deletion was refused


def test_who_follows_renames_links_and_moved_directories(
    ledger: Ledger, journal: str, tmp_path: Path
) -> None:
    add(
        journal,
        act(1, "create", "/w/dir/f", outcome="ok"),
        act(2, "rename", "/w/dir", path2="/w/moved", outcome="ok"),
    )
    ledger.ingest(CLAUDE, journal)
    other = str(tmp_path / "s2.journal")
    add(
        other,
        act(1, "rename", "/w/moved/f", path2="/w/g", outcome="ok"),
        act(2, "link", "/w/g", path2="/w/h", outcome="ok"),
    )
    ledger.ingest(SessionInfo("s2", "codex"), other)
    assert who(ledger, "/w/h") == (
        "codex",
        [("link", "/w/g"), ("rename", "/w/moved/f"), ("rename", "/w/dir"), ("create", "/w/dir/f")],
    )
    assert [e["agent"] for e in ledger.who("/w/h")["entries"]] == ["codex", "codex", "claude", "claude"]
    # What was moved away says so, by the name that it had.
    assert who(ledger, "/w/moved/f") == ("codex", [("rename", "/w/moved/f")])
    assert who(ledger, "/w/dir/f") == ("claude", [("rename", "/w/dir")])
    # A later write at the old name is no part of the story.
    add(journal, act(3, "write", "/w/dir/f", outcome="ok"))
    ledger.ingest(CLAUDE, journal)
    assert len(who(ledger, "/w/h")[1]) == 4
    assert who(ledger, "/w/dir/f") == ("claude", [("write", "/w/dir/f")])


def test_who_counts_only_what_took_effect(ledger: Ledger, journal: str) -> None:
    add(journal, act(1, path="/f", outcome="ok"), act(2, path="/f", verdict="ask", outcome="held"),
        act(3, path="/f", outcome="refused"), act(4, path="/f"), act(5, path="/f", outcome="EACCES"))  # fmt: skip
    ledger.ingest(CLAUDE, journal)
    assert ledger.who("/f")["entries"][0]["seq"] == 4  # begun, so it may have written
    add(journal, done(4, "EIO"))
    ledger.ingest(CLAUDE, journal)
    assert ledger.who("/f")["entries"][0]["seq"] == 1
    add(journal, done(2, "allowed"))
    ledger.ingest(CLAUDE, journal)
    assert ledger.who("/f")["entries"][0]["seq"] == 2


def test_a_circle_of_renames_ends(ledger: Ledger, journal: str) -> None:
    for n in range(1, 201, 2):
        add(
            journal,
            act(n, "rename", "/a", path2="/b", outcome="ok"),
            act(n + 1, "rename", "/b", path2="/a", outcome="ok"),
        )
    ledger.ingest(CLAUDE, journal)
    assert len(ledger.who("/a")["entries"]) == queries._MAX_HOPS


def test_questions_go_by_index(ledger: Ledger) -> None:
    """At a million rows a walk over all of them is what makes an answer slow, so no plan may hold one."""
    seen: list[str] = []
    ledger._db.set_trace_callback(seen.append)
    ledger.who("/a/b/c")
    ledger.denials("s1")
    ledger.query(Filter(session="s1"))
    ledger.query(Filter(path="/a"))
    ledger.query(Filter(actor="human"))
    ledger.query(Filter(after=5))
    ledger.page(Filter())
    ledger.page(Filter(after=3, denied=True, host="a.org"))
    ledger.page(Filter(before=9, session="s1"))
    ledger.find(1.0)
    ledger._db.set_trace_callback(None)
    assert len(seen) > 10
    for statement in seen:
        plan = [row[3] for row in ledger._db.execute("EXPLAIN QUERY PLAN " + statement)]
        scans = [step for step in plan if step.startswith("SCAN") and not step.startswith("SCAN (")]
        assert not scans, (statement, plan)
    changes = [s for s in seen if "'write'" in s]
    assert changes
    for statement in changes:
        plan = " ".join(row[3] for row in ledger._db.execute("EXPLAIN QUERY PLAN " + statement))
        assert "rows_change" in plan, (statement, plan)
        assert "TEMP B-TREE" not in plan, (statement, plan)


def test_the_work_of_who_does_not_grow_with_the_ledger(ledger: Ledger, journal: str) -> None:
    """Counted in SQLite's own steps, which no busy machine can change."""

    def steps() -> int:
        ticks = 0

        def tick() -> int:
            nonlocal ticks
            ticks += 1
            return 0

        ledger._db.set_progress_handler(tick, 1)
        ledger.who("/p/d/f0")
        ledger._db.set_progress_handler(None, 0)
        return ticks

    seq = 0

    def fill(upto: int) -> None:
        nonlocal seq
        records = []
        while seq < upto:
            seq += 1
            kind = {"op": "read"} if seq % 3 else {"outcome": "EISDIR"}
            records.append(act(seq, path="/p/d/f0", **({"outcome": "passed"} | kind)))  # type: ignore[arg-type]
        add(journal, *records)
        ledger.ingest(CLAUDE, journal)

    add(journal, act(1, path="/p/d/f0", outcome="ok"))
    seq = 1
    fill(100)
    small = steps()
    fill(5000)
    assert steps() <= small * 1.2
