"""The machine: what may answer, when, and what never does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import approver
from remit_tui import events as ev
from remit_tui.bulk import MOST
from remit_tui.events import ONCE, TERMS, Action, Choice, Command, Key
from remit_tui.fields import RecordError
from remit_tui.machine import step
from remit_tui.records import Prompt, Session
from remit_tui.state import ATTENTION, EARLY, QUIET, STALL, UNREAD, State, terms


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


# Several prompts at once, scopes and messages of one's own, the way to the agent.


def bulk(t: Table, *numbers: int) -> None:
    """Mark the prompts of these numbers and open their page."""
    for number in numbers:
        while t.state.selected != f"p{number}":
            t.key(Action.DOWN)
        t.key(Action.MARK)
    t.key(Action.BULK)


def all_answers(t: Table) -> list[tuple[str, str, int]]:
    return [(c.id, c.verdict, c.term) for a in t.commands if isinstance(a, ev.AnswerAll) for c in a.choices]


class BulkTable(Table):
    """A terminal that paints the page of several as well; ``tall``: its end is below."""

    def __call__(self, event: ev.Event) -> list[Command]:
        commands = super().__call__(event)
        if self.paints and self.state.bulk and self.state.painted is None:
            self.state, _ = step(self.state, ev.Painted(self.state.page, not self.tall), self.now)
        return commands


def test_prompts_are_grouped_by_agent_the_longest_waiting_first() -> None:
    t = Table(prompt(1), prompt(2, agent="codex"), prompt(3), prompt(4, agent="codex"))
    assert [p.id for p in t.state.prompts] == ["p1", "p3", "p2", "p4"]
    t(ev.Changed(prompt(5)))
    assert [p.id for p in t.state.prompts] == ["p1", "p3", "p5", "p2", "p4"]
    assert t.state.shown == "p1"


@pytest.mark.parametrize("verdict", [Action.ALLOW, Action.DENY])
def test_marked_prompts_are_answered_once_from_their_page(verdict: Action) -> None:
    t = BulkTable(prompt(1), prompt(2), prompt(3))
    bulk(t, 1, 3)
    t.key(verdict)  # too early
    assert not all_answers(t)
    t.wait()
    t.key(verdict)
    assert all_answers(t) == [("p1", verdict.value, 0), ("p3", verdict.value, 0)]
    t.key(verdict)
    assert len(all_answers(t)) == 2, "one answer at a time"
    t(ev.AnsweredAll(verdict.value, ("p1", "p3"), ()))
    assert (t.state.shown, t.state.bulk, t.state.marked) == ("p2", False, frozenset())


def test_enter_and_terms_answer_nothing_on_the_page_of_several() -> None:
    t = BulkTable(prompt(1), prompt(2))
    bulk(t, 1, 2)
    t.wait()
    for action in (Action.ENTER, Action.TURN, Action.BROADER, Action.EDIT, Action.OTHER):
        t.key(action)
        t.wait()
    t.key(Action.TERM, 4)
    assert not [c for c in t.commands if isinstance(c, (ev.AnswerAll, ev.Answer))]


def test_several_are_allowed_only_when_read_and_few() -> None:
    t = BulkTable(prompt(1), prompt(2), tall=True)
    bulk(t, 1, 2)
    t.wait()
    t.key(Action.ALLOW)
    assert t.state.notice == UNREAD
    t.key(Action.DENY)
    assert len(all_answers(t)) == 2
    many = BulkTable(*(prompt(i) for i in range(1, MOST + 2)))
    many.key(Action.MARK_AGENT)
    many.key(Action.BULK)
    many.wait()
    many.key(Action.ALLOW)
    assert "at most" in many.state.notice
    many.key(Action.DENY)
    assert len(all_answers(many)) == MOST + 1


@pytest.mark.parametrize(
    "event",
    [
        ev.Changed(prompt(1, path="/etc/shadow")),
        ev.Done("p1", "denied"),
        ev.Paste(),
        ev.Focus(True),
        Key(Action.OTHER),
        ev.Lost("x"),
    ],
)
def test_what_disarms_the_page_of_several(event: ev.Event) -> None:
    t = BulkTable(prompt(1), prompt(2), prompt(3))
    bulk(t, 1, 2)
    t.wait()
    t(event)
    t.key(Action.ALLOW)
    assert not all_answers(t)


def test_a_prompt_that_changes_must_be_read_again() -> None:
    t = BulkTable(prompt(1), prompt(2))
    bulk(t, 1, 2)
    t.wait()
    page = t.state.page
    t.paints = False
    t(ev.Changed(prompt(1, path="/etc/shadow")))
    t(ev.Painted(page, True))  # of the page as it was
    t.wait()
    t.key(Action.ALLOW)
    assert not all_answers(t)
    assert not t.state.read


def test_what_arrives_is_not_on_the_page() -> None:
    t = BulkTable(prompt(1), prompt(2))
    bulk(t, 1, 2)
    t.wait()
    t(ev.Changed(prompt(3)))
    assert t.state.bulk
    t.key(Action.ALLOW)
    assert [i for i, _, _ in all_answers(t)] == ["p1", "p2"]


def test_a_page_of_nothing_closes() -> None:
    t = BulkTable(prompt(1), prompt(2))
    bulk(t, 1)
    t(ev.Done("p1", "denied"))
    assert not t.state.bulk
    assert t.state.shown == "p2"
    t.key(Action.MARK)
    t.key(Action.BULK)
    t.key(Action.LEAVE)
    assert not t.state.bulk
    assert t.state.shown == "p2"


def test_several_that_failed_in_part_say_so() -> None:
    t = BulkTable(prompt(1), prompt(2))
    bulk(t, 1, 2)
    t.wait()
    t.key(Action.DENY)
    t(ev.AnsweredAll("deny", ("p1",), ("remitd went away",)))
    assert "denied, once: 1; not answered: 1 (remitd went away)" in t.state.notice
    assert t.state.shown == "p2"


def lasting(t: Table) -> None:
    t.wait()
    t.key(Action.TERM, 1)
    previewed(t)
    t.wait()


def test_a_scope_of_ones_own_is_previewed_and_painted_before_it_counts() -> None:
    t = Table(prompt())
    t.wait()
    assert t.key(Action.EDIT) == []
    lasting(t)
    (command,) = t.key(Action.EDIT)
    assert isinstance(command, ev.EditScope)
    t(ev.Scoped("p1", "/home/ann/project/src/*.py"))
    t.key(Action.DENY)
    assert not t.answers()
    previewed(t, "the rule as edited")
    t.wait()
    t.key(Action.DENY)
    assert t.answers() == [Choice("p1", "deny", 1, "/home/ann/project/src/*.py")]


def test_the_next_scope_takes_the_place_of_ones_own() -> None:
    t = Table(prompt())
    lasting(t)
    t(ev.Scoped("p1", "/x"))
    assert t.state.pattern == "/x"
    previewed(t)
    t.wait()
    t.key(Action.BROADER)
    assert t.state.pattern == prompt().scopes[0].pattern
    t(ev.Scoped("p9", "/x"))
    assert t.state.pattern == prompt().scopes[0].pattern


def test_a_message_goes_with_a_denial_and_never_with_an_allow() -> None:
    t = Table(prompt(1), prompt(2))
    t.wait()
    assert t.key(Action.TELL) == [ev.AskMessage("p1", "")]
    t(ev.Said("p1", "use the copy"))
    t.key(Action.DENY)
    assert not t.answers(), "what was written has only just appeared"
    t.wait()
    t.key(Action.DENY)
    assert t.answers() == [Choice("p1", "deny", 0, "", "use the copy")]
    other = Table(prompt(1))
    other.wait()
    other(ev.Said("p1", "use the copy"))
    other.wait()
    other.key(Action.ALLOW)
    assert other.answers() == [Choice("p1", "allow", 0, "")]


def test_the_agent_is_paused_let_on_and_stopped_when_armed() -> None:
    t = Table(prompt())
    assert t.key(Action.PAUSE) == []
    t.wait()
    assert t.key(Action.PAUSE) == [ev.Steer("s1", "claude", "pause")]
    t(ev.Ran(Session("s1", "claude", "paused")))
    assert t.key(Action.PAUSE) == [ev.Steer("s1", "claude", "resume")]
    assert t.key(Action.STOP) == [ev.Steer("s1", "claude", "stop")]


def test_a_filter_lists_some_and_keeps_all() -> None:
    t = Table(prompt(1), prompt(2, agent="codex"), prompt(3))
    t(ev.Filtered("codex write"))
    assert t.state.shown == "p2"
    assert len(t.state.prompts) == 3
    t.key(Action.DOWN)
    assert t.state.shown == "p2"
    t(ev.Filtered("nothing such"))
    assert t.state.shown == ""
    t(ev.Changed(prompt(4)))
    assert t.state.shown == ""
    t(ev.Filtered(""))
    assert t.state.shown == "p1"


def token(number: int = 1, **fields: Any) -> Prompt:
    """A question about a token, of a program outside sessions."""
    scopes = [{"scope": "aud: log:read", "label": "exactly this", "rule": "r"}]
    return prompt(
        number, **{"ops": ["token"], "session": "", "scopes": scopes, "path": "aud: log:read"} | fields
    )


def limited(number: int = 1, **fields: Any) -> Prompt:
    """A question about a spent limit."""
    scopes = [
        {"scope": f"/f{number}", "label": "this file", "rule": "allow this act once"},
        {"scope": "limit:calls 50/h", "label": "50 more, once", "rule": "allow 50 more, once"},
    ]
    return prompt(number, **{"limit": "50 of 50 per 1h are spent by claude", "scopes": scopes} | fields)


def missed(number: int = 1, **fields: Any) -> Prompt:
    return prompt(number, **{"state": "missed"} | fields)


NAMES = [name for name, _ in TERMS]


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (prompt(), NAMES),
        (token(), ["once", "15 min", "8 h", "always"]),
        (token(session="s1"), NAMES),
        (limited(), ["once"]),
        (missed(), ["session", "15 min", "8 h", "always"]),
        (missed(session="s9"), ["15 min", "8 h", "always"]),
        (missed(ops=["token"]), []),
        (missed(limit="x"), []),
    ],
)
def test_only_terms_that_can_count_are_offered(asked: Prompt, names: list[str]) -> None:
    assert [TERMS[i][0] for i in terms(asked, (Session("s1", "claude", "running"),))] == names
    assert 1 not in terms(asked, (Session("s1", "claude", "ended"),))


def test_a_term_that_cannot_count_is_refused_with_the_reason() -> None:
    t = Table(limited())
    t.wait()
    assert t.key(Action.TERM, 4) == []
    assert t.state.term == ONCE
    assert "change the limit" in t.state.notice
    t = Table(token())
    t.wait()
    t.key(Action.TERM, 1)
    assert t.state.term == ONCE
    assert "no session asks" in t.state.notice
    t.key(Action.TERM, 4)
    for action in (Action.BROADER, Action.NARROWER, Action.EDIT):
        assert t.key(action) == []
        assert "token" in t.state.notice
    previewed(t)
    assert not [c for c in t.commands if isinstance(c, ev.Reach)]


def test_a_spent_limit_is_extended_once_after_its_rule_was_seen() -> None:
    t = Table(limited())
    t.wait()
    t.key(Action.ALLOW)
    assert t.answers() == [Choice("p1", "allow", ONCE, "")], "this act alone saves nothing"
    t = Table(limited())
    t.wait()
    (command,) = t.key(Action.BROADER)
    more = Choice("p1", "allow", ONCE, "limit:calls 50/h")
    assert command == ev.Preview(more)
    t.key(Action.ALLOW)
    assert not t.answers(), "its rule is not known yet"
    previewed(t, "allow 50 more, once")
    t.key(Action.ALLOW)
    assert not t.answers(), "it has only just appeared"
    t.wait()
    t.key(Action.ALLOW)
    assert t.answers() == [more]


def test_to_deny_what_is_beyond_a_limit_is_about_this_act() -> None:
    t = Table(limited())
    t.wait()
    t.key(Action.BROADER)
    t.key(Action.DENY)
    assert t.answers() == [Choice("p1", "deny", ONCE, "")]


def test_a_session_that_ends_takes_its_term_with_it() -> None:
    t = Table(prompt())
    t.wait()
    t.key(Action.TERM, 1)
    t(ev.Ran(Session("s1", "claude", "ended")))
    assert (t.state.term, t.state.armed) == (ONCE, False)


def past(*prompts: Prompt) -> Table:
    t = Table(prompt(1))
    assert t.key(Action.PAST) == [ev.Look("p1", False), ev.Recall()]
    t(ev.Missed(prompts))
    return t


def test_a_rule_is_made_of_what_was_missed() -> None:
    t = past(missed(7), missed(8))
    assert [p.id for p in t.state.queue] == ["p8", "p7"], "the latest first"
    assert t.state.shown == "p8"
    assert t.state.term == 1
    t.key(Action.ALLOW)
    assert t.state.notice == EARLY
    t.wait()
    t.key(Action.ALLOW)
    previewed(t)
    t.wait()
    t.key(Action.ALLOW)
    assert t.answers() == [Choice("p8", "allow", 1, "/home/ann/project/src/file8.py")]
    t(ev.Answered(t.answers()[0], "r", ("p8",)))
    assert [p.id for p in t.state.queue] == ["p7"]


def test_what_arrives_meanwhile_waits_until_the_person_goes_back() -> None:
    t = past(missed(7))
    t(ev.Changed(prompt(2)))
    assert t.state.shown == "p7"
    assert {p.id for p in t.state.prompts} == {"p1", "p2"}
    assert not [c for c in t.commands if c == ev.Look("p7", True)], "its clock has run out"
    assert t(ev.Done("p2", "missed")) == [ev.Recall()]
    t.key(Action.LEAVE)
    assert not t.state.past
    assert t.state.shown == "p1"
    assert not t.state.armed


def test_what_was_missed_is_read_again_with_a_new_connection_and_may_be_gone() -> None:
    t = past(missed(7))
    t(ev.Lost("x"))
    assert ev.Recall() in t(ev.Loaded((prompt(1),), ()))
    t(ev.Missed(()))
    assert t.state.shown == ""
    t.wait()
    t.key(Action.ALLOW)
    assert not t.answers()


def test_nothing_answers_a_missed_question_of_which_no_rule_can_be_made() -> None:
    t = past(missed(7, ops=["token"]), missed(8, limit="spent"))
    for _ in range(2):
        t.wait()
        for action in (Action.ALLOW, Action.DENY, Action.ENTER, Action.BROADER):
            t.key(action)
        assert "no rule can be made" in t.state.notice
        t.key(Action.DOWN)
    assert not t.answers()


KEYS = [*((a, 0) for a in Action if a is not Action.TERM), *((Action.TERM, n) for n in range(5))]


@given(
    st.lists(
        st.one_of(
            st.sampled_from(KEYS),
            st.sampled_from(["wait", "short", "change", "done", "new", "preview", "missed", "over"]),
        ),
        max_size=60,
    )
)
def test_no_walk_allows_what_was_not_armed_and_read(walk: list[Any]) -> None:
    """Whatever happens: what is allowed was painted whole, quiet for QUIET, by the key for it, in the state shown."""
    t = BulkTable(prompt(1), token(2, agent="codex"), limited(3), prompt(4), tall=False)
    fresh = 5
    for what in walk:
        before = t.state
        if what == "wait":
            commands = []
            t.wait()
        elif what == "short":
            t.now += QUIET / 2
            commands = t(ev.Tick())
        elif what == "change" and t.state.prompts:
            commands = t(ev.Changed(replace(t.state.prompts[0], path=f"/changed/{t.now}")))
        elif what == "done" and t.state.prompts:
            commands = t(ev.Done(t.state.prompts[-1].id, "denied"))
        elif what == "new":
            fresh += 1
            commands = t(ev.Changed(prompt(fresh)))
        elif what == "missed":
            commands = t(ev.Missed((missed(98), missed(99, ops=["token"]))))
        elif what == "over":
            commands = t(ev.Ran(Session("s1", "claude", "ended")))
        elif what == "preview" and t.state.asked:
            commands = t(ev.Previewed(t.state.asked, "rule", t.state.asked.scope))
        elif isinstance(what, tuple):
            commands = t.key(*what)
        else:
            continue
        sent = [
            c
            for x in commands
            for c in (
                [x.choice] if isinstance(x, ev.Answer) else x.choices if isinstance(x, ev.AnswerAll) else []
            )
        ]
        for choice in sent:
            assert before.armed or t.now - max(before.painted or t.now, before.last_key) >= QUIET
            if not before.bulk:
                assert choice.term in before.offered
            if choice.term != ONCE or choice.scope:
                assert before.painted is not None
                assert before.ruled is not None
                assert t.now - before.painted >= QUIET
            if choice.verdict == "allow":
                assert what == (Action.ALLOW, 0)
                assert before.read
                assert choice.term == ONCE or (before.verdict == "allow" and before.ruled is not None)
            if len(sent) > 1 or before.bulk:
                assert choice.term == ONCE
                assert choice.id in before.marked
            else:
                assert choice.id == before.shown
        if t.state.answering is not None and sent:
            if t.state.bulk:
                t(ev.AnsweredAll(sent[0].verdict, tuple(c.id for c in sent), ()))
            else:
                t(ev.Answered(sent[0], "", (sent[0].id,)))


def test_what_a_lasting_allow_would_also_permit_is_asked_and_must_be_seen() -> None:
    t = Table(prompt())
    lasting(t)
    assert not [c for c in t.commands if isinstance(c, ev.Reach)], "a denial permits nothing"
    t.key(Action.ALLOW)
    previewed(t)
    (reach,) = [c for c in t.commands if isinstance(c, ev.Reach)]
    t.wait()
    t(ev.Reached(reach.choice, "312 things that are there"))
    t.key(Action.ALLOW)
    assert not t.answers(), "it has only just appeared"
    t.wait()
    t(ev.Reached(reach.choice, "something else, too late"))
    t.key(Action.ALLOW)
    assert t.answers() == [reach.choice]
    assert t.state.reach == (reach.choice, "312 things that are there")
