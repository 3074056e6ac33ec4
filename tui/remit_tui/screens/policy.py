"""Policy: what is wrong with it, which files it is made of, and the rules in force for an agent."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from textual.binding import Binding, BindingType

from remit_daemon.wire.rpc import METHOD_NOT_FOUND
from remit_tui import outside
from remit_tui.client import GoneError, RpcError
from remit_tui.filters import written
from remit_tui.frame import Line
from remit_tui.outside import OutsideError
from remit_tui.rows import exactly, pad
from remit_tui.screens.listing import Listing
from remit_tui.screens.view import Desk
from remit_tui.text import clip, fold, shown, width_of
from remit_tui.words import field

ANY = "(any other)"  # as ``remit policy show`` names the agents that no section is about


@dataclass(frozen=True, slots=True)
class Item:
    """A problem or a rule, with its place. ``kind`` is ``problem`` or the rule's layer."""

    kind: str
    verdict: str
    op: str
    text: str
    file: str
    line: int
    role: str = ""
    more: str = ""
    hits: int | None = None
    last: float | None = None

    @property
    def source(self) -> str:
        """The place as rows of the ledger name it."""
        return f"{self.file}:{self.line}" if self.line else self.file


def items_of(problems: Any, rules: Any) -> tuple[Item, ...]:
    """Return problems (of the wire's ``status``) and rules (of its ``policy.effective``) as items."""
    out = [
        Item(
            "problem",
            "",
            "",
            str(p["message"]),
            str(p["file"]),
            int(p["line"] or 0),
            more=str(p.get("expected") or ""),
        )
        for p in problems
    ]
    for rule in rules:
        argv = rule.get("argv")
        text = str(rule["text"]) + (f" {' '.join(argv)}" if argv else "")
        marks = [m for m in ("final", "protected") if rule.get(m)]
        if rule.get("except"):
            marks.append("except " + ", ".join(rule["except"]))
        out.append(
            Item(
                str(rule["layer"]), str(rule["verdict"]), str(rule["op"]), text,
                str(rule["file"]), int(rule["line"] or 0), str(rule.get("role") or ""), "; ".join(marks), rule.get("hits"), rule.get("last"),
            )
        )  # fmt: skip
    order = {"problem": 0, "admin": 1, "user": 2, "grant": 3, "project": 4}
    return tuple(sorted(out, key=lambda i: order.get(i.kind, 5)))


