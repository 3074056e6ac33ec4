"""Single facts of the broker that are easier told one by one."""

from __future__ import annotations

import pytest

from fakes.desk import HOME, Desk
from remit_daemon.broker import events as ev
from remit_daemon.broker.core import Refused
from remit_daemon.broker.prompts import MAX_OPEN, PROMPT_LIFE
from remit_daemon.broker.states import PROMPT, IllegalMove, PromptMove, PromptState, move_prompt
from remit_policy.engine import Engine
from remit_policy.model import ALLOW, ASK, PACK, USER, Rule, loads


def test_the_tables_are_whole() -> None:
    assert set(PROMPT) == set(PromptState)
    with pytest.raises(IllegalMove):
        move_prompt(PromptState.ALLOWED, PromptMove.DENY)


def test_a_once_answer_serves_one_burst() -> None:
    desk = Desk()
    desk.start()
    prompt = desk.ask("s1", "/x")["prompt"]
    assert desk.answer(prompt) == [("answer", "allow")]
    for _ in range(3):
        desk.clock.pass_(4)
        assert desk.ask("s1", "/x")["verdict"] == "allow"
    desk.clock.pass_(4)
    assert desk.ask("s1", "/x")["type"] == "asked"


def test_a_missed_prompt_can_become_a_rule_but_not_once() -> None:
    desk = Desk()
    desk.start()
    prompt = desk.ask("s1", "/x")["prompt"]
    desk.clock.pass_(PROMPT_LIFE + 1)
    sent = [c.frame["verdict"] for c in desk.handle(ev.Tick()) if isinstance(c, ev.Send)]
    assert sent == ["deny"]
    assert desk.broker.prompts() == []
    assert desk.broker.prompts(True)[0]["state"] == "missed"
    with pytest.raises(Refused):
        desk.answer(prompt)
    assert desk.answer(prompt, duration="always") == [("snapshot", None)]
    assert desk.ask("s1", "/x")["verdict"] == "allow"


def test_the_clock_stops_while_somebody_looks() -> None:
    desk = Desk()
    desk.start()
    prompt = desk.ask("s1", "/x")["prompt"]
    desk.clock.pass_(500)
    desk.handle(ev.Look(prompt, 7, True))
    desk.clock.pass_(5000)
    desk.handle(ev.Tick())
    assert len(desk.broker.prompts()) == 1
    desk.handle(ev.LookerGone(7))
    assert desk.broker.next_deadline() == desk.clock.now + 100


def test_a_refusal_for_always_holds() -> None:
    desk = Desk()
    desk.start()
    prompt = desk.ask("s1", "/srv/d/x.txt")["prompt"]
    assert desk.answer(prompt, "deny", "always", "/srv/d/*") == [("snapshot", None), ("answer", "deny")]
    assert desk.ask("s1", "/srv/d/y")["verdict"] == "deny"


def test_programs_are_asked_for_with_their_arguments() -> None:
    desk = Desk()
    desk.start()
    argv = ("git", "push", "origin")
    prompt = desk.ask("s1", "/usr/bin/git", "execute", argv=argv)["prompt"]
    assert desk.ask("s1", "/usr/bin/git", "execute", argv=("git", "pull"))["prompt"] != prompt
    desk.answer(prompt, duration="session", scope="/usr/bin/git push **")
    assert desk.ask("s1", "/usr/bin/git", "execute", argv=("git", "push", "-f"))["verdict"] == "allow"
    assert desk.ask("s1", "/usr/bin/git", "execute", argv=("git", "gc"))["type"] == "asked"


def test_a_spent_rate_asks_although_its_rule_allows() -> None:
    desk = Desk(Rule(USER, ALLOW, "write", "/srv/**", rate=(1, 60), source="u:1"))
    desk.start()
    prompt = desk.ask("s1", "/srv/x", "write")["prompt"]
    desk.answer(prompt)
    assert desk.ask("s1", "/srv/x", "write")["verdict"] == "allow"


def test_a_protected_place_is_granted_alone() -> None:
    desk = Desk(Rule(PACK, ASK, "read", "**/.env", protected=True, source="pack:1"))
    desk.start()
    prompt = desk.ask("s1", HOME + "/work/.env")["prompt"]
    assert [s["scope"] for s in desk.broker.prompt(prompt)["scopes"]] == [HOME + "/work/.env"]
    assert desk.answer(prompt, duration="always")[-1] == ("answer", "allow")


def test_a_rename_covers_both_names() -> None:
    desk = Desk()
    desk.start()
    prompt = desk.ask("s1", "/srv/a", "delete", "create", path2="/srv/b")["prompt"]
    commands = desk.handle(ev.Answer(prompt, "allow", "session"))
    (pushed,) = [
        c.frame["snapshot"] for c in commands if isinstance(c, ev.Send) and c.frame["type"] == "snapshot"
    ]
    engine = Engine(loads(pushed))
    assert all(
        engine.decide(op, p).verdict == ALLOW for op in ("delete", "create") for p in ("/srv/a", "/srv/b")
    )


def test_too_many_questions_are_denied() -> None:
    desk = Desk()
    desk.start()
    for i in range(MAX_OPEN):
        assert desk.ask("s1", f"/x{i}")["type"] == "asked"
    assert desk.ask("s1", "/one-more")["verdict"] == "deny"


def test_unused_grants_are_suspended_and_then_removed() -> None:
    desk = Desk()
    desk.start()
    desk.answer(desk.ask("s1", "/x")["prompt"], duration="always")
    desk.clock.pass_(31 * 86400)
    desk.handle(ev.Tick())
    assert desk.broker.state.grants["g1"].suspended
    assert desk.ask("s1", "/x")["type"] == "asked"
    desk.clock.pass_(60 * 86400)
    desk.handle(ev.Tick())
    assert desk.broker.state.grants == {}


def test_what_could_not_be_recorded_did_not_happen() -> None:
    desk = Desk()
    desk.start()
    prompt = desk.ask("s1", "/x")["prompt"]
    desk.answer(prompt, duration="always")
    desk.broker.undo()
    assert desk.broker.state.grants == {}
    assert desk.broker.prompts()[0]["holding"] == 1
    assert desk.ask("s1", "/x")["type"] == "asked"


def test_pause_and_resume_in_their_order_only() -> None:
    desk = Desk()
    desk.start()
    desk.handle(ev.Steer("s1", "pause"))
    with pytest.raises(Refused):
        desk.handle(ev.Steer("s1", "pause"))
    desk.handle(ev.Steer("s1", "resume"))
    desk.handle(ev.Ended("s1", 0))
    with pytest.raises(Refused):
        desk.handle(ev.Steer("s1", "stop"))
