"""The screen with a person's keys, against an approver on a real Unix socket."""

from __future__ import annotations

import os
import time

import pytest
from textual import events

from fakes.approver import HOSTILE, prompt, session
from fakes.screen import desk, run
from remit_tui.app import main
from remit_tui.screens.help import Help
from remit_tui.state import EARLY, QUIET, UNREAD
from remit_tui.text import shown


def test_early_keys_do_not_answer_and_are_said_to_be_ignored() -> None:
    async def body() -> None:
        async with desk(prompt()) as d:
            await d.shows("p1")
            await d.press("a", "d", "enter", "5")
            assert d.notice == EARLY
            assert EARLY in d.text()
            await d.quiet(QUIET / 2)
            await d.press("a")
            assert d.app.state.term == 0
            assert not d.server.answers()

    run(body)


def test_enter_on_a_fresh_prompt_does_nothing_and_later_never_allows() -> None:
    async def body() -> None:
        async with desk(prompt()) as d:
            await d.shows("p1")
            await d.press("enter")
            assert not d.server.answers()
            await d.quiet()
            await d.press("tab", "enter")
            assert "Enter never allows" in d.notice
            assert not d.server.answers()

    run(body)


def test_escape_keeps_it_queued() -> None:
    async def body() -> None:
        async with desk(prompt()) as d:
            await d.shows("p1")
            await d.quiet()
            await d.press("escape")
            await d.shows("")
            await d.press("a", "d")
            assert not d.server.answers()
            assert "1 prompt waits" in d.text()
            await d.until(lambda: ("look", {"id": "p1", "looking": False}) in d.server.calls, "looks away")
            await d.press("j")
            await d.shows("p1")

    run(body)


def test_allow_once() -> None:
    async def body() -> None:
        async with desk(prompt()) as d:
            await d.shows("p1")
            await d.quiet()
            await d.press("a")
            await d.until(d.server.answers, "answered")
            assert d.server.answers() == [{"id": "p1", "verdict": "allow", "for": "once", "via": "tui"}]
            await d.until(lambda: d.notice == "allowed, once", "said so")
            assert ("look", {"id": "p1", "looking": True}) in d.server.calls

    run(body)


def test_allow_always_shows_the_rule_first() -> None:
    async def body() -> None:
        async with desk(prompt()) as d:
            await d.shows("p1")
            await d.quiet()
            await d.press("5", "s", "a", "a")
            assert not d.server.answers()
            await d.until(lambda: d.app.state.ruled, "previewed")
            await d.quiet()
            assert 'write = { allow = ["/home/ann/project/src/**"] }' in d.text()
            await d.press("a")
            await d.until(d.server.answers, "answered")
            scope = "/home/ann/project/src/**"
            assert d.server.answers() == [
                {"id": "p1", "verdict": "allow", "for": "always", "scope": scope, "via": "tui"}
            ]

    run(body)


def test_the_next_prompt_has_to_arm_anew() -> None:
    async def body() -> None:
        async with desk(prompt(1), prompt(2)) as d:
            await d.shows("p1")
            await d.quiet()
            await d.press("d")
            await d.shows("p2")
            await d.press("a", "a")
            assert [a["id"] for a in d.server.answers()] == ["p1"]
            assert d.notice == EARLY

    run(body)


def test_pasted_text_is_thrown_away() -> None:
    async def body() -> None:
        async with desk(prompt()) as d:
            await d.shows("p1")
            await d.quiet()
            d.app.post_message(events.Paste("a\na"))
            await d.until(lambda: "pasted" in d.notice, "said so")
            await d.press("a")
            assert not d.server.answers()

    run(body)


@pytest.mark.parametrize(
    "name",
    [HOSTILE, "/x/\x1b]0;t\x07[/red][bold]y[@click=app.quit]", "/" + "深" * 90, "/a\tb\r\n\u2066\ud800"],
)
def test_hostile_names_are_literal_and_whole(name: str) -> None:
    async def body() -> None:
        async with desk(prompt(path=name, agent="[b]c\x1b[m", comm="\u202ex", source="[i]:1\n")) as d:
            await d.shows("p1")
            await d.pilot.pause()
            text = d.text()
            lines = text.split("\n")
            assert all(c.isprintable() for line in lines for c in line)
            assert len(lines) == 24
            # Row 0 is the header, 1 the list, 2 the line; then the question. Wide characters may leave a cell blank.
            body_text = "".join(line[3:79].rstrip() for line in lines[3:])
            assert shown(name) in body_text
            assert "[b]c\\x1b[m" in text

    run(body)


def test_what_is_longer_than_the_screen_must_be_read_before_allow() -> None:
    async def body() -> None:
        async with desk(prompt(argv=["x" * 3000])) as d:
            await d.shows("p1")
            await d.quiet()
            await d.press("a")
            assert d.notice == UNREAD
            for _ in range(8):
                await d.press("space")
            await d.until(lambda: d.app.state.read, "read")
            await d.press("a")
            await d.until(d.server.answers, "answered")

    run(body)