class Policy(Listing):
    """Lists problems first, then the rules of one agent, layer by layer."""

    NAME = "policy"
    EMPTY = "no rule is in force"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,l", "ledger", "Its rows", key_display="enter", tooltip="what this rule decided", id="policy.ledger"),
        Binding("n", "agent", "Next agent", tooltip="the rules of the next agent", id="policy.next_agent"),
        Binding("e", "edit", "Edit", tooltip="edit the file in $EDITOR; what it decides otherwise is shown before it takes effect", id="policy.edit"),
    ]  # fmt: skip

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.agent = ""
        self._agents: list[str] = []
        self._seen: tuple[Any, ...] = ()
        self._rules: Any = ()

    async def read(self) -> tuple[Item, ...]:
        """Return problems and rules; files are read again only when remitd says that policy changed."""
        policy = (await self.desk.client.call("status"))["policy"]
        if not self._agents:
            found = await outside.remit_json("policy", "show")
            self._agents = [str(a["agent"]) for a in found["agents"]]
            running = [s.agent for s in self.desk.state.sessions if s.state != "ended"]
            self._agents = [*dict.fromkeys([*running, *self._agents])]
            self.agent = self._agents[0]
        seen = (policy["revision"], str(policy["errors"]), self.agent)
        if seen != self._seen:
            self._rules = await self._in_force()
            self._seen = seen
        return items_of(policy["errors"], self._rules)

    async def _in_force(self) -> Any:
        """Return the agent's rules as remitd has them, or, from one that cannot tell, as the files say."""
        try:
            return (await self.desk.client.call("policy.effective", agent=self.agent))["rules"]
        except RpcError as e:
            if e.code != METHOD_NOT_FOUND:
                raise
        return (await outside.remit_json("policy", "show", self.agent))["agents"][0]["rules"]

    def key(self, item: Item) -> str:
        """Return what names it."""
        return f"{item.source} {item.op} {item.text} {item.verdict}"

    def text(self, item: Item) -> str:
        """Return all its words."""
        return " ".join((item.kind, item.verdict, item.op, item.text, item.source, item.role))

    def row(self, item: Item, width: int, on: bool) -> Line:
        """Return its line."""
        mark = "▸" if on else " "
        if item.kind == "problem":
            head = f"{mark} PROBLEM {shown(os.path.basename(item.file))}:{item.line} "
        else:
            hits = "" if item.hits is None else f"{pad(f'{item.hits}x', 7)}"
            head = f"{mark} {pad(item.kind, 7)} {pad(item.verdict, 5)} {pad(item.op, 9)} {hits}"
        text = head + clip(shown(item.text), max(width - width_of(head), 3))
        return [
            (
                "reverse" if on else "bold" if item.kind == "problem" else "",
                pad(text, width),
            )
        ]

    def detail(self, item: Item, width: int) -> list[Line]:
        """Return all of it."""
        lines: list[Line] = [[("dim", f"rules for {shown(self.agent)}; n shows the next agent's")]]
        if item.kind == "problem":
            lines += [[("bold", p)] for p in fold(shown(item.text), width)]
            if item.more:
                lines += field("expected", shown(item.more), width)
        else:
            said = f"{item.verdict} {item.op} {item.text}"
            lines += [[("bold", p)] for p in fold(shown(said), width)]
            lines += field("layer", f"{item.kind}, role {shown(item.role) or 'none'}", width)
            if item.hits is not None:
                last = f", last {exactly(item.last)}" if item.last else ""
                lines += field("decided", f"{item.hits} acts of the last 30 days{last}", width)
            if item.more:
                lines += field("also", shown(item.more), width)
        lines += field("where", shown(item.source), width)
        return lines

    def action_ledger(self) -> None:
        """Go to what the rule decided."""
        if self.item is not None and self.item.kind != "problem":
            self.desk.ledger(written("rule", self.item.source))

    def action_agent(self) -> None:
        """Show the next agent's rules."""
        if self._agents:
            self.agent = self._agents[(self._agents.index(self.agent) + 1) % len(self._agents)]
            self.say(f"rules for {shown(self.agent)}")
            self.refresh_items()

    def action_edit(self) -> None:
        """Edit the selected item's file."""
        item = self.item
        if item is None or not item.file.startswith("/"):
            self.say("this comes with remit and cannot be edited; a rule of yours can decide otherwise")
        elif not os.access(item.file, os.W_OK):
            self.say(f"you may not write {shown(item.file)}")
        else:
            self.desk.start(self._edit(item.file, item.line))

    async def _edit(self, file: str, line: int) -> None:
        file = os.path.realpath(file)  # a link stays one
        try:
            with open(file, encoding="utf-8", errors="surrogateescape") as f:
                before = f.read()
            draft = outside.draft(before, file)
        except (OSError, OutsideError) as e:
            self.say(f"cannot be edited: {shown(str(e))}")
            return
        try:
            said = await self._edited(Draft(file, draft, before, line))
        except (OSError, OutsideError, RpcError, GoneError) as e:
            said = f"not saved: {shown(str(e))}"
        finally:
            outside.discard(draft)
        self.say(said)
        self.refresh_items()

    def _suspended(self, work: Callable[[], int]) -> int:
        """Return what ``work`` does with the terminal for itself."""
        with self.app.suspend():
            return work()

    async def _edited(self, draft: Draft) -> str:
        """Have ``draft`` edited until it is taken or left; return what came of it.

        It takes its file's place when it is without fault, and the person has seen what it decides otherwise.
        """
        while True:
            command = outside.editor()
            known = os.path.basename(command[0]) in ("vi", "vim", "nvim", "nano", "emacs")
            at = [f"+{draft.line}"] if draft.line and known else []
            words = [*command, *at, draft.path]
            status = self._suspended(lambda: subprocess.call(words))  # noqa: B023 - called at once
            if status:
                return f"the editor ended with status {status}; nothing was changed"
            if draft.text() == draft.before:
                return "nothing was changed"
            code, _, err = await outside.remit("policy", "check", draft.path)
            if code:
                why = outside.lines(err.replace(draft.path, draft.file).strip())
                said = await self.desk.decide("edit again, since this has a fault", why, {}, "edit again")
                if said != "y":
                    return f"not saved, your text is in {shown(draft.keep())}: {' '.join(why)}"
                continue
            said = await self.desk.decide(
                f"save {shown(draft.file)}",
                ("what is decided otherwise then:", *await _differences(draft)),
                {"e": "edit again"},
                "save",
            )
            if said == "e":
                continue
            if said != "y":
                return f"not saved, your text is in {shown(draft.keep())}"
            if not draft.save():
                kept = shown(draft.keep())
                return f"not saved, since {shown(draft.file)} was changed meanwhile; your text is in {kept}"
            await self.desk.client.call("reload")
            return "saved and in force"


@dataclass(frozen=True, slots=True)
class Draft:
    """A policy file that is edited at ``path``; ``file``, whose text was ``before``, stays as it is until it is saved."""

    file: str
    path: str
    before: str
    line: int

    def text(self) -> str:
        """Return what it says now."""
        return _text(self.path)

    def keep(self) -> str:
        """Put it beside its file, which stays as it is; return where it is."""
        kept = f"{self.file}.rejected"
        os.replace(self.path, kept)
        return kept

    def save(self) -> bool:
        """Put it in the place of its file, unless somebody else has changed that; return whether it was done."""
        if _text(self.file) != self.before:
            return False
        os.chmod(self.path, os.stat(self.file).st_mode & 0o777)
        os.replace(self.path, self.file)
        return True


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as f:
        return f.read()


async def _differences(draft: Draft) -> tuple[str, ...]:
    """Return in lines what ``draft`` decides otherwise. Raises OutsideError."""
    if os.path.dirname(draft.file) != os.path.realpath(outside.policy_dir()):
        return ("(what differs is told of your own policy files alone)",)
    return await outside.differences(draft.path, draft.file)
