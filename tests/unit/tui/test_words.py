"""What the screen says."""

from __future__ import annotations

import time

import pytest

from fakes import approver
from remit_tui import frame, words
from remit_tui.records import Prompt, Session
from remit_tui.standing import Standing
from remit_tui.state import State
from remit_tui.text import shown, width_of
from remit_tui.widgets.lines import content


def test_detail_is_whole_and_fits() -> None:
    path = approver.HOSTILE * 40
    p = Prompt.of(approver.prompt(path=path, path2="/b" * 300))
    lines = words.detail(p, 60, 2000.0)
    assert all(sum(width_of(text) for _, text in line) <= 60 for line in lines)
    bold = "".join(text for line in lines for style, text in line if style == "bold")
    assert shown(path) in bold
    assert "/b" * 300 in bold


def test_markup_stays_literal() -> None:
    text = "[red]x[/red] [@click=app.quit]y[/] [link=http://z]z[/link]"
    assert content([[("bold", text)]]).plain == text


def test_a_hold_that_ended_says_what_an_allow_does() -> None:
    p = Prompt.of(approver.prompt(holding=0))
    assert "serves the next try" in words.held(p, 0)
    assert words.held(Prompt.of(approver.prompt(held_until=30.0)), 18.0).endswith("12 s more")


def test_header_counts_and_names() -> None:
    names = ("claude", "claude", "codex")
    sessions = tuple(Session(f"s{i}", a, "running") for i, a in enumerate(names))
    assert frame.agents(sessions, 60) == "running: claude (2), codex"
    many = tuple(Session(f"s{i}", f"agent-{i}", "running") for i in range(40))
    line = frame.agents(many, 60)
    assert width_of(line) <= 60
    assert "more" in line
    assert frame.agents((Session("s", "a", "ended"),), 60) == "no agent runs"


def test_header_says_that_remitd_is_gone() -> None:
    text = content(frame.banner(State(why="remitd is not running"), 80)).plain
    assert "remitd is not running; trying again" in text


def test_operations_are_a_phrase() -> None:
    assert words.operations(("exec",)) == "run"
    assert words.operations(("create", "write", "delete")) == "create, write and delete"
    assert words.operations(("\x1b",)) == "\\x1b"


def test_a_question_about_a_token_is_told_in_words() -> None:
    facts = [
        {"label": "it may", "text": "read what was done\x1b[2J"},
        {"label": "client", "text": "https://c.example/" + "x" * 200},
    ]
    record = approver.prompt(
        ops=["token"], path="https://tool.example log:read", session="", project="", facts=facts
    )
    p = Prompt.of(record)
    lines = words.detail(p, 60, 2000.0)
    said = "\n".join("".join(text for _, text in line) for line in lines)
    assert "wants to have a token for:" in " ".join(said.split())
    assert "outside any session" in said
    assert "it may   read what was done\\x1b[2J" in said
    assert said.count("x") >= 200
    assert all(sum(width_of(text) for _, text in line) <= 60 for line in lines)
    assert Prompt.of(record | {"facts": []}).question != p.question


def test_what_leads_here_and_what_is_claimed_is_shown_escaped_the_claim_last() -> None:
    p = Prompt.of(
        approver.prompt(
            kind="private key", purpose=approver.HOSTILE, confined=False, before={"allowed": 0, "denied": 3, "missed": 1},
            chain=[{"pid": 7, "comm": "sh", "exe": "/bin/sh\x1b"}, {"pid": 5, "comm": "claude", "exe": ""}],
        )
    )  # fmt: skip
    lines = words.detail(p, 200, 2000.0)
    text = ["".join(t for _, t in line) for line in lines]
    assert "private key" in "".join(text)
    assert any("/bin/sh\\x1b (7) ← claude (5)" in line for line in text)
    assert any("denied 3x, missed 1x" in line for line in text)
    assert any("not confined" in line for line in text)
    assert text[-1].startswith("CLAIM")
    assert shown(approver.HOSTILE) in text[-1]


def test_several_are_shown_whole() -> None:
    one, two = (
        Prompt.of(approver.prompt(n, path=approver.HOSTILE * 30 + str(n), created=1.0)) for n in (1, 2)
    )
    state = State(prompts=(one, two), marked=frozenset({"p1", "p2"}), bulk=True)
    lines = words.together(state, 60, 2000.0)
    assert all(sum(width_of(text) for _, text in line) <= 60 for line in lines)
    bold = "".join(text for line in lines for style, text in line if style == "bold")
    assert shown(one.path) in bold
    assert shown(two.path) in bold


def test_what_an_answer_means_is_one_sentence_where_it_is_not_plain() -> None:
    def notes(**fields: object) -> list[str]:
        return words.meaning(Prompt.of(approver.prompt(**fields)))

    assert notes() == []
    for fields, word in (
        ({"ops": ["token"]}, "token"),
        ({"limit": "50 of 50"}, "limit is spent"),
        ({"confined": False}, "not confined"),
        ({"agent": "reviewer of claude"}, "claude started it"),
    ):
        (said,) = notes(**fields)
        assert word in said
        assert "." not in said
    assert "\\x1b" in notes(agent="reviewer of cl\x1b")[0]


def test_a_limit_says_its_state_and_what_the_wider_answer_is() -> None:
    scopes = [
        {"scope": "/f", "label": "this file", "rule": "r"},
        {"scope": "limit:x", "label": "50 more, once", "rule": "r"},
    ]
    p = Prompt.of(approver.prompt(limit="50 of 50 per 1h are spent by claude", scopes=scopes))
    state = State(up=True, prompts=(p,), shown="p1", selected="p1")
    assert "50 of 50 per 1h are spent by claude" in content(words.detail(p, 70, 0)).plain.replace("\n", "")
    assert "s sets 50 more, once" in content(words.rule(state, 70)).plain
    assert content([words.terms(state)]).plain.split() == ["for", "▸1", "once"]


def test_the_header_says_what_stands_and_fits() -> None:
    p = Prompt.of(approver.prompt())
    state = State(up=True, prompts=(p,), standing=Standing("deny", 2000.0, 3))
    text = content(frame.banner(state, 80)).plain
    end = time.strftime("%H:%M", time.localtime(2000.0))
    for part in ("1 prompt waits", f"QUIET till {end}: denied", "3 grants want a look"):
        assert part in text
    for width in (20, 40, 60, 80):
        (line,) = frame.banner(state, width)
        assert sum(width_of(text) for _, text in line) <= max(width, 25)
    assert (
        "1 grant wants a look" in content(frame.banner(State(up=True, standing=Standing(due=1)), 80)).plain
    )


@pytest.mark.parametrize("width", [24, 40, 60, 80, 120])
def test_the_line_of_views_fits_and_is_clicked_where_it_stands(width: int) -> None:
    line = frame.tabs("ledger", width)
    assert sum(width_of(text) for _, text in line) <= width
    at = sum(len(text) for _, text in line[:4]) + 1
    assert frame.tab_at(at, "ledger", width) == "policy"
