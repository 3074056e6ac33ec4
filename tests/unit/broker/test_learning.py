"""What a session that learns is let through with, and all that it is asked about nevertheless."""

from __future__ import annotations

import pytest

from fakes.desk import HOME, Desk
from remit_daemon.broker import events as ev
from remit_daemon.wire.control import FIRST_AHEAD
from remit_policy.model import ADMIN, ASK, DENY, PACK, USER, Rule, Snapshot

RULES = (
    Rule(PACK, ASK, "read", HOME + "/.ssh/**", protected=True, source="pack:1"),
    Rule(PACK, ASK, "read", HOME + "/plain-ask/**", source="pack:2"),
    Rule(USER, ASK, "read", HOME + "/mine/**", source="u:1"),
    Rule(USER, DENY, "read", HOME + "/shut/**", source="u:2"),
    Rule(ADMIN, ASK, "connect", "pay.example.com", final=True, source="a:1"),
)


@pytest.fixture
def desk() -> Desk:
    found = Desk(*RULES)
    session = found.start(ask="learn")
    found.broker.state.bases[session] = Snapshot(
        "claude", RULES, variables={"PROJECT": HOME + "/work", "TMPDIR": "/tmp/s"}
    )
    return found


@pytest.mark.parametrize(
    ("ops", "path"),
    [
        (("read",), HOME + "/notes/a.md"),
        (("list",), HOME + "/notes"),
        (("execute",), HOME + "/tools/fmt"),
        (("create", "write"), HOME + "/notes/new.md"),
        (("delete",), HOME + "/work/old"),
        (("write",), "/tmp/s/x"),
        (("read",), HOME + "/work/.hidden"),
        (("connect",), "pypi.example.org:443"),
        (("resolve",), "pypi.example.org"),
    ],
)
def test_let_through_and_recorded(desk: Desk, ops: tuple[str, ...], path: str) -> None:
    commands = desk.handle(ev.Ask("s1", 1, ops, path, source="default"))
    (row,) = [c.entry for c in commands if isinstance(c, ev.Record)]
    assert (row["actor"], row["op"], row["path"]) == ("remit", "learn", path)
    assert set(row["note"].split()) == set(ops)
    assert [c.frame["verdict"] for c in commands if isinstance(c, ev.Send)] == ["allow"]


def test_nothing_is_learnt_while_what_would_be_asked_is_denied(desk: Desk) -> None:
    desk.handle(ev.Quiet("deny", 600))
    commands = desk.handle(ev.Ask("s1", 1, ("read",), HOME + "/notes/a.md", source="default"))
    assert [c.frame["verdict"] for c in commands if isinstance(c, ev.Send)] == ["deny"]
    desk.handle(ev.Quiet("off", 0))
    commands = desk.handle(ev.Ask("s1", 2, ("read",), HOME + "/notes/a.md", source="default"))
    assert [c.frame["verdict"] for c in commands if isinstance(c, ev.Send)] == ["allow"]


@pytest.mark.parametrize(
    ("ops", "path", "more"),
    [
        (("read",), HOME + "/.ssh/id_ed25519", {}),
        (("read",), HOME + "/plain-ask/x", {}),
        (("read",), HOME + "/mine/x", {}),
        (("read",), HOME + "/.config/tool/token", {}),
        (("read",), HOME + "/backup/id_rsa", {}),
        (("read",), HOME + "/old/server.pem", {}),
        (("write",), HOME + "/notes/a.md", {}),
        (("delete",), HOME + "/notes/a.md", {}),
        (("metadata",), HOME + "/notes/a.md", {}),
        (("create", "write"), HOME + "/Desktop/game.desktop", {}),
        (("read",), HOME + "/old/passwords.txt", {}),
        (("create", "delete"), HOME + "/notes/a.md", {}),
        (("create",), HOME + "/work/link", {"path2": HOME + "/.ssh/id_ed25519"}),
        (("read",), HOME + "/notes/a.md", {"source": "u:9"}),
        (("connect",), "192.168.1.1:80", {}),
        (("connect",), "93.184.216.34:443", {}),
        (("connect",), "localhost:5432", {}),
        (("connect",), "intranet:80", {}),
        (("connect",), "db.prod.internal:5432", {}),
        (("connect",), "/run/user/1000/x.sock", {}),
        (("connect",), "@abstract", {}),
        (("connect",), "pay.example.com:443", {}),
        (("listen",), "*:80", {}),
        (("use",), "app:keys", {}),
        (("call",), "org.x.Y org.x.Y.Z /org/x", {}),
    ],
)
def test_asked_nevertheless(desk: Desk, ops: tuple[str, ...], path: str, more: dict[str, str]) -> None:
    commands = desk.handle(ev.Ask("s1", 1, ops, path, **more))
    assert [c.frame["type"] for c in commands if isinstance(c, ev.Send)] == ["asked"]


def test_what_is_denied_stays_denied(desk: Desk) -> None:
    assert desk.ask("s1", HOME + "/shut/x")["verdict"] == "deny"


def test_what_is_asked_ahead_teaches_nothing(desk: Desk) -> None:
    """Else an agent has rules proposed by naming files that it never touched, and that need not exist."""
    for i in range(9):
        commands = desk.handle(ev.Ask("s1", FIRST_AHEAD + i, ("read",), f"{HOME}/notes/{i}.md"))
        (row,) = [c.entry for c in commands if isinstance(c, ev.Record)]
        assert (row["actor"], row["op"], row["verdict"]) == ("remit", "answer", "allow")
        assert [c.frame["verdict"] for c in commands if isinstance(c, ev.Send)] == ["allow"]


def test_no_other_session_learns() -> None:
    desk = Desk()
    desk.start()
    assert desk.ask("s1", HOME + "/notes/a.md")["type"] == "asked"
