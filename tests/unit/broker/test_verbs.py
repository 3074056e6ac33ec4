"""What the broker adds for programs that ask it themselves: asks ahead, purposes, sessions that nobody holds."""

from __future__ import annotations

import pytest

from remit_daemon.broker import events as ev
from remit_daemon.broker.asking import MAX_PURPOSE, MAX_STATED, STATED_LIFE
from remit_daemon.broker.core import Refused
from remit_daemon.broker.prompts import RETRY_BURST, RETRY_LIFE
from remit_daemon.broker.records import Session
from remit_daemon.wire.control import (
    FIRST_AHEAD,
    FIRST_OF_API,
    FIRST_OF_GATEWAY,
    is_ahead,
    of_api,
    of_gateway,
)
from remit_policy.model import ALLOW, ASK, DENY, USER, Rule, Snapshot
from unit.broker.test_core import Desk


def asked(desk: Desk, path: str, seq: int, purpose: str = "", op: str = "read") -> dict[str, object]:
    commands = desk.handle(ev.Ask("s1", seq, (op,), path, purpose=purpose))
    (frame,) = [c.frame for c in commands if isinstance(c, ev.Send)]
    return frame


def test_every_seq_is_one_sides() -> None:
    for seq, found in {
        1: (False, False, False),
        FIRST_OF_GATEWAY - 1: (False, False, False),
        FIRST_OF_GATEWAY: (True, False, False),
        FIRST_OF_API - 1: (True, False, False),
        FIRST_OF_API: (False, True, False),
        FIRST_AHEAD: (False, True, True),
    }.items():
        assert (of_gateway(seq), of_api(seq), is_ahead(seq)) == found


def test_an_answer_to_an_ask_ahead_waits_for_its_act() -> None:
    desk = Desk()
    desk.start()
    prompt = asked(desk, "/x", FIRST_AHEAD)["prompt"]
    assert desk.answer(str(prompt)) == [("answer", "allow")]
    desk.clock.pass_(RETRY_BURST + 1)
    assert asked(desk, "/x", FIRST_AHEAD + 1)["verdict"] == "allow", "asking again does not use it up"
    desk.clock.pass_(RETRY_LIFE - RETRY_BURST - 10)
    assert desk.ask("s1", "/x")["verdict"] == "allow"
    desk.clock.pass_(RETRY_BURST + 1)
    assert desk.ask("s1", "/x")["type"] == "asked"


def test_an_act_of_remitds_own_uses_the_answer_up() -> None:
    desk = Desk()
    desk.start()
    prompt = asked(desk, "/x", FIRST_OF_API)["prompt"]
    desk.answer(str(prompt))
    desk.clock.pass_(RETRY_BURST + 1)
    assert asked(desk, "/x", FIRST_OF_API + 1)["type"] == "asked"


def test_a_lost_supervisor_leaves_our_own_asks_alone() -> None:
    desk = Desk()
    desk.start()
    asked(desk, "/x", FIRST_AHEAD)
    mine = desk.ask("s1", "/y")
    for gateway in (False, True):
        desk.handle(ev.Lost("s1", gateway))
    assert [key[1] for key in desk.broker.state.holds] == [FIRST_AHEAD]
    assert mine["type"] == "asked"


def test_the_first_purpose_stays() -> None:
    desk = Desk()
    desk.start()
    ident = str(asked(desk, "/x", FIRST_AHEAD)["prompt"])
    assert desk.broker.prompt(ident)["purpose"] == ""
    asked(desk, "/x", FIRST_AHEAD + 1, "to look")
    asked(desk, "/x", FIRST_AHEAD + 2, "to look much closer")
    assert desk.broker.prompt(ident)["purpose"] == "to look"


def test_what_was_stated_is_the_purpose_of_the_next_questions() -> None:
    desk = Desk()
    desk.start()
    desk.handle(ev.Intent("s1", ("/x",), "for x"))
    assert desk.broker.prompt(desk.ask("s1", "/y")["prompt"])["purpose"] == ""
    assert desk.broker.prompt(desk.ask("s1", "/x")["prompt"])["purpose"] == "for x"
    desk.handle(ev.Intent("s1", (), "for all"))
    assert desk.broker.prompt(desk.ask("s1", "/z")["prompt"])["purpose"] == "for all"
    desk.clock.pass_(STATED_LIFE + 1)
    assert desk.broker.prompt(desk.ask("s1", "/late")["prompt"])["purpose"] == ""


def test_purposes_have_limits() -> None:
    desk = Desk()
    desk.start()
    with pytest.raises(Refused):
        desk.handle(ev.Intent("s1", (), ""))
    with pytest.raises(Refused):
        desk.handle(ev.Intent("s1", (), "x" * (MAX_PURPOSE + 1)))
    with pytest.raises(Refused):
        asked(desk, "/x", FIRST_AHEAD, "x" * (MAX_PURPOSE + 1))
    for n in range(MAX_STATED + 5):
        desk.handle(ev.Intent("s1", (), f"number {n}"))
    assert len(desk.broker.state.stated["s1"]) == MAX_STATED
    desk.handle(ev.Ended("s1", 0))
    assert desk.broker.state.stated == {}


def test_a_decision_is_told_as_an_ask_would_be_taken() -> None:
    desk = Desk(
        Rule(USER, ALLOW, "read", "/a"), Rule(USER, DENY, "read", "/d", source="f:1"),
        Rule(USER, ALLOW, "read", "/r", rate=(1, 60)),
    )  # fmt: skip
    desk.start()
    found = {p: desk.broker.decide("s1", ("read",), p).verdict for p in ("/a", "/d", "/r", "/none")}
    assert found == {"/a": ALLOW, "/d": DENY, "/r": ASK, "/none": ASK}
    assert desk.broker.decide("s1", ("read",), "/d").source == "f:1"
    assert desk.broker.decide("s1", ("read", "write"), "/a").verdict == ASK
    assert desk.broker.decide("s1", ("read",), "relative").verdict == DENY
    for ops, path in ((("fly",), "/a"), ((), "/a"), (("read",), ""), (("connect",), "no port")):
        with pytest.raises(Refused):
            desk.broker.decide("s1", ops, path)


def test_a_session_that_nobody_holds_says_so() -> None:
    desk = Desk()
    desk.start()
    assert desk.broker.sessions()[0]["confined"] is True
    free = Desk()
    commands = free.handle(
        ev.Started(
            Session("s1", "tool", 7, "i", 0, "/p", ("tool",), 0.0, assurance="L1"), Snapshot("tool", ())
        )
    )
    (row,) = [c.entry for c in commands if isinstance(c, ev.Record)]
    assert "L1, unconfined" in row["note"]
    assert free.broker.sessions()[0]["confined"] is False
    ident = str(asked(free, "/x", FIRST_AHEAD)["prompt"])
    assert free.broker.prompt(ident)["confined"] is False
    ended = [c.entry for c in free.handle(ev.Ended("s1", None)) if isinstance(c, ev.Record)]
    assert ended[0]["note"] == "client gone"
