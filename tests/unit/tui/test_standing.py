"""What stands for all sessions and agents with a person's keys: quiet, missed prompts, a review, a changed program, a policy's edit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fakes.approver import HOSTILE, Approver, grant, prompt, session
from fakes.screen import Desk, desk, run
from remit_daemon.wire.escape import escape
from remit_tui import outside
from remit_tui.screens.ask import Ask
from remit_tui.screens.choose import Choose
from remit_tui.screens.confirm import Confirm
from remit_tui.screens.policy import Draft, Policy
from remit_tui.state import EARLY


async def confirm(d: Desk, *keys: str) -> None:
    await d.until(lambda: isinstance(d.app.screen, Confirm), "asks")
    await d.pilot.pause()
    await d.later()
    await d.press(*keys)


def test_quiet_begins_with_two_keys_is_shown_and_ends() -> None:
    async def body() -> None:
        async with desk(prompt()) as d:
            await d.shows("p1")
            await d.quiet()
            await d.press("Q", "x")
            assert not d.called("quiet"), "any other key leaves it as it is"
            await d.press("Q")
            await d.until(lambda: isinstance(d.app.screen, Choose), "asks")
            assert "0 end it" not in d.text()
            await d.press("4")
            await d.until(lambda: d.called("quiet") == [{"mode": "deny", "seconds": 3600}], "begun")
            await d.reads("QUIET till", "denied", "Q ends it")
            await d.press("a")
            assert d.notice == EARLY, "who was elsewhere has to look first"
            await d.press("f2", "Q")
            await d.reads("0 end it")
            await d.press("0")
            await d.until(lambda: d.called("quiet")[-1] == {"mode": "off"}, "ended")
            await d.until(lambda: "QUIET" not in d.text(), "gone from the header")

    run(body)


def test_what_was_missed_is_listed_and_becomes_a_rule() -> None:
    async def body() -> None:
        old = prompt(
            2, state="missed", path=HOSTILE, scopes=[{"scope": HOSTILE, "label": "this", "rule": ""}]
        )
        async with desk(prompt(1), old) as d:
            await d.shows("p1")
            await d.press("M")
            await d.shows("p2")
            await d.reads("(missed)", "wanted to write", "nobody answered in time", "1 prompt waits")
            assert " 1 once" not in d.text()
            await d.quiet()
            await d.press("5", "a")
            await d.until(lambda: d.app.state.ruled is not None, "ruled")
            await d.quiet()
            await d.press("a")
            await d.until(d.server.answers, "answered")
            wanted = {"id": "p2", "verdict": "allow", "for": "always", "scope": HOSTILE, "via": "tui"}
            assert d.server.answers() == [wanted]
            await d.reads("nothing was missed")
            await d.press("escape")
            await d.shows("p1")

    run(body)


def review(server: Approver) -> None:
    server.grants = [
        grant(1, due=True, markers=["unused"], created=4.0),
        grant(2, due=True, markers=["stale"], created=3.0),
        grant(3, due=True, suspended=True, created=2.0),
        grant(4, due=True, scope=HOSTILE, rule=HOSTILE, created=1.0),
        grant(5),
    ]


def test_a_review_walks_from_one_to_the_next_and_says_what_came_of_it() -> None:
    async def body() -> None:
        async with desk(more=review) as d:
            await d.reads("4 grants want a look")
            await d.press("f3")
            await d.reads("notes/5")
            await d.press("v")
            await d.reads("REVIEW, 4 left", "v Review")
            assert "notes/5" not in d.text()
            await d.press("c")
            await d.reads(EARLY[:40])
            await d.later()
            await d.press("c", "c")
            await d.until(lambda: d.called("grant.keep") == [{"id": "g1"}], "kept")
            await d.reads("REVIEW, 3 left", "3 grants want a look", 'notes/2/**", always')
            await d.later()
            assert d.called("grant.keep") == [{"id": "g1"}], "the second key was for the one before"
            await d.press("n")
            await d.until(lambda: isinstance(d.app.screen, Ask), "asks")
            await d.press("backspace", "backspace", "a", "enter")
            await d.until(lambda: d.called("grant.narrow"), "narrowed")
            await d.reads("REVIEW, 2 left")
            await d.later()
            await d.press("r")
            await confirm(d, "y")
            await d.until(lambda: d.called("revoke") == [{"id": "g3"}], "revoked")
            await d.reads("REVIEW, 1 left")
            await d.press("escape")
            said = {"kept": 1, "narrowed": 1, "revoked": 1, "skipped": 1}
            await d.until(lambda: d.called("review.done") == [said], "told")
            await d.reads("review done: 1 kept, 1 narrowed, 1 revoked, 1 left", "notes/5")

    run(body)


def test_a_review_ends_by_itself_with_nothing_left() -> None:
    def more(server: Approver) -> None:
        server.grants = [grant(1, due=True)]

    async def body() -> None:
        async with desk(more=more) as d:
            await d.reads("1 grant wants a look")
            await d.press("f3")
            await d.reads("[due]")
            await d.press("v")
            await d.later()
            await d.press("c")
            await d.until(lambda: d.called("review.done"), "told")
            assert d.called("review.done") == [{"kept": 1, "narrowed": 0, "revoked": 0, "skipped": 0}]
            await d.until(lambda: "look" not in d.text().split("\n")[0], "no longer in the header")
            await d.press("v")
            await d.reads("nothing to review")

    run(body)


def changed(server: Approver) -> None:
    program = {"digest": "ab" * 32, "path": HOSTILE, "how": "launched", "first_seen": 1.0, "last_seen": 9.0}
    server.agents = [
        {"name": "claude", "changed": 9.0, "pending": True, "programs": [program], "adopted": []},
        {"name": "codex", "changed": None, "pending": False, "programs": [], "adopted": [77]},
    ]
    server.grants = [grant(1, withheld=True)]


@pytest.mark.parametrize(("key", "keep"), [("c", True), ("D", False)])
def test_a_changed_program_is_kept_or_dropped_after_a_yes(key: str, keep: bool) -> None:
    async def body() -> None:
        async with desk(more=changed) as d:
            await d.press("f6")
            await d.reads("CHANGED", "c Keep", "D Drop", "\\x1b[2J")
            await d.press(key)
            await confirm(d, "enter")
            assert not d.called("agent.update")
            await d.press(key)
            await confirm(d, "y")
            await d.until(lambda: d.called("agent.update") == [{"name": "claude", "keep": keep}], "told")
            await d.until(lambda: "CHANGED" not in d.text(), "settled")
            assert "c Keep" not in d.text()
            await d.press(key)
            await d.reads("has not changed")

    run(body)


def test_sessions_stand_below_the_one_that_started_them() -> None:
    def more(server: Approver) -> None:
        server.sessions = [
            session(1, started=900.0),
            session(2, agent="reviewer of claude", parent="s1", started=950.0),
            session(3, agent="tool", confined=False, started=100.0),
        ]
        server.limits = [{"agent": "claude", "session": "s1", "spent": True, "text": "9 of 9 are spent"}]

    async def body() -> None:
        async with desk(more=more) as d:
            await d.press("f2")
            await d.reads("└ rev", "[limit]", "[unconfined]", "9 of 9 are spent", "tool (unconfined)")
            rows = d.text().split("\n")
            assert [r[2:4] for r in rows if r[2:4] in ("s1", "s2", "s3")] == ["s1", "s2", "s3"]

    run(body)


class Editing:
    """A policy file, an editor that writes one text after another into the draft, and ``remit`` without its process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *texts: str) -> None:
        self.file = folder / "remit" / "policy.d" / "me.toml"
        self.file.parent.mkdir(parents=True)
        self.file.write_text("version = 1\n")
        self.texts = list(texts)
        self.drafts: list[str] = []
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
        monkeypatch.setenv("EDITOR", "editor")
        monkeypatch.delenv("VISUAL", raising=False)
        monkeypatch.setattr("subprocess.call", self.edit)
        monkeypatch.setattr(outside, "remit", self.remit)
        monkeypatch.setattr(outside, "remit_json", self.remit_json)
        monkeypatch.setattr(Policy, "_suspended", staticmethod(lambda edit: edit()))

    def edit(self, command: list[str]) -> int:
        self.drafts.append(command[-1])
        Path(command[-1]).write_text(self.texts.pop(0))
        return 0

    async def remit(self, *args: str, seconds: float | None = 20.0) -> tuple[int, str, str]:
        text = Path(args[2]).read_text()
        if args[1] == "check":
            return (
                (2, "", f"{args[2]}:1:1: error: no {escape(HOSTILE)}\x1b[2J")
                if "bad" in text
                else (0, "", "")
            )
        return 1, f"agent claude:\n  looser    read /x: ask -> allow  (by {args[2]}:3)\n", ""

    async def remit_json(self, *args: str) -> Any:
        rule = {
            "layer": "user", "verdict": "deny", "op": "read", "text": "/x", "file": str(self.file), "line": 3, "role": "coder",
        }  # fmt: skip
        return {"agents": [{"agent": "claude", "rules": [rule]}]}


