"""What is said beside a refusal: the person's words, or that the question is still open."""

from __future__ import annotations

from typing import Any

from remit_daemon.broker.records import Prompt, Settled
from remit_daemon.broker.states import PromptState
from remit_daemon.runtime.approver import explained


def _prompt(ident: str, path: str, state: PromptState, message: str = "") -> Prompt:
    answer = Settled("deny", "once", "", "", "human", 1.0, message) if state is PromptState.DENIED else None
    return Prompt(
        ident, "s1", "toy", "/p", ("listen",), path, "", 7, "", "/bin/x", "x", (), "default", 1, 0.0, 9.0, state, answer=answer,
    )  # fmt: skip


def _denial(path: str, **more: Any) -> dict[str, Any]:
    return {"session": "s1", "op": "listen", "path": path, "note": "", **more}


def test_a_refusal_says_what_the_person_said_and_what_is_open() -> None:
    prompts = [
        _prompt("p1", "*:1", PromptState.DENIED, "use localhost"),
        _prompt("p2", "*:2", PromptState.MISSED),
        _prompt("p3", "*:3", PromptState.DENIED),
    ]
    entries = [
        _denial("*:1", note="x"), _denial("*:2"), _denial("*:3"), _denial("*:4"), _denial("*:1", session="s2"),
    ]  # fmt: skip
    assert [e["note"] for e in explained(entries, prompts)] == [
        "x; the person says: use localhost",
        "prompt p2 is not answered yet; try again once it is",
        "",
        "",
        "",
    ]
    assert entries[0]["note"] == "x"
