"""What the desktop shows, and that nobody is flooded, misled, or made to allow something."""

from __future__ import annotations

from typing import Any

from remit_daemon.runtime.notices import GAP, MAX_RESOURCE, Close, Notices, Show

HOSTILE = '/home/ann/<b>x</b>&amp;<img src="http://evil/">\n\x1b[2J\u202egnp' + "y" * 4000 + "/end.key"


def view(number: int, agent: str = "claude", **fields: Any) -> dict[str, Any]:
    return {
        "id": f"p{number}",
        "agent": agent,
        "ops": ["read"],
        "path": f"/x/{number}",
        "looking": False,
    } | fields


def shows(commands: list[Show | Close]) -> list[Show]:
    return [c for c in commands if isinstance(c, Show)]


def test_one_question_can_be_denied_and_nothing_allowed() -> None:
    notices = Notices(can_review=True)
    notices.prompt(view(1))
    (show,) = shows(notices.due(0.0))
    assert show.actions == ("review", "Review", "deny", "Deny")
    assert "read /x/1" in show.body
    notices.shown("claude", 7)
    assert notices.denied(7) == "p1"
    assert notices.denied(8) == ""


def test_a_burst_is_one_notification_with_a_count() -> None:
    notices = Notices(can_review=False)
    notices.prompt(view(0))
    assert len(shows(notices.due(0.0))) == 1
    notices.shown("claude", 7)
    for number in range(1, 500):
        notices.prompt(view(number))
        assert notices.due(GAP * number / 500) == []
    assert notices.next_due() == GAP
    (show,) = shows(notices.due(GAP))
    assert (show.replaces, show.summary, show.actions) == (7, "claude asks 500 questions", ())
    assert notices.denied(7) == "", "which one would it be?"


def test_sub_sessions_under_ever_other_names_are_one_agent() -> None:
    notices = Notices(can_review=False)
    seen = 0
    for number in range(50):
        notices.prompt(view(number, f"helper{number} of claude"))
        seen += len(shows(notices.due(GAP * number / 50)))
    assert seen == 1
    (show,) = shows(notices.due(GAP))
    assert (show.agent, show.summary) == ("claude", "claude asks 50 questions")
    single = Notices(can_review=False)
    single.prompt(view(1, "helper of claude"))
    assert [s.summary for s in shows(single.due(0.0))] == ["helper of claude asks"]


def test_agents_do_not_wait_for_each_other() -> None:
    notices = Notices(can_review=False)
    notices.prompt(view(1))
    notices.due(0.0)
    notices.prompt(view(2, "codex"))
    assert [s.agent for s in shows(notices.due(0.1))] == ["codex"]


def test_what_is_settled_is_closed_even_when_the_server_was_slow() -> None:
    notices = Notices(can_review=False)
    notices.prompt(view(1))
    notices.due(0.0)
    notices.done("p1")
    assert notices.due(0.1) == []
    assert notices.shown("claude", 7) == [Close(7)]
    notices.prompt(view(2))
    assert shows(notices.due(GAP))
    notices.shown("claude", 8)
    notices.done("p2")
    assert notices.due(GAP + 0.1) == [Close(8)]
    assert notices.due(3 * GAP) == []
    assert notices.next_due() is None


def test_markup_and_control_characters_show_as_themselves() -> None:
    notices = Notices(can_review=False)
    notices.prompt(view(1, agent="<i>c</i>\n", path=HOSTILE))
    (show,) = shows(notices.due(0.0))
    assert "<" not in show.body
    assert "&lt;b&gt;" in show.body
    assert "&amp;amp;" in show.body
    assert "\x1b" not in show.body + show.summary
    assert "\u202e" not in show.body
    assert "\n" not in show.summary
    assert "/end.key" in show.body
    assert len(show.body) < 3 * MAX_RESOURCE


def test_nobody_is_called_in_a_quiet_time_nor_for_what_is_looked_at() -> None:
    notices = Notices(can_review=False)
    notices.prompt(view(1, looking=True))
    assert notices.due(0.0) == []
    notices.quiet = True
    notices.prompt(view(2))
    assert notices.due(100.0) == []
    notices.quiet = False
    assert [s.summary for s in shows(notices.due(101.0))] == ["claude asks 2 questions"]


def test_what_the_person_closed_is_not_shown_again_by_itself() -> None:
    notices = Notices(can_review=False)
    notices.prompt(view(1))
    notices.due(0.0)
    notices.shown("claude", 7)
    notices.closed(7)
    assert notices.due(100.0) == []
    assert notices.denied(7) == ""
    notices.prompt(view(2))
    assert [s.replaces for s in shows(notices.due(101.0))] == [0]