def test_the_second_to_answer_is_told_who_was_first() -> None:
    async def body() -> None:
        async with desk(prompt(1), prompt(2)) as d:
            await d.shows("p1")
            d.server.settle("p1", "deny", told=False)
            await d.quiet()
            await d.press("a")
            await d.until(lambda: "already answered: denied, once, on another" in d.notice, "told")
            await d.shows("p2")

    run(body)


def test_a_refusal_that_is_no_race_keeps_the_prompt() -> None:
    async def body() -> None:
        async with desk(prompt(1)) as d:
            await d.shows("p1")
            d.server.refusal = "only an administrator may allow this"
            await d.quiet()
            await d.press("a")
            await d.until(lambda: "only an administrator" in d.notice, "told")
            assert d.app.state.shown == "p1"

    run(body)


def test_a_prompt_settled_elsewhere_gives_way() -> None:
    async def body() -> None:
        async with desk(prompt(1), prompt(2)) as d:
            await d.shows("p1")
            await d.quiet()
            d.server.settle("p1", "allow")
            await d.shows("p2")
            await d.press("a")
            assert "early" in d.notice
            assert not d.server.answers()

    run(body)


def test_remitd_goes_and_comes_back() -> None:
    async def body() -> None:
        async with desk(prompt()) as d:
            await d.shows("p1")
            await d.quiet()
            await d.server.stop()
            await d.until(lambda: not d.app.state.up, "noticed")
            await d.pilot.pause()
            assert "trying again" in d.text()
            await d.press("a")
            assert "remitd is gone" in d.notice
            d.server.prompts["p2"] = prompt(2)
            await d.server.start()
            await d.until(lambda: d.app.state.up, "back")
            assert len(d.app.state.prompts) == 2
            await d.press("a")
            assert d.notice == EARLY
            await d.quiet()
            await d.press("a")
            await d.until(d.server.answers, "answered")

    run(body)


def test_remitd_ends_before_it_confirms() -> None:
    async def body() -> None:
        async with desk(prompt()) as d:
            await d.shows("p1")
            d.server.quiet = True
            await d.quiet()
            await d.press("a")
            await d.until(d.server.answers, "sent")
            await d.server.stop()
            await d.until(lambda: "not confirmed" in d.notice, "said so")

    run(body)


def test_without_remitd_it_says_so() -> None:
    async def body() -> None:
        async with desk(up=False) as d:
            await d.until(lambda: "not running" in d.text(), "says so")
            assert "no prompt waits" not in d.text(), "nobody knows that"

    run(body)


def test_500_prompts() -> None:
    async def body() -> None:
        async with desk(*(prompt(i) for i in range(1, 501))) as d:
            await d.shows("p1")
            assert "500 prompts wait" in d.text()
            began = time.monotonic()
            await d.press("G")
            await d.shows("p500")
            await d.press(*("k" for _ in range(50)))
            await d.shows("p450")
            assert "file450.py" in d.text()
            assert time.monotonic() - began < 8

    run(body)


def test_a_prompt_that_arrives_does_not_take_the_place_of_the_shown_one() -> None:
    async def body() -> None:
        async with desk(prompt(5)) as d:
            await d.shows("p5")
            await d.quiet()
            d.server.ask(prompt(1))
            d.server.push("session", session(2, agent="codex"))
            await d.until(lambda: len(d.app.state.prompts) == 2, "arrived")
            await d.until(lambda: "claude, codex" in d.text(), "the header follows")
            assert d.app.state.shown == "p5"

    run(body)


def test_help_lists_the_bindings_and_stops_the_looking() -> None:
    async def body() -> None:
        async with desk(prompt(), size=(80, 50)) as d:
            await d.shows("p1")
            await d.quiet()
            await d.press("question_mark")
            assert isinstance(d.app.screen, Help)
            assert "never allows" in d.text()
            assert "PgDn" in d.text()
            await d.until(lambda: ("look", {"id": "p1", "looking": False}) in d.server.calls, "looks away")
            await d.press("a", "d", "escape")
            await d.press("a")
            assert d.notice == EARLY
            assert not d.server.answers()

    run(body)


@pytest.mark.parametrize("size", [(80, 24), (40, 12), (20, 8), (200, 60)])
def test_any_size(size: tuple[int, int]) -> None:
    async def body() -> None:
        async with desk(prompt(path=HOSTILE * 3), size=size) as d:
            await d.shows("p1")
            await d.quiet()
            await d.press("d")
            await d.until(d.server.answers, "answered")

    run(body)


def test_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def body() -> None:
        async with desk(prompt()) as d:
            await d.shows("p1")
            await d.pilot.pause()
            assert d.app.no_color
            assert "▸ deny" in d.text()
            assert "▸1 once" in d.text()

    run(body)


def test_q_quits_and_disconnects() -> None:
    async def body() -> None:
        async with desk(prompt()) as d:
            await d.shows("p1")
            await d.press("q")
            assert d.app.return_value == 0
        assert not d.server.answers()
        assert d.left == 0

    run(body)


def test_main_needs_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull) as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        assert main() == 2
    assert "needs a terminal" in capsys.readouterr().err
