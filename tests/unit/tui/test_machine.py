"""The machine: what may answer, when, and what never does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fakes import approver
from remit_tui import events as ev
from remit_tui.events import Action, Choice, Command, Key
from remit_tui.machine import step
from remit_tui.records import Prompt, RecordError, Session
from remit_tui.state import ATTENTION, EARLY, QUIET, STALL, UNREAD, State


def prompt(number: int = 1, **fields: Any) -> Prompt:
    return Prompt.of(approver.prompt(number, **fields))


class Table:
    """A state, its clock, and a terminal that paints at once."""

    def __init__(self, *prompts: Prompt, paints: bool = True, tall: bool = False) -> None:
        self.now = 100.0
        self.paints = paints
        self.tall = tall
        self.state = State(now=self.now)
        self.commands: list[Command] = []
        self(ev.Loaded(prompts, (Session("s1", "claude", "running"),)))

    def __call__(self, event: ev.Event) -> list[Command]:
        self.state, commands = step(self.state, event, self.now)
        self.commands += commands
        if self.paints and self.state.shown and self.state.painted is None:
            self.state, more = step(self.state, ev.Painted(self.state.page, not self.tall), self.now)
            assert not more
        return commands

    def wait(self, seconds: float = QUIET + 0.01) -> None:
        while seconds > 0:
            self.now += min(seconds, 0.2)
            seconds -= 0.2
            self(ev.Tick())

    def key(self, action: Action, term: int = 0) -> list[Command]:
        return self(Key(action, term))

    def answers(self) -> list[Choice]:
        return [c.choice for c in self.commands if isinstance(c, ev.Answer)]


ANSWERING = (Action.ALLOW, Action.DENY, Action.ENTER)


@pytest.mark.parametrize("action", ANSWERING)
def test_an_early_key_is_swallowed_said_so_and_starts_the_wait_again(action: Action) -> None:
    t = Table(prompt())
    for _ in range(5):
        t.wait(QUIET / 2)
        t.key(action)
        assert t.state.notice == EARLY
    assert not t.answers()
    t.wait()
    t.key(Action.DENY)
    assert t.answers() == [Choice("p1", "deny", 0, "")]


def test_allow_once() -> None:
    t = Table(prompt())
    t.wait()
    t.key(Action.ALLOW)
    assert t.answers() == [Choice("p1", "allow", 0, "")]


@pytest.mark.parametrize("turn", [False, True])
def test_enter_never_allows(turn: bool) -> None:
    t = Table(prompt())
    t.wait()
    if turn:
        t.key(Action.TURN)
    t.key(Action.ENTER)
    assert [c.verdict for c in t.answers()] == ([] if turn else ["deny"])


def test_nothing_arms_before_it_is_painted() -> None:
    t = Table(prompt(), paints=False)
    t.wait(5)
    t.key(Action.ALLOW)
    assert not t.answers()


def test_a_stale_paint_does_not_count() -> None:
    t = Table(prompt(1), prompt(2), paints=False)
    old = t.state.page
    t.key(Action.DOWN)
    t(ev.Painted(old, True))
    assert t.state.painted is None


@pytest.mark.parametrize(
    "event",
    [
        ev.Paste(),
        Key(Action.OTHER),
        ev.Focus(True),
        ev.Lost("x"),
        ev.Changed(prompt(path="/else")),
        ev.Done("p1", "allowed"),
        Key(Action.DOWN),
    ],
)
def test_what_disarms(event: ev.Event) -> None:
    t = Table(prompt(1), prompt(2))
    t.wait()
    assert t.state.armed
    t(event)
    t.key(Action.ALLOW)
    assert not t.answers()


def test_a_stall_disarms() -> None:
    t = Table(prompt())
    t.wait()
    t.now += STALL + 1
    t.key(Action.ALLOW)
    assert not t.answers()


def test_news_about_the_same_question_does_not_disarm() -> None:
    t = Table(prompt())
    t.wait()
    t(ev.Changed(prompt(count=2, holding=2)))
    t(ev.Changed(prompt(7)))
    assert t.state.armed
    assert t.state.shown == "p1"


def test_what_is_below_the_fold_must_be_read_before_allow_but_not_before_deny() -> None:
    t = Table(prompt(), tall=True)
    t.wait()
    t.key(Action.ALLOW)
    assert t.state.notice == UNREAD
    t(ev.Painted(t.state.page, True))
    t.key(Action.ALLOW)
    assert len(t.answers()) == 1
    other = Table(prompt(), tall=True)
    other.wait()
    other.key(Action.DENY)
    assert len(other.answers()) == 1


def previewed(t: Table, rule: str = "r") -> None:
    choice = [c.choice for c in t.commands if isinstance(c, ev.Preview)][-1]
    t(ev.Previewed(choice, rule, choice.scope))


def test_a_lasting_answer_needs_its_rule_on_the_screen() -> None:
    t = Table(prompt())
    t.wait()
    t.key(Action.TERM, 4)
    previewed(t, "deny rule")
    t.key(Action.ALLOW)
    assert t.state.verdict == "allow"
    t.key(Action.ALLOW)  # no rule yet
    previewed(t)
    t.key(Action.ALLOW)  # only just appeared
    assert not t.answers()
    t.wait()
    t.key(Action.BROADER)
    t.key(Action.ALLOW)  # of another scope
    assert not t.answers()
    previewed(t)
    t.wait()
    t.key(Action.ALLOW)
    assert t.answers() == [Choice("p1", "allow", 4, "/home/ann/project/src/**")]


def test_a_late_preview_of_another_choice_is_ignored() -> None:
    t = Table(prompt())
    t.wait()
    t.key(Action.TERM, 1)
    first = [c.choice for c in t.commands if isinstance(c, ev.Preview)][-1]
    t.key(Action.TERM, 2)
    t(ev.Previewed(first, "old", ""))
    assert t.state.rule is None


def test_a_rule_that_cannot_be_told_cannot_be_saved() -> None:
    t = Table(prompt())
    t.wait()
    t.key(Action.TERM, 1)
    t(ev.Previewed(Choice("p1", "deny", 1, prompt().scopes[0].pattern), "", "", "no"))
    t.wait()
    t.key(Action.DENY)
    assert not t.answers()
    assert "cannot be saved" in t.state.notice


def test_every_prompt_starts_on_deny_once_narrowest() -> None:
    t = Table(prompt(1), prompt(2))
    t.wait()
    t.key(Action.TERM, 4)
    t.key(Action.BROADER)
    t.key(Action.TURN)
    t.key(Action.DOWN)
    t.key(Action.UP)
    assert (t.state.shown, t.state.verdict, t.state.term, t.state.scope) == ("p1", "deny", 0, 0)


def test_leave_keeps_it_queued_and_goes_on() -> None:
    t = Table(prompt(1), prompt(2))
    t.key(Action.LEAVE)
    assert (t.state.shown, len(t.state.prompts)) == ("", 2)
    t.key(Action.ENTER)
    assert t.state.shown == "p1"
    assert not t.answers()


def test_only_one_answer_at_a_time() -> None:
    t = Table(prompt())
    t.wait()
    t.key(Action.ALLOW)
    t.key(Action.ALLOW)
    t.key(Action.DENY)
    assert len(t.answers()) == 1


def test_answered_settles_all_that_it_covers_and_shows_the_next_disarmed() -> None:
    t = Table(prompt(1), prompt(2), prompt(3))
    t.wait()
    t.key(Action.ALLOW)
    t(ev.Answered(t.answers()[0], "", ("p1", "p2")))
    assert t.state.shown == "p3"
    assert not t.state.armed
    assert "1 other prompt" in t.state.notice


def test_beaten_says_so() -> None:
    t = Table(prompt(1))
    t.wait()
    t.key(Action.ALLOW)
    t(ev.Beaten(t.answers()[0], "denied, once"))
    assert not t.state.prompts
    assert "already answered: denied, once" in t.state.notice


def test_done_elsewhere_says_so() -> None:
    t = Table(prompt(1), prompt(2))
    t(ev.Done("p1", "denied"))
    assert t.state.shown == "p2"
    assert "answered elsewhere" in t.state.notice


def test_lost_while_answering_is_not_reported_as_done() -> None:
    t = Table(prompt(1))
    t.wait()
    t.key(Action.ALLOW)
    t(ev.Lost("remitd has ended"))
    t(ev.Failed(Choice("p1", "allow", 0, ""), "gone"))
    assert "not confirmed" in t.state.notice
    t(ev.Loaded((prompt(1),), ()))
    assert t.state.shown == "p1"
    assert not t.state.armed


def test_look_follows_the_eye() -> None:
    t = Table(prompt(1), prompt(2))
    assert ev.Look("p1", True) in t.commands
    assert t.key(Action.DOWN) == [ev.Look("p1", False), ev.Look("p2", True)]
    assert t(ev.Focus(False)) == [ev.Look("p2", False)]
    assert t(ev.Focus(True)) == [ev.Look("p2", True)]
    t.commands.clear()
    t.wait(ATTENTION + 1)
    assert t.commands == [ev.Look("p2", False)]
    assert t.key(Action.SCROLL) == [ev.Look("p2", True)]


def test_look_is_told_again_to_a_new_remitd() -> None:
    t = Table(prompt(1))
    t(ev.Lost("x"))
    assert t(ev.Loaded((prompt(1),), ())) == [ev.Look("p1", True)]


def test_bell_when_something_waits_that_did_not_before() -> None:
    t = Table()
    assert ev.Ring() in t(ev.Changed(prompt(1)))
    assert ev.Ring() not in t(ev.Changed(prompt(2)))


def test_events_do_not_change_what_they_were_given() -> None:
    before = Table(prompt(1)).state
    copy = replace(before)
    step(before, Key(Action.DOWN), 200.0)
    assert before == copy


@pytest.mark.parametrize(
    "record", [None, {}, {"id": 3}, {"id": "p", "ops": "read"}, {"id": "p", "scopes": [1]}]
)
def test_a_malformed_prompt_is_refused(record: object) -> None:
    with pytest.raises(RecordError):
        Prompt.of(record)
