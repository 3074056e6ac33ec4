"""The ledger: every row, at any time, of whatever was asked for. The machine is ``remit_tui.ledger``."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches

from remit_daemon.wire.words import rule_name
from remit_tui import filters, ledger, moments, outside, rows, rulemaking
from remit_tui.client import GoneError, RpcError, each
from remit_tui.fields import RecordError
from remit_tui.frame import Line
from remit_tui.ledger import Fetch, Find
from remit_tui.moments import MomentError
from remit_tui.outside import OutsideError
from remit_tui.records import Entry
from remit_tui.rulemaking import RuleError
from remit_tui.screens.view import Desk, View
from remit_tui.text import fold, shown
from remit_tui.widgets.lines import Lines, Page
from remit_tui.widgets.table import Table

FOLLOW = 1.0  # s between looks for newer rows


class Ledger(View):
    """Shows rows of the ledger and what led to them."""

    NAME = "ledger"

    DEFAULT_CSS = """
    #state { height: 1; }
    Ledger Page { height: 45%; border-top: solid $foreground 40%; padding: 0 1; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f", "follow", "Follow", tooltip="stay at the newest row", id="ledger.follow"),
        Binding("t", "time", "Go to", tooltip="go to a time, such as yesterday 9:00", id="ledger.time"),
        Binding("enter,r", "rule", "Rule's rows", key_display="enter", tooltip="all rows that this row's rule decided", id="ledger.rule"),
        Binding("w", "who", "Who", tooltip="who gave the path its content or its name", id="ledger.who"),
        Binding("y", "why", "Why", tooltip="why policy decides so, as it is now", id="ledger.why"),
        Binding("o", "only", "Only these", show=False, tooltip="only rows of this row's session", id="ledger.session"),
        Binding("m", "make", "Make rule", tooltip="make a rule from this row", id="ledger.make_rule"),
        Binding("e", "export", "Export", show=False, tooltip="write the rows that are selected to a file", id="ledger.export"),
        Binding("right_curly_bracket", "step('day', 1)", "Next day", show=False, key_display="}", tooltip="go to the next day", id="ledger.next_day"),
        Binding("left_curly_bracket", "step('day', -1)", "Day before", show=False, key_display="{", tooltip="go to the day's beginning, or the day before", id="ledger.day_before"),
        Binding("right_parenthesis", "step('hour', 1)", "Next hour", show=False, key_display=")", tooltip="go to the next hour", id="ledger.next_hour"),
        Binding("left_parenthesis", "step('hour', -1)", "Hour before", show=False, key_display="(", tooltip="go to the hour's beginning, or the hour before", id="ledger.hour_before"),
        Binding("greater_than_sign", "step('minute', 1)", "Next minute", show=False, key_display=">", tooltip="go to the next minute", id="ledger.next_minute"),
        Binding("less_than_sign", "step('minute', -1)", "Minute before", show=False, key_display="<", tooltip="go to the minute's beginning, or the minute before", id="ledger.minute_before"),
        Binding("j,down", "move('down')", "Move", show=False, key_display="j/k", tooltip="the next row", id="any.down"),
        Binding("k,up", "move('up')", "Up", show=False, tooltip="the row before", id="any.up"),
        Binding("g,home", "move('top')", "First", show=False, tooltip="the first row of all", id="any.first"),
        Binding("G,end", "move('bottom')", "Last", show=False, tooltip="the newest row", id="any.last"),
        Binding("pagedown,ctrl+f", "move('page_down')", "Page down", show=False, tooltip="a screen on", id="any.page_down"),
        Binding("pageup,ctrl+b", "move('page_up')", "Page up", show=False, tooltip="a screen back", id="any.page_up"),
        Binding("space", "scroll(1)", "Read on", show=False, tooltip="scroll the row's detail", id="any.read_on"),
        Binding("b", "scroll(-1)", "Read back", show=False, tooltip="scroll it back", id="any.read_back"),
        Binding("escape", "back", "Back", show=False, tooltip="back to the filter before, then to the prompts", id="any.back"),
    ]  # fmt: skip

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.view = ledger.View()
        self.words = ""
        self._before: list[
            tuple[str, int | None]
        ] = []  # filters that were left, and the row that was selected
        self._more: tuple[int, list[Line]] | None = None  # what was asked about the row of that number
        self._begun = False

    def body(self) -> ComposeResult:
        """Lay out state, rows and detail."""
        yield Lines(id="state")
        yield Table(id="table")
        with Page(id="page", can_focus=False):
            yield Lines(id="detail")

    def on_mount(self) -> None:
        """Begin to look."""
        self.set_interval(FOLLOW, self._tick)

    def on_screen_resume(self) -> None:
        """Show the header as it is; the first time, read."""
        if not self._begun:
            self.filter(self.words)

    # The machine.

    def _do(self, step: ledger.Step) -> None:
        self.view, commands = step
        for command in commands:
            self.desk.start(self._carry_out(command))
        self.fill()

    async def _carry_out(self, command: Fetch | Find) -> None:
        call = self.desk.client.call
        try:
            if isinstance(command, Find):
                seq = (await call("log.find", time=float(command.time)))["seq"]
                self._do(ledger.found(self.view, command.turn, None if seq is None else int(seq)))
                return
            bound = {"before" if command.older else "after": command.seq} if command.seq is not None else {}
            reply = await call("log.page", **command.wanted, **bound, limit=ledger.PAGE)
            entries = each(Entry.of, reply["entries"])
            following = None if reply["next"] is None else int(reply["next"])
            size = int(reply["size"])
        except (RpcError, GoneError, RecordError) as e:
            self.view = ledger.failed(self.view, command.turn, str(e) or "remitd gave no reason")
            self.fill()
        except (TypeError, KeyError, ValueError):
            self.view = ledger.failed(self.view, command.turn, "remitd said something unexpected")
            self.fill()
        else:
            self._do(ledger.paged(self.view, command.turn, command.older, entries, following, size))

    def _tick(self) -> None:
        if self.is_current and self._begun:
            self._do(ledger.ticked(self.view))

    def filter(self, text: str, *, back: bool = False) -> None:
        """Show what the filter ``text`` selects, from the newest row on; remember the one before."""
        try:
            wanted = filters.parse(text, self.desk.wall())
        except filters.FilterError as e:
            self.say(shown(str(e)))
            return
        if self._begun and not back and text != self.words:
            self._before.append((self.words, self.view.entry.seq if self.view.entry else None))
        self._begun, self.words, self._more = True, text, None
        if self.is_mounted:
            self._do(ledger.opened(self.view, wanted))

    # What is shown.

    def fill(self) -> None:
        """Show the rows as they are now."""
        try:
            table, state, detail = (
                self.query_one(Table), self.query_one("#state", Lines), self.query_one("#detail", Lines)
            )  # fmt: skip
        except NoMatches:
            return
        view = self.view
        state.show([[("dim", self._state())]])
        if view.searching:
            empty = "searching"
        else:
            empty = "no row fits; Esc goes back" if self.words else "nothing is recorded yet"
        table.show(
            len(view.entries),
            view.place,
            lambda i, width, on: rows.entry_row(view.entries[i], width, on),
            empty,
        )
        width = max(self.size.width - 3, 8)
        entry = view.entry
        lines = rows.entry_detail(entry, width) if entry else []
        if entry and self._more and self._more[0] == entry.seq:
            lines = self._more[1]
        detail.show(lines)

    def _state(self) -> str:
        view = self.view
        parts = [f"filter: {shown(self.words)}" if self.words else "all rows"]
        if view.entry:
            parts.append(f"row {view.entry.seq:,} of {view.size:,}")
        if view.searching and view.older:
            parts.append(f"searching, at row {view.older:,}")
        if view.follow:
            parts.append("following")
        if view.trouble:
            parts.insert(0, f"OLD: {shown(view.trouble)}")
        return " " + " · ".join(parts)

    def on_table_sized(self) -> None:
        """Fit the rows."""
        self._do(ledger.resized(self.view, self.query_one(Table).size.height))

    def on_table_picked(self, message: Table.Picked) -> None:
        """Select the clicked row."""
        self._do(ledger.select(self.view, message.index))

    def on_table_wheeled(self, message: Table.Wheeled) -> None:
        """Go along."""
        self._do(ledger.select(self.view, self.view.place.at + message.rows))

    # Keys.

    def action_move(self, how: str) -> None:
        """Move the cursor."""
        self.say("")
        self.query_one(Page).scroll_home(animate=False)
        self._do(ledger.move(self.view, how))

    def action_scroll(self, direction: int) -> None:
        """Scroll the detail."""
        page = self.query_one(Page)
        (page.scroll_page_down if direction > 0 else page.scroll_page_up)(animate=False)

    def action_follow(self) -> None:
        """Stay at the newest row, or no longer."""
        self._do(ledger.followed(self.view, not self.view.follow))

    def action_step(self, unit: str, direction: int) -> None:
        """Go to the next minute, hour or day, or back."""
        if self.view.entry is not None:
            self._do(ledger.jump(self.view, moments.stepped(self.view.entry.time, unit, direction)))

    def action_time(self) -> None:
        """Let the person write a time, and go there."""

        async def check(text: str) -> tuple[bool, str]:
            try:
                return True, f"the first row from {rows.exactly(moments.moment(text, self.desk.wall()))} on"
            except MomentError as e:
                return False, shown(str(e))

        def then(text: str) -> None:
            self._do(ledger.jump(self.view, moments.moment(text, self.desk.wall())))

        self.desk.ask("go to", "", check, then)

    def action_filter(self) -> None:
        """Let the person write a filter."""

        async def check(text: str) -> tuple[bool, str]:
            try:
                filters.parse(text, self.desk.wall())
            except filters.FilterError as e:
                return False, shown(str(e))
            return True, f"{filters.EXPECTED}; none shows all"

        self.desk.ask("show only", self.words, check, self.filter)

    def action_back(self) -> None:
        """Go back to the filter before, or to the prompts."""
        if self._before:
            words, seq = self._before.pop()
            self.filter(words, back=True)
            if seq is not None:
                self._do(ledger.found(self.view, self.view.turn, seq))
        elif self.words:
            self.filter("", back=True)
        else:
            self.desk.go("prompts")

    def action_rule(self) -> None:
        """Show all rows that this one's rule decided."""
        if entry := self.view.entry:
            if entry.rule:
                self.filter(filters.written("rule", entry.rule))
            else:
                self.say("no rule decided this row")

    def action_only(self) -> None:
        """Show the rows of this one's session."""
        if (entry := self.view.entry) and entry.session:
            self.filter(filters.written("session", entry.session))

    def action_who(self) -> None:
        """Ask who gave the row's path its content or name."""
        if (entry := self.view.entry) and entry.path.startswith("/"):
            self.desk.start(self._ask_who(entry))
        else:
            self.say("this row names no path")

    async def _ask_who(self, entry: Entry) -> None:
        width = max(self.size.width - 3, 8)
        try:
            reply = await self.desk.client.call("who", path=entry.path)
            found = each(Entry.of, reply.get("entries") or [])
            text = str(reply.get("text") or "")
        except (RpcError, GoneError, RecordError) as e:
            self.say(shown(str(e)))
            return
        lines: list[Line] = [
            [("bold", p)]
            for p in fold(f"who gave this its content or its name: {shown(entry.path)}", width)
        ]
        for act in found:
            lines += [[("", "")], *rows.entry_detail(act, width)]
        self._tell(entry, lines if found else [*lines, [("", shown(text))]])

    def action_why(self) -> None:
        """Ask why policy decides so, as it is now."""
        if (entry := self.view.entry) and entry.actor == "agent" and entry.path:
            self.desk.start(self._ask_why(entry))
        else:
            self.say("policy decides on what agents do; this is no such row")

    async def _ask_why(self, entry: Entry) -> None:
        width = max(self.size.width - 3, 8)
        more = list(entry.argv[1:]) if entry.op == "exec" else []
        try:
            _, out, err = await outside.remit("policy", "why", entry.agent, entry.op, entry.path, *more)
        except OutsideError as e:
            self.say(shown(str(e)))
            return
        lines: list[Line] = [
            [("bold", p)]
            for p in fold(
                f"at the time: {shown(entry.verdict)} by {shown(rule_name(entry.rule))}; now:", width
            )
        ]
        for line in (out or err).splitlines():
            lines += [[("", part)] for part in fold(shown(line.strip()), width)]
        self._tell(entry, lines)

    def _tell(self, entry: Entry, lines: list[Line]) -> None:
        self._more = (entry.seq, lines)
        self.query_one(Page).scroll_home(animate=False)
        self.fill()

    def action_export(self) -> None:
        """Let the person name a file, and write the selected rows to it."""

        async def check(text: str) -> tuple[bool, str]:
            path = os.path.expanduser(text)
            if not path.startswith("/"):
                return False, "an absolute path, or one that begins with ~"
            if os.path.lexists(path):
                return False, "there is such a file already"
            form = "OCSF" if path.endswith(".ocsf") else "JSON lines (OCSF when the name ends with .ocsf)"
            return True, f"{'what the filter selects' if self.words else 'the whole ledger'}, as {form}"

        def then(text: str) -> None:
            self.say("writing")
            self.desk.start(self._export(os.path.expanduser(text)))

        self.desk.ask("write to", "~/remit-log.jsonl", check, then)

    async def _export(self, path: str) -> None:
        try:
            await outside.export(path, self.view.wanted)
        except OutsideError as e:
            self.say(f"not written: {shown(str(e))}")
        else:
            self.say(f"written: {shown(path)}")

    def action_make(self) -> None:
        """Let the person make a rule from the row."""
        entry = self.view.entry
        if entry is None or entry.actor != "agent" or not entry.path:
            self.say("a rule is made from what an agent did")
            return
        self.desk.start(self._make(entry))

    async def _make(self, entry: Entry) -> None:
        try:
            said = await outside.remit_json("policy", "show", entry.agent)
            role = rulemaking.role_for(entry.agent, list(said["agents"][0]["roles"]))
        except (OutsideError, RuleError, LookupError, TypeError) as e:
            self.say(f"no rule can be made: {shown(str(e))}")
            return
        about = f"row {entry.seq} of the ledger"

        async def check(text: str) -> tuple[bool, str]:
            return await _tried(rulemaking.document(text, role, about, self.desk.wall()), entry)

        async def guarded(text: str) -> tuple[bool, str]:
            try:
                return await check(text)
            except (RuleError, OutsideError) as e:
                return False, shown(str(e))

        def then(text: str) -> None:
            document = rulemaking.document(text, role, about, self.desk.wall())
            place = _place(entry.seq)
            whole = " ".join(shown(line) for line in document.splitlines()[3:])
            self.desk.confirm(
                f"save {whole} as {shown(place)}", lambda: self.desk.start(self._save(document, place))
            )

        self.desk.ask(f"rule for role {shown(role)}", rulemaking.line_of(entry), guarded, then)

    async def _save(self, document: str, place: str) -> None:
        try:
            draft = outside.draft(document, place)
            os.link(draft, place)  # which, unlike a rename, replaces nothing
            outside.discard(draft)
            await self.desk.client.call("reload")
        except OSError as e:
            self.say(f"not saved: {shown(place)}: {e.strerror}")
        except (OutsideError, RpcError, GoneError) as e:
            self.say(f"saved, or not in force yet: {shown(str(e))}")
        else:
            self.say(f"saved and in force: {shown(place)}")


def _place(seq: int) -> str:
    return f"{outside.policy_dir()}/row-{seq}.toml"


async def _tried(document: str, entry: Entry) -> tuple[bool, str]:
    """Return whether ``document`` is a policy file without a fault, and what it would decide on ``entry``."""
    draft = outside.draft(document, _place(entry.seq))
    more = list(entry.argv[1:]) if entry.op == "exec" else []
    try:
        code, _, err = await outside.remit("policy", "check", draft)
        if code:
            return False, shown(err.replace(draft, "the rule").strip())
        why = await outside.remit_json(
            "policy", "why", "--policy", draft, entry.agent, entry.op, entry.path, *more
        )
    finally:
        outside.discard(draft)
    text = "  ".join(shown(line) for line in document.splitlines()[3:])
    says: Any = why.get("verdict") if isinstance(why, dict) else ""
    by = str((why.get("rule") or {}).get("source") or "no rule").replace(draft, "this rule")
    return True, f"{text}\nthen {shown(entry.op)} of this is: {shown(str(says))}, by {shown(by)}"
