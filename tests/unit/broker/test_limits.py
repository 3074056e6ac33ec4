"""Limits, told one by one: who shares what, what a warning and a spent limit say, what comes back and when."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.clock import Clock
from remit_daemon.broker import events as ev
from remit_daemon.broker.core import Broker, Refused
from remit_daemon.broker.limits import costs_of
from remit_daemon.broker.records import Session
from remit_daemon.wire.control import FIRST_AHEAD
from remit_policy.engine import Engine
from remit_policy.limits import Limit, Purse
from remit_policy.model import ALLOW, USER, Rule, Snapshot, loads

RULES = (Rule(USER, ALLOW, "delete", "/w/**", source="u:1"),)
DELETE = ("delete:1",)


def limit(kind: str = "delete", amount: int = 3, seconds: int = 60, per: str = "agent") -> Limit:
    return Limit("user agent.a", per, kind, amount, seconds, "u.toml:7")


class Desk:
    def __init__(self, *limits: Limit, rules: tuple[Rule, ...] = RULES) -> None:
        self.clock = Clock()
        self.broker = Broker(Engine, "/home/u", self.clock.now)
        self.base = Snapshot("a", rules, limits=limits)
        self.seq = 0

    def start(self, ident: str, agent: str = "a", ask: str = "prompt", parent: str = "") -> str:
        session = Session(ident, agent, 1, "i", 1, "/w", (agent,), self.clock.now, ask=ask, parent=parent)
        self.handle(ev.Started(session, self.base))
        return ident

    def handle(self, event: ev.Event) -> list[ev.Command]:
        return self.broker.handle(event, self.clock.now)

    def ask(self, session: str, costs: tuple[str, ...] = DELETE, short: bool = True) -> dict[str, Any]:
        self.seq += 1
        commands = self.handle(
            ev.Ask(session, self.seq, ("delete",), f"/w/{self.seq}", costs=costs, short=short)
        )
        return next(c.frame for c in commands if isinstance(c, ev.Send) and c.frame["type"] != "lease")

    def allowed(self, session: str, times: int) -> int:
        return sum(self.ask(session).get("verdict") == "allow" for _ in range(times))

    def report(
        self, point: str, used: int = 0, returned: int = 0, want: bool = False
    ) -> list[dict[str, Any]]:
        event = ev.Report(point.partition("/")[0], point, limit().ident, used, returned, want)
        return [c.frame for c in self.handle(event) if isinstance(c, ev.Send)]


def test_sessions_of_one_agent_share_and_other_agents_do_not() -> None:
    desk = Desk(limit())
    desk.start("s1")
    desk.start("s2")
    desk.start("s3", "b")
    assert desk.allowed("s1", 2) + desk.allowed("s2", 2) == 3
    assert desk.allowed("s3", 4) == 3


def test_a_session_may_have_a_limit_of_its_own() -> None:
    desk = Desk(limit(), limit(amount=1, per="session"))
    desk.start("s1")
    desk.start("s2")
    assert [desk.allowed("s1", 2), desk.allowed("s2", 2)] == [1, 1]


def test_a_sub_session_draws_from_the_one_that_started_it() -> None:
    desk = Desk(limit(), limit(amount=2, per="session"))
    desk.start("s1")
    desk.start("s2", "sub of a", parent="s1")
    assert [desk.allowed("s2", 1), desk.allowed("s1", 3)] == [1, 1]
    desk.handle(ev.Ended("s2", None))
    assert desk.allowed("s1", 1) == 0, "what it used is not given back by its end"


def test_a_sub_session_is_not_given_more_of_a_limit_by_a_policy_of_its_own() -> None:
    desk = Desk(limit())
    desk.start("s1")
    desk.base = Snapshot("sub", RULES, limits=(limit(amount=1000), limit("calls", 2)))
    desk.start("s2", "sub of a", parent="s1")
    given = {m.kind: m.amount for m in loads(desk.broker.snapshot("s2")[0]).limits}
    assert given == {"delete": 3, "calls": 2}, "what its supervisor is told"
    assert desk.allowed("s2", 2) + desk.allowed("s1", 5) == 3
    assert desk.ask("s2", ("calls:3",))["type"] == "asked", "and it may be under more"


def test_a_question_ahead_of_an_act_is_not_counted_and_the_act_is_once() -> None:
    desk = Desk(limit("calls", 3), rules=())
    desk.start("s1")

    def ask(seq: int, costs: tuple[str, ...] = ()) -> None:
        desk.handle(ev.Ask("s1", seq, ("delete",), "/w/x", costs=costs))

    ask(FIRST_AHEAD)
    ask(1, ("calls:1",))
    desk.handle(ev.Answer("p1", "allow", "once"))
    assert desk.broker.limits("a", desk.clock.now)[0]["used"] == 1.0


def test_what_was_spent_comes_back_evenly() -> None:
    desk = Desk(limit())
    desk.start("s1")
    assert desk.allowed("s1", 4) == 3
    desk.clock.pass_(20.1)
    assert desk.allowed("s1", 2) == 1
    desk.clock.pass_(600)
    assert desk.allowed("s1", 5) == 3


def test_a_warning_is_recorded_and_told_once() -> None:
    desk = Desk(limit(amount=10))
    desk.start("s1")
    assert desk.allowed("s1", 7) == 7
    desk.seq += 1
    commands = desk.handle(ev.Ask("s1", desk.seq, ("delete",), "/w/x", costs=DELETE, short=True))
    (record,) = [c.entry for c in commands if isinstance(c, ev.Record)]
    assert (record["op"], record["outcome"], record["rule"]) == ("limit", "warned", "u.toml:7")
    assert record["note"] == "8 of 10 deletions per min are spent by a (user agent.a delete)"
    (told,) = [c.params for c in commands if isinstance(c, ev.Notify)]
    assert (told["used"], told["amount"], told["spent"]) == (8.0, 10, False)
    commands = desk.handle(ev.Ask("s1", 99, ("delete",), "/w/y", costs=DELETE, short=True))
    assert not [c for c in commands if isinstance(c, (ev.Record, ev.Notify))]


def test_a_spent_limit_offers_this_act_or_as_much_once_more() -> None:
    desk = Desk(limit())
    desk.start("s1")
    desk.allowed("s1", 3)
    one, two = desk.ask("s1")["prompt"], desk.ask("s1")["prompt"]
    shown = desk.broker.prompt(one)
    assert shown["limit"].startswith("3 of 3 deletions per min are spent by a")
    assert shown["source"] == "u.toml:7"
    assert [s["label"] for s in shown["scopes"]][1] == "3 deletions more, once"
    more = shown["scopes"][1]["scope"]
    for duration in ("session", "always", 60):
        with pytest.raises(Refused, match=r"extended once; for more, change u\.toml:7"):
            desk.handle(ev.Answer(one, "allow", duration))
    with pytest.raises(Refused, match="not one that is offered"):
        desk.handle(ev.Answer(one, "allow", "once", "/w/**"))
    reply = next(
        c.result for c in desk.handle(ev.Answer(one, "allow", "once", more)) if isinstance(c, ev.Reply)
    )
    assert reply["settled"] == [one, two], "the other that waited for the same limit has room as well"
    assert desk.allowed("s1", 2) == 1, "three more, those two among them"


def test_this_act_once_gives_no_more_than_this_act() -> None:
    desk = Desk(limit())
    desk.start("s1")
    desk.allowed("s1", 3)
    prompt = desk.ask("s1")["prompt"]
    desk.handle(ev.Answer(prompt, "allow", "once"))
    assert desk.ask("s1")["type"] == "asked"


def test_what_the_policy_asks_about_counts_when_it_is_allowed() -> None:
    desk = Desk(limit(), rules=())
    desk.start("s1")
    for _ in range(3):
        prompt = desk.ask("s1", short=False)["prompt"]
        assert desk.broker.prompt(prompt)["limit"] == ""
        desk.handle(ev.Answer(prompt, "allow", "once"))
    (state,) = desk.broker.limits("a", desk.clock.now)
    assert (state["used"], state["spent"]) == (3.0, True)


def test_questions_beyond_their_limit_are_denied_with_words() -> None:
    desk = Desk(limit("prompts", 2), rules=())
    desk.start("s1")
    assert [desk.ask("s1", (), False)["type"] for _ in range(2)] == ["asked", "asked"]
    answer = desk.ask("s1", (), False)
    assert (answer["type"], answer["verdict"]) == ("answer", "deny")
    assert answer["message"].startswith("no more questions now: 2 of 2 questions per min are spent by a")


def test_a_session_that_learns_is_asked_about_what_is_spent() -> None:
    desk = Desk(limit(amount=2), rules=())
    desk.base.variables["PROJECT"] = "/w"
    desk.start("s1", ask="learn")
    assert [desk.ask("s1", short=False).get("verdict") for _ in range(2)] == ["allow"] * 2
    asked = desk.ask("s1", short=False)
    assert asked["type"] == "asked"
    (prompt,) = desk.broker.prompts()
    assert prompt["limit"].startswith("2 of 2 deletions per min are spent by a")
    desk.handle(ev.Answer(asked["prompt"], "allow", "once", prompt["scopes"][1]["scope"]))
    assert desk.broker.prompts() == []
    assert desk.ask("s1", short=False)["verdict"] == "allow", "there is room again"


def test_what_is_spent_in_a_quiet_time_is_denied_and_says_both() -> None:
    desk = Desk(limit())
    desk.start("s1")
    desk.handle(ev.Quiet("deny", 60))
    assert desk.allowed("s1", 3) == 3
    answer = desk.ask("s1")
    assert answer["verdict"] == "deny"
    assert answer["message"] == (
        "3 of 3 deletions per min are spent by a (user agent.a delete); the person is not to be asked now; try again later"
    )
    assert desk.broker.prompts(all_of_them=True) == []


def test_an_event_that_is_taken_back_was_not_counted() -> None:
    desk = Desk(limit())
    desk.start("s1")
    desk.ask("s1")
    desk.broker.undo()
    assert desk.allowed("s1", 4) == 3


def test_leases_are_called_back_when_it_gets_tight_and_then_each_act_asks() -> None:
    desk = Desk(limit(amount=100))
    desk.start("s1")
    desk.start("s2")
    (frame,) = desk.report("s1", want=True)
    assert (frame["given"], frame["recall"]) == (6, False)
    assert desk.allowed("s2", 73) == 73
    desk.seq += 1
    commands = desk.handle(ev.Ask("s2", desk.seq, ("delete",), "/w/x", costs=DELETE, short=True))
    recall = [c for c in commands if isinstance(c, ev.Send) and c.frame["type"] == "lease"]
    assert [(c.session, c.frame["recall"]) for c in recall] == [("s1", True)]
    assert desk.report("s1", used=1, returned=5) == []
    assert desk.report("s1", used=1, returned=5, want=True)[0]["given"] == 6, "no more from here on"
    assert desk.allowed("s1", 40) == 25, "all of the hundred can be used, by whom it may be"


def test_a_prompt_goes_away_when_a_lease_comes_back() -> None:
    desk = Desk(limit("delete", 32))
    desk.start("s1")
    desk.start("s2")
    desk.report("s1", want=True)
    assert desk.allowed("s2", 30) == 30
    assert desk.ask("s2")["type"] == "asked"
    assert [f["verdict"] for f in desk.report("s1", returned=2)] == ["allow"]


def test_what_a_point_held_when_it_died_is_spent_and_not_for_ever() -> None:
    desk = Desk(limit(amount=32))
    desk.start("s1")
    desk.start("s2")
    desk.report("s1", want=True)
    desk.report("s1/g1", want=True)
    desk.handle(ev.Ended("s1", None))
    assert desk.allowed("s2", 40) == 28
    desk.clock.pass_(60)
    assert desk.allowed("s2", 40) == 32


def test_a_gateway_that_was_started_anew_ends_the_lease_of_the_one_before() -> None:
    desk = Desk(limit(amount=32))
    desk.start("s1")
    desk.report("s1/g1", want=True)
    desk.report("s1/g2", want=True)
    assert desk.broker.limits("a", desk.clock.now)[0]["held"] == 2
    assert desk.broker.limits("a", desk.clock.now)[0]["used"] == 4.0


def test_a_point_may_say_late_what_it_did_not_use() -> None:
    desk = Desk(limit(amount=160))
    desk.start("s1")
    desk.start("s2")
    desk.report("s1/g1", want=True)
    desk.handle(ev.Ended("s1", 0))
    assert desk.broker.limits("a", desk.clock.now)[0]["used"] == 10.0
    desk.report("s1/g1", used=3, returned=7)
    assert desk.broker.limits("a", desk.clock.now)[0]["used"] == 3.0
    desk.report("s1/g1", used=3, returned=7)
    assert desk.broker.limits("a", desk.clock.now)[0]["used"] == 3.0


@pytest.mark.parametrize(("back", "drained"), [(30.0, False), (86400.0, True)])
def test_a_clock_that_went_back_gives_nothing_and_locks_nobody_out(back: float, drained: bool) -> None:
    desk = Desk(limit())
    desk.start("s1")
    assert desk.allowed("s1", 3) == 3
    desk.clock.now -= back
    assert desk.ask("s1")["type"] == "asked"
    desk.clock.now += 25
    assert (desk.ask("s1").get("verdict") == "allow") == drained


@pytest.mark.parametrize(
    "text",
    ["delete", "delete:", "delete:0", "delete:-1", "delete:1e3", "calls:٣", "x:1", "bytes:" + "9" * 16],
)
def test_a_cost_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no cost|out of range"):
        costs_of([text])
    desk = Desk(limit())
    desk.start("s1")
    with pytest.raises(Refused):
        desk.ask("s1", (text,))


def test_bytes_run_over_by_one_lease_at_most() -> None:
    purse = Purse([limit("bytes", 1600)])
    assert not purse.take((("bytes", 1),))
    purse.granted(limit("bytes").ident, 100, False)
    passed = 0
    while purse.flow(10):
        passed += 10
    assert passed == 200, "one lease, and one more while remitd is asked"
    purse.granted(limit("bytes").ident, 100, False)
    assert not purse.flow(10)
