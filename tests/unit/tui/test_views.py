"""The other views with a person's keys, against an approver on a real Unix socket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from textual import events

from fakes.approver import HOSTILE, Approver, entry, grant, prompt, session
from fakes.report import REPORT
from fakes.screen import Desk, desk, run
from remit_tui import outside
from remit_tui.frame import VIEWS
from remit_tui.screens.ask import Ask
from remit_tui.screens.confirm import Confirm
from remit_tui.state import EARLY
from remit_tui.text import shown


def furnish(server: Approver) -> None:
    server.sessions = [
        session(1, started=900.0, project="/home/ann/project", argv=["claude", HOSTILE], assurance="L3"),
        session(2, agent="codex", state="paused", started=950.0),
        session(3, agent="gemini", state="ended", started=100.0, ended=300.0, status=1),
    ]
    server.grants = [
        grant(1, uses=3, last_used=1900.0),
        grant(2, scope=HOSTILE, rule=HOSTILE, markers=["unused"]),
    ]
    server.rows = [entry(n) for n in range(1, 1001)]
    server.rows[998] |= {"actor": "human", "op": "answer", "verdict": "deny", "outcome": ""}
    server.rows[999] |= {"path": HOSTILE, "verdict": "deny", "outcome": "refused", "rule": ""}
    server.rows[996] |= {"actor": "remit", "op": "session", "path": "", "note": "started", "agent": ""}


@pytest.fixture(autouse=True)
def policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """``remit policy show`` without its process."""

    async def remit_json(*args: str) -> Any:
        rule = {
            "layer": "user", "verdict": "deny", "op": "read", "pattern": "/x", "text": HOSTILE, "argv": None, "except": [],
            "final": True, "protected": False, "role": "coder", "source": "/c/me.toml:3", "file": "/c/me.toml", "line": 3,
        }  # fmt: skip
        return {
            "agents": [
                {"agent": n, "roles": ["base", n], "rules": [rule]}
                for n in (args[2:] or ("claude", "codex"))
            ]
        }

    monkeypatch.setattr(outside, "remit_json", remit_json)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (40, 12), (20, 8)])
@pytest.mark.parametrize("number", range(1, 7))
def test_every_view_at_every_size_shows_hostile_text_literally(number: int, size: tuple[int, int]) -> None:
    async def body() -> None:
        async with desk(prompt(path=HOSTILE), size=size, more=furnish) as d:
            await d.press(f"f{number}")
            await d.until(
                lambda: d.app.base is not None and VIEWS[number - 1] == d.app.base.NAME, "goes there"
            )
            await d.pilot.pause(0.05)
            lines = d.text().split("\n")
            assert len(lines) == size[1]
            assert all(c.isprintable() for line in lines for c in line)
            assert "wait" in lines[0]
            assert "Help" in lines[-1] or size[0] < 40

    run(body)


def test_the_bar_goes_round_with_keys_and_mouse() -> None:
    async def body() -> None:
        async with desk(more=furnish) as d:
            await d.press("]")
            await d.reads("▸ F2 Sessions")
            await d.press("[", "[")
            await d.reads("▸ F6 Agents")
            at = d.text().split("\n")[1].index("F4")
            await d.pilot.click("#tabs", offset=(at, 0))
            await d.reads("▸ F4 Ledger", "row 1,000 of 1,000")
            await d.press("escape")
            await d.reads("▸ F1 Prompts")

    run(body)


def test_a_prompt_is_not_read_while_another_view_is_shown() -> None:
    async def body() -> None:
        async with desk(prompt(), more=furnish) as d:
            await d.shows("p1")
            await d.quiet()
            await d.press("f3")
            await d.until(lambda: {"id": "p1", "looking": False} in d.called("look"), "looks away")
            d.app.post_message(events.AppBlur())
            d.app.post_message(events.AppFocus())
            await d.press("d", "a", "enter")
            await d.press("f1")
            await d.until(lambda: d.called("look")[-1]["looking"], "looks again")
            await d.press("a")
            assert d.notice == EARLY
            assert not d.server.answers()

    run(body)


def test_sessions_pause_resume_stop_and_their_ledger() -> None:
    async def body() -> None:
        async with desk(more=furnish) as d:
            await d.press("f2")
            await d.reads("codex", "ended (1)", "▸ s2")  # the newest of those that run is first
            await d.press("p")
            await d.until(lambda: d.called("resume") == [{"session": "s2"}], "resumed")
            await d.press("j", "p")
            await d.until(lambda: d.called("pause") == [{"session": "s1"}], "paused")
            await d.press("enter")
            await d.reads("▸ F4 Ledger", "filter: session:s1")

    run(body)


async def confirm(d: Desk, *keys: str) -> None:
    await d.until(lambda: isinstance(d.app.screen, Confirm), "asks")
    await d.pilot.pause()
    await d.press(*keys)


def test_to_stop_asks_once_more_and_an_early_yes_is_none() -> None:
    async def body() -> None:
        async with desk(more=furnish) as d:
            await d.press("f2")
            await d.reads("▸ s2")
            await d.press("!")
            await confirm(d, "y", "y")
            await d.reads("too early")
            await d.press("enter")
            await d.until(lambda: not isinstance(d.app.screen, Confirm), "is left")
            assert not d.called("stop")
            await d.press("!")
            await confirm(d)
            await d.later()
            d.app.post_message(events.Paste("y"))
            await d.pilot.pause()
            await d.press("y")
            assert not d.called("stop")
            await d.later()
            await d.press("y")
            await d.until(lambda: d.called("stop") == [{"session": "s2"}], "stopped")

    run(body)


def test_grants_are_revoked_narrowed_and_kept() -> None:
    async def body() -> None:
        async with desk(more=furnish) as d:
            await d.press("f3")
            await d.reads("[unused]", "never")
            await d.press("c")
            await d.until(
                lambda: d.called("grant.keep") == [{"id": "g2"}], "kept: what is marked comes first"
            )
            await d.press("j", "n")
            await d.until(lambda: isinstance(d.app.screen, Ask), "asks")
            await d.press("backspace", "backspace", *"a.txt", "enter")
            await d.until(lambda: d.called("grant.narrow"), "narrowed")
            assert d.called("grant.narrow") == [{"id": "g1", "scope": "/home/ann/notes/1/a.txt"}]
            await d.press("r")
            await confirm(d)
            await d.later()
            await d.press("y")
            await d.until(lambda: d.called("revoke") == [{"id": "g1"}], "revoked")
            await d.until(lambda: "notes/1" not in d.text(), "gone")

    run(body)


def test_a_hostile_scope_is_edited_escaped_and_sent_as_it_is() -> None:
    async def body() -> None:
        async with desk(more=furnish) as d:
            await d.press("f3", "n")
            await d.until(lambda: isinstance(d.app.screen, Ask), "asks")
            assert "\\x1b[2J\\u202e" in d.text()
            await d.press("backspace", "enter")
            await d.until(lambda: d.called("grant.narrow"), "narrowed")
            assert d.called("grant.narrow")[0]["scope"] == HOSTILE[:-1]

    run(body)


def test_the_ledger_tells_who_acted_in_words_and_follows_a_row() -> None:
    async def body() -> None:
        async with desk(more=furnish) as d:
            await d.press("f4")
            await d.reads(
                "◆ HUMAN", "○ agent claude", "· remit", "DENIED", shown(HOSTILE)[:20], "row 1,000 of 1,000"
            )
            await d.press("enter")
            await d.reads("no rule decided this row")
            await d.press("k", "k", "enter")
            await d.reads("filter: rule:me.toml:3")
            await d.press("escape")
            await d.reads("all rows", "row 998 of 1,000")
            await d.press("g")
            await d.reads("row 1 of 1,000")
            await d.press("w")
            await d.reads("no record")

    run(body)


def test_the_ledger_goes_to_a_time_and_by_steps() -> None:
    async def body() -> None:
        async with desk(more=furnish) as d:
            await d.press("f4")
            await d.reads("row 1,000 of 1,000")
            await d.press("t")
            await d.write("10m")  # the wall's 2000 s less 600
            await d.press("enter")
            await d.reads("row 400 of 1,000")
            await d.press("greater_than_sign")
            await d.until(lambda: d.called("log.find")[-1]["time"] == 1440.0, "asks for the next minute")
            await d.reads("row 440 of 1,000")
            await d.press("t", *"nonsense", "enter")
            await d.reads("is no time")

    run(body)


def test_a_filter_that_is_none_is_said_and_not_taken() -> None:
    async def body() -> None:
        async with desk(more=furnish) as d:
            await d.press("f4", "slash")
            await d.write("colour:red")
            await d.reads("there is no filter 'colour'")
            await d.press("enter")
            assert isinstance(d.app.screen, Ask)
            await d.press(*["backspace"] * 10)
            await d.write("denied")
            await d.press("enter")
            await d.reads("filter: denied", "of 1,000")
            await d.until(lambda: d.called("log.page")[-1].get("denied") is True, "asks so")

    run(body)


def burst(d: Desk, *keys: tuple[str, str]) -> None:
    """Keys of one reading of the terminal: all are on their way before the first one has done anything."""
    for key, character in keys:
        d.app.post_message(events.Key(key, character or None))


def test_what_is_typed_ahead_arrives_in_its_place() -> None:
    async def body() -> None:
        async with desk(more=furnish) as d:
            burst(
                d,
                ("f4", ""),
                ("slash", "/"),
                *((c if c.isalnum() else "colon", c) for c in "op:read"),
                ("enter", ""),
            )
            await d.reads("filter: op:read")

    run(body)


@pytest.mark.parametrize(
    "first", [("question_mark", "?"), ("f4", ""), ("slash", "/"), ("ctrl+p", ""), ("m", "m")]
)
@pytest.mark.parametrize("second", [("a", "a"), ("d", "d"), ("enter", "")])
def test_a_key_behind_one_that_leaves_the_prompt_does_not_answer(
    first: tuple[str, str], second: tuple[str, str]
) -> None:
    async def body() -> None:
        async with desk(prompt(), more=furnish) as d:
            await d.shows("p1")
            await d.quiet()
            burst(d, first, second)
            await d.until(lambda: not d.app.state.armed, "disarmed")
            await d.pilot.pause(0.3)
            assert not d.server.answers()
            assert not d.app.state.armed

    run(body)


def test_a_key_behind_the_way_back_does_not_answer() -> None:
    async def body() -> None:
        async with desk(prompt(), more=furnish) as d:
            await d.shows("p1")
            await d.press("f2")
            await d.later(60)
            burst(d, ("f1", ""), ("a", "a"), ("a", "a"), ("d", "d"))
            await d.until(lambda: d.notice == EARLY, "too early")
            assert not d.server.answers()

    run(body)


def test_following_shows_what_is_new() -> None:
    async def body() -> None:
        async with desk(more=furnish) as d:
            await d.press("f4", "f")
            await d.reads("following")
            d.server.rows.append(entry(1001, path="/fresh"))
            await d.reads("/fresh", "row 1,001 of 1,001")

    run(body)


def test_remitd_goes_under_every_view_and_what_is_shown_is_marked_as_old() -> None:
    async def body() -> None:
        async with desk(prompt(), more=furnish) as d:
            await d.press("f2")
            await d.reads("▸ s2")
            await d.press("f4")
            await d.reads("row 1,000 of 1,000")
            await d.server.stop()
            await d.reads("trying again; what is shown is old")
            await d.press("g")
            await d.reads("OLD: remitd is not there")
            await d.press("f2")
            await d.reads("OLD: remitd is not there", "▸ s2")
            d.server.sessions[0]["agent"] = "newcomer"
            await d.server.start()
            await d.reads("newcomer")
            await d.until(lambda: "OLD" not in d.text(), "new again")
            await d.press("f4")
            await d.reads("row 1 of 1,000")

    run(body)


def test_a_slow_remitd_blocks_no_key() -> None:
    async def body() -> None:
        async with desk(more=furnish) as d:
            d.server.delay = 0.3
            await d.press("f4")
            await d.reads("searching")
            await d.press("f2")
            await d.reads("▸ F2 Sessions", "reading")
            await d.press("f4")
            await d.reads("row 1,000 of 1,000")

    run(body)


def test_policy_shows_problems_first_then_rules() -> None:
    def more(server: Approver) -> None:
        furnish(server)
        server.problems = [{"file": "/c/bad.toml", "line": 7, "column": 1, "message": "no such key 'reed'"}]

    async def body() -> None:
        async with desk(more=more) as d:
            await d.press("f5")
            await d.reads("PROBLEM bad.toml:7 no such key 'reed'", "where    /c/bad.toml:7", "deny  read")
            await d.press("j", "enter")
            await d.reads("filter: rule:/c/me.toml:3")

    run(body)


def test_agents_are_joined_and_lead_to_their_rows() -> None:
    async def body() -> None:
        async with desk(more=furnish) as d:
            await d.press("f6")
            await d.reads("claude", "runs (1)", "2 grants", "2 refused", "gemini", "idle")
            await d.press("r")
            await d.reads("filter: agent:claude denied")

    run(body)


def test_words_filter_a_list_and_escape_drops_them() -> None:
    async def body() -> None:
        async with desk(prompt(1), prompt(2, agent="codex"), more=furnish) as d:
            await d.press("f2", "slash", *"gemini", "enter")
            await d.reads("filter: gemini (1 of 3)")
            await d.press("escape")
            await d.until(lambda: "filter:" not in d.text(), "dropped")
            await d.press("f1", "slash", *"codex", "enter")
            await d.shows("p2")
            await d.reads("2 prompts wait")

    run(body)


def test_help_is_filtered_by_what_is_typed() -> None:
    async def body() -> None:
        async with desk(more=furnish) as d:
            await d.press("f4", "question_mark", *"time")
            await d.reads("go to a time")
            assert "quit" not in d.text()
            await d.press("escape")
            await d.reads("▸ F4 Ledger")

    run(body)


def test_the_palette_leads_everywhere_and_answers_nothing() -> None:
    async def body() -> None:
        async with desk(prompt()) as d:
            await d.shows("p1")
            await d.quiet()
            titles = {c.title for c in d.app.get_system_commands(d.app.screen)}
            assert {"Prompts", "Ledger", "Agents", "Theme", "Help", "Filter", "Quit"} <= titles
            assert not titles & {"Allow", "Deny", "For", "Open", "Scope"}
            await d.press("ctrl+p")
            await d.pilot.pause(0.1)
            await d.press(*"ledger", "down", "enter")
            await d.reads("▸ F4 Ledger")
            assert not d.server.answers()

    run(body)


def test_a_line_below_the_keys_is_clicked() -> None:
    async def body() -> None:
        async with desk(more=furnish) as d:
            await d.press("f4")
            await d.reads("f Follow")
            await d.pilot.click("#keys", offset=(d.text().split("\n")[-1].index("Follow"), 0))
            await d.reads("following")

    run(body)


def test_settings_give_keys_and_a_theme(tmp_path: Path) -> None:
    path = tmp_path / "tui.toml"
    path.write_text('theme = "textual-light"\n[keys]\n"prompts.deny" = "n"\n"any.ledger" = "f12"\n')

    async def body() -> None:
        async with desk(prompt(1), prompt(2), settings=str(path), more=furnish) as d:
            await d.shows("p1")
            assert d.app.theme == "textual-light"
            assert "n Deny" in d.text()
            await d.quiet()
            await d.press("n")
            await d.until(d.server.answers, "answered")
            assert d.server.answers()[0]["verdict"] == "deny"
            await d.shows("p2")
            await d.quiet()
            await d.press("d")
            assert "means nothing here" in d.notice
            await d.press("f12")
            await d.reads("▸ F4 Ledger")

    run(body)


def test_a_faulty_settings_file_is_named_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tui.toml"
    path.write_text('[keys]\n"prompts.allow" = "enter"\n')

    async def body() -> None:
        async with desk(prompt(), settings=str(path), size=(120, 30)) as d:
            await d.shows("p1")
            told = "tui.toml:2:1: enter never allows: it is pressed to go on"
            await d.until(
                lambda: told in d.text().replace("\n", ""), told
            )  # its path may be long: lines end anywhere
            await d.quiet()
            await d.press("tab", "enter")
            assert not d.server.answers()
            await d.quiet()
            await d.press("a")
            await d.until(d.server.answers, "answered")

    run(body)


def test_the_selected_rows_are_written_to_a_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []

    async def export(path: str, wanted: dict[str, Any]) -> None:
        seen.append(wanted)
        Path(path).write_text(json.dumps(wanted))

    monkeypatch.setattr(outside, "export", export)
    there = tmp_path / "there.jsonl"
    there.write_text("")

    async def body() -> None:
        async with desk(more=furnish) as d:
            await d.press("f4", "slash", *"op:read", "enter")
            await d.reads("filter: op:read")
            await d.press("e")
            await d.until(lambda: isinstance(d.app.screen, Ask), "asks")
            await d.press("ctrl+u", *str(there))
            await d.reads("there is such a file already")
            await d.press("backspace", "enter")
            await d.until(lambda: seen == [{"op": "read"}], "written")

    run(body)


def test_a_newer_remitd_tells_hits_reports_and_reach() -> None:
    rule = {
        "layer": "user",
        "verdict": "deny",
        "op": "read",
        "text": "/x",
        "file": "/c/me.toml",
        "line": 3,
        "hits": 41,
        "last": 1900.0,
    }
    count = {"number": 312, "at_least": False, "kinds": {}, "examples": [], "secrets": [HOSTILE, "/k2"]}

    def more(server: Approver) -> None:
        furnish(server)
        server.also = {
            "policy.effective": {"rules": [rule]},
            "report": REPORT,
            "reach": {
                "scope": "",
                "rule": "",
                "ledger": count | {"number": 5, "secrets": []},
                "disk": count,
            },
        }

    async def body() -> None:
        async with desk(prompt(), size=(120, 50), more=more) as d:
            await d.press("f5")
            await d.reads("41x", "41 acts of the last 30 days")
            await d.press("f2")
            await d.reads("▸ s2")
            await d.press("r")
            await d.reads("read 120", "the most acts 100")
            assert d.called("report") == [{"session": "s2"}]
            await d.press("f1")
            await d.shows("p1")
            await d.quiet()
            await d.press("5", "a")
            await d.reads(
                "312 things that are there, AMONG THEM 2 SECRET",
                shown(HOSTILE)[:30],
                "5 acts of the last 30 days",
            )
            assert not d.server.answers()

    run(body)
