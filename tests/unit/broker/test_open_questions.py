"""How many questions one agent may have open before a person."""

from __future__ import annotations

from fakes.desk import Desk
from remit_daemon.broker.prompts import MAX_OPEN


def test_sub_sessions_have_no_questions_of_their_own_to_spare() -> None:
    """Else an agent fills the person's list by delegating: seventeen sessions at once, each with as many."""
    desk = Desk()
    desk.start("s1")
    for number in range(4):
        desk.start(f"sub{number}", f"h{number} of claude", parent="s1")
    desk.start("s2", "codex")
    for number in range(MAX_OPEN):
        assert desk.ask(f"sub{number % 4}", f"/x/{number}")["type"] == "asked"
    for ident in ("s1", "sub0"):
        refused = desk.ask(ident, "/x/more")
        assert (refused["type"], refused["verdict"]) == ("answer", "deny")
    assert desk.ask("sub0", "/x/0")["type"] == "asked", "what is open already is one question"
    assert desk.ask("s2", "/x/more")["type"] == "asked", "another agent's"
    assert len(desk.broker.prompts()) == MAX_OPEN + 1
