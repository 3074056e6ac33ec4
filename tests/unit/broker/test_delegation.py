"""What the broker holds of sub-sessions: the chain decides, grants reach who asks, and the end of one is the end of all below."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.clock import Clock
from remit_daemon.broker import events as ev
from remit_daemon.broker.core import Broker, Refused
from remit_daemon.broker.records import Session, session_of, to_json
from remit_policy.engine import Engine
from remit_policy.model import ALLOW, ASK, DENY, USER, Rule, Snapshot, loads
from remit_policy.scopes import RESOURCE

HOME = "/home/u"


class Desk:
    def __init__(self) -> None:
        self.clock = Clock()
        self.broker = Broker(Engine, HOME, self.clock.now)
        self.seq = 0

    def start(self, ident: str, agent: str, parent: str = "", **verdicts: int) -> list[ev.Command]:
        """Start a session; ``verdicts`` are those of reads below /NAME."""
        rules = tuple(Rule(USER, verdict, "read", f"/{name}/**") for name, verdict in verdicts.items())
        session = Session(
            ident, agent, 1, "i", (1 << 61) + int(ident[1:]), HOME, (agent,), self.clock.now, parent=parent
        )
        return self.handle(ev.Started(session, Snapshot(agent, rules)))

    def handle(self, event: ev.Event) -> list[ev.Command]:
        return self.broker.handle(event, self.clock.now)

    def ask(self, session: str, path: str) -> dict[str, Any]:
        self.seq += 1
        (frame,) = [
            c.frame
            for c in self.handle(ev.Ask(session, self.seq, ("read",), path))
            if isinstance(c, ev.Send)
        ]
        return frame


@pytest.fixture
def desk() -> Desk:
    d = Desk()
    d.start("s1", "boss", here=ALLOW, never=DENY)
    d.start("s2", "helper of boss", "s1", here=ALLOW, never=ALLOW, more=ALLOW)
    return d


def sends(commands: list[ev.Command], kind: str) -> list[tuple[str, dict[str, Any]]]:
    return [(c.session, c.frame) for c in commands if isinstance(c, ev.Send) and c.frame["type"] == kind]


def test_the_strictest_of_the_chain_decides(desk: Desk) -> None:
    assert desk.ask("s2", "/here/x")["verdict"] == "allow"
    assert desk.ask("s2", "/never/x")["verdict"] == "deny"
    assert desk.ask("s2", "/more/x")["type"] == "asked", "the one above asks"


def test_what_one_above_asks_becomes_a_grant_of_it_too(desk: Desk) -> None:
    prompt = desk.ask("s2", "/more/x")["prompt"]
    view = desk.broker.prompt(prompt)
    assert view["agent"] == "helper of boss"
    assert view["scopes"][0]["rule"] == 'allow boss read on "/more/x", always', (
        "the helper's own policy allows it"
    )
    shown = desk.broker.preview(ev.Answer(prompt, "allow", "session"))["rule"]
    out = desk.handle(ev.Answer(prompt, "allow", "session"))
    (reply,) = [c.result for c in out if isinstance(c, ev.Reply)]
    assert reply["rule"] == shown == 'allow boss read on "/more/x", for this session'
    (grant,) = desk.broker.state.grants.values()
    assert (grant.agent, grant.session) == ("boss", "s1")
    assert [s for s, _ in sends(out, "snapshot")] == ["s1", "s2"], "what is below follows from it"
    assert sends(out, "answer")[0][1]["verdict"] == "allow"
    assert desk.ask("s1", "/more/x")["verdict"] == "allow"
    desk.handle(ev.Revoke(id=grant.id))
    assert desk.ask("s2", "/more/x")["type"] == "asked"


def test_who_both_ask_both_get_it(desk: Desk) -> None:
    prompt = desk.ask("s2", "/other/x")["prompt"]
    assert desk.broker.preview(ev.Answer(prompt, "allow", "once"))["rule"].startswith(
        "allow helper of boss read"
    )
    desk.handle(ev.Answer(prompt, "allow", "always"))
    assert {g.agent for g in desk.broker.state.grants.values()} == {"helper of boss", "boss"}
    desk.start("s3", "helper")
    assert desk.ask("s3", "/other/x")["type"] == "asked", (
        "an agent that the person starts under that name is another"
    )


def test_a_refusal_is_the_sub_sessions_alone(desk: Desk) -> None:
    prompt = desk.ask("s2", "/other/x")["prompt"]
    desk.handle(ev.Answer(prompt, "deny", "session"))
    (grant,) = desk.broker.state.grants.values()
    assert (grant.agent, grant.session) == ("helper of boss", "s2")
    assert desk.ask("s2", "/other/x")["verdict"] == "deny"
    assert desk.ask("s1", "/other/x")["type"] == "asked"


def test_its_snapshot_is_within_that_of_the_one_above(desk: Desk) -> None:
    text, _ = desk.broker.snapshot("s2")
    within = loads(text).within
    assert within is not None
    assert within.agent == "boss"
    assert within.rules == loads(desk.broker.snapshot("s1")[0]).rules


def test_all_below_end_with_it(desk: Desk) -> None:
    desk.start("s4", "third of helper of boss", "s2")
    prompt = desk.ask("s4", "/other/x")["prompt"]
    out = desk.handle(ev.Ended("s1", 0))
    assert [c.record.id for c in out if isinstance(c, ev.Store) and isinstance(c.record, Session)] == [
        "s4",
        "s2",
        "s1",
    ]
    assert not any(s["state"] == "running" for s in desk.broker.sessions())
    assert desk.broker.prompt(prompt)["state"] == "missed"
    with pytest.raises(Refused):
        desk.start("s5", "late of boss", "s1")


def test_stopping_one_stops_what_is_below_and_nothing_above(desk: Desk) -> None:
    desk.start("s4", "third of helper of boss", "s2")
    tags = [c.tag - (1 << 61) for c in desk.handle(ev.Steer("s2", "stop")) if isinstance(c, ev.EndTree)]
    assert tags == [2, 4]
    assert [
        c.tag - (1 << 61) for c in desk.handle(ev.Steer("s1", "stop")) if isinstance(c, ev.EndTree)
    ] == [1]


def test_a_change_of_the_policy_above_reaches_what_is_below(desk: Desk) -> None:
    prompt = desk.ask("s2", "/more/x")["prompt"]
    rules = (Rule(USER, DENY, "read", "/**"), Rule(USER, ASK, "write", "/**"))
    out = desk.handle(ev.PolicyChanged({"s1": Snapshot("boss", rules)}))
    assert [s for s, _ in sends(out, "snapshot")] == ["s1", "s2"]
    assert desk.broker.prompt(prompt)["state"] == "denied"


def test_a_stored_session_keeps_what_is_above_it(desk: Desk) -> None:
    session = desk.broker.state.sessions["s2"]
    assert session_of(to_json(session)) == session
    assert session.chain == ("helper", "boss")
    assert session.presenter != desk.broker.state.sessions["s1"].presenter
    old = to_json(desk.broker.state.sessions["s1"]).replace(',"parent":""', "")
    assert session_of(old).parent == "", "one that an earlier release stored"


def test_a_token_too_is_what_the_whole_chain_may_have(desk: Desk) -> None:
    def may(ident: str, verdict: int) -> None:
        rule = Rule(USER, verdict, "use", RESOURCE + "files:read")
        desk.handle(ev.PolicyChanged({ident: Snapshot("x", (rule,))}))

    def word(ident: str) -> int:
        return desk.broker.judge.token(desk.broker.state, ident, ("files:read",))[0]

    may("s2", ALLOW)
    for verdict in (ASK, DENY, ALLOW):
        may("s1", verdict)
        assert word("s2") == verdict == word("s1")
    may("s2", DENY)
    assert (word("s1"), word("s2")) == (ALLOW, DENY)
