"""Grants: what was answered for longer than once, how it was used, and how to take it back or make it less."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from remit_daemon.wire.escape import escape, unescape
from remit_tui import rows
from remit_tui.client import each
from remit_tui.frame import Line
from remit_tui.records import Grant
from remit_tui.screens.listing import Listing
from remit_tui.text import shown

EXTEND = 30 * 86400  # s: a month from now, after which a person looks at it again


class Grants(Listing):
    """Lists grants, those that have something to look at first."""

    NAME = "grants"
    EMPTY = "nothing was granted"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "revoke", "Revoke", tooltip="take it back; asks once more", id="grants.revoke"),
        Binding("n", "narrow", "Narrow", tooltip="write a narrower scope for it", id="grants.narrow"),
        Binding("c", "keep", "Keep", tooltip="you looked at it and it is right; a suspended one holds again", id="grants.keep"),
        Binding("x", "extend", "Extend", show=False, tooltip="let it end 30 days from now, if that is later", id="grants.extend"),
    ]  # fmt: skip

    async def read(self) -> tuple[Grant, ...]:
        """Return all grants."""
        found = each(Grant.of, await self.desk.client.call("grants"))
        return tuple(sorted(found, key=lambda g: (not rows.marked(g), g.agent, -g.created)))

    def key(self, item: Grant) -> str:
        """Return its id."""
        return item.id

    def text(self, item: Grant) -> str:
        """Return its rule and what is marked."""
        return " ".join((item.id, item.rule, item.scope, *rows.marked(item)))

    def row(self, item: Grant, width: int, on: bool) -> Line:
        """Return its line."""
        return rows.grant_row(item, self.desk.wall(), width, on)

    def detail(self, item: Grant, width: int) -> list[Line]:
        """Return all of it."""
        return rows.grant_detail(item, self.desk.wall(), width)

    def action_revoke(self) -> None:
        """Take it back, once the person has said so again."""
        if (grant := self.item) is None:
            return
        self.desk.confirm(
            f"take back: {shown(grant.rule)}",
            lambda: self.desk.start(self.change("revoke", "taken back", id=grant.id)),
        )

    def action_narrow(self) -> None:
        """Let the person write a scope inside the present one."""
        if (grant := self.item) is None:
            return

        async def check(text: str) -> tuple[bool, str]:
            try:
                scope = unescape(text)
            except ValueError:
                return False, "a backslash is written \\\\"
            return scope != grant.scope, f"now: {shown(grant.rule)}; remitd takes only what lies inside it"

        def then(text: str) -> None:
            self.desk.start(self.change("grant.narrow", "narrowed", id=grant.id, scope=unescape(text)))

        self.desk.ask("narrower scope", escape(grant.suffices or grant.scope), check, then)

    def action_keep(self) -> None:
        """Note that it was looked at."""
        if (grant := self.item) is not None:
            self.desk.start(self.change("grant.keep", "kept", id=grant.id))

    def action_extend(self) -> None:
        """Let it last longer, once the person has said so again."""
        if (grant := self.item) is None:
            return
        self.desk.confirm(
            f"for 30 days from now: {shown(grant.rule)}",
            lambda: self.desk.start(self.change("grant.extend", "extended", id=grant.id, seconds=EXTEND)),
        )