async def opened(d: Desk) -> None:
    await d.press("f5")
    await d.reads("deny  read")
    await d.press("e")


def test_what_a_policy_decides_otherwise_is_shown_before_it_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Editing(tmp_path, monkeypatch, "bad", "first", "second")

    async def body() -> None:
        async with desk(size=(200, 40)) as d:
            await opened(d)
            await d.reads("edit again, since this has a fault", "me.toml:1:1: error: no")
            await confirm(d, "y")
            await d.reads("looser    read /x: ask -> allow", "me.toml:3)", "e: edit again")
            assert ".draft" not in d.text()
            assert all(c.isprintable() for c in d.text().replace("\n", ""))
            assert made.file.read_text() == "version = 1\n"
            await confirm(d, "e")
            await d.until(lambda: len(made.drafts) == 3, "edited again")
            await confirm(d, "y")
            await d.reads("saved and in force")
            assert made.file.read_text() == "second"
            assert d.called("reload")
            assert sorted(os.listdir(made.file.parent.parent)) == ["policy.d"]

    run(body)


def test_a_policy_that_is_not_saved_is_kept_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Editing(tmp_path, monkeypatch, "first")

    async def body() -> None:
        async with desk(size=(200, 40)) as d:
            await opened(d)
            await confirm(d, "escape")
            await d.reads("not saved, your text is in")
            assert made.file.read_text() == "version = 1\n"
            assert (made.file.parent / "me.toml.rejected").read_text() == "first"
            assert not d.called("reload")

    run(body)


def test_a_file_that_was_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    file, path = tmp_path / "me.toml", tmp_path / "draft.toml"
    file.write_text("another's")
    path.write_text("mine")
    draft = Draft(str(file), str(path), "as it was", 1)
    assert not draft.save()
    assert file.read_text() == "another's"


def test_how_many_grants_are_due_is_the_view_s_word_while_it_is_shown() -> None:
    def more(server: Approver) -> None:
        server.grants = [grant(1, due=True), grant(2, due=True)]

    async def body() -> None:
        async with desk(more=more) as d:
            await d.reads("2 grants want a look")
            rough = {"policy": {"errors": [], "revision": 1}, "quiet": None, "review": {"due": 1}}
            d.server.also["status"] = rough
            await d.press("f3")
            await d.reads("tes/2/**")
            seen = len(d.called("status"))
            d.server.push("grant", {"id": "g1", "change": "kept"})
            await d.until(lambda: len(d.called("status")) > seen, "reads what stands")
            await d.pilot.pause(0.05)
            assert "2 grants want a look" in d.text()
            await d.press("f1")
            d.server.push("review", {"grants": 1})
            await d.reads("1 grant wants a look")

    run(body)
