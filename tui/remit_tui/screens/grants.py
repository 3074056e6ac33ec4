"""Grants: what was answered for longer than once, how it was used, and how to take it back or make it less.

A review goes through those that are due, one after another: what is kept, narrowed or taken back leaves the list, and the next is
before the person. It ends with none left, or by Esc, and remitd is told what came of it. A key that was meant for the one before
counts for none: each has to have been there for a moment.
"""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType

from remit_daemon.wire.escape import escape, unescape
from remit_tui import rows
from remit_tui.client import each
from remit_tui.frame import Line
from remit_tui.place import START
from remit_tui.records import Grant
from remit_tui.screens.listing import Listing
from remit_tui.screens.view import Desk
from remit_tui.state import EARLY, QUIET
from remit_tui.text import fold, shown

EXTEND = 30 * 86400  # s: a month from now, after which a person looks at it again


class Grants(Listing):
    """Lists grants, those that have something to look at first."""

    NAME = "grants"
    EMPTY = "nothing was granted"

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "revoke", "Revoke", tooltip="take it back; asks once more", id="grants.revoke"),
        Binding("n", "narrow", "Narrow", tooltip="write a narrower scope for it", id="grants.narrow"),
        Binding("c", "keep", "Keep", tooltip="you looked at it and it is right; a suspended one holds again", id="grants.keep"),
        Binding("v", "review", "Review", tooltip="go through those that are due, one after another; again or Esc ends it", id="grants.review"),
        Binding("x", "extend", "Extend", show=False, tooltip="let it end 30 days from now, if that is later", id="grants.extend"),
    ]  # fmt: skip

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._walk: dict[str, int] | None = None  # what came of the review so far; None: there is none
        self._done: set[str] = set()  # grants of it that are done with, as remitd may not say yet
        self._shown = ("", 0.0)  # which grant is before the person, and since when

    async def read(self) -> tuple[Grant, ...]:
        """Return all grants."""
        found = each(Grant.of, await self.desk.client.call("grants"))
        self.desk.stood(sum(g.due for g in found))
        return tuple(sorted(found, key=lambda g: (not rows.marked(g), g.agent, -g.created)))

    @property
    def listed(self) -> tuple[Grant, ...]:
        """The grants that the filter leaves; in a review those that are due alone."""
        found = super().listed
        if self._walk is None:
            return found
        return tuple(g for g in found if g.due and g.id not in self._done)

    def fill(self) -> None:
        """Show what there is; a review with nothing left is over."""
        if self._walk is not None and not self.listed and not self.words:
            self._finish()
        super().fill()
        shown_ = self.item.id if self.item is not None else ""
        if shown_ != self._shown[0]:
            self._shown = (shown_, self.desk.clock())

    def head(self, width: int) -> list[Line]:
        """Return how far the review is."""
        if self._walk is None:
            return []
        left = len(self.listed)
        text = f"REVIEW, {left} left: c keeps, n narrows, r takes back, j leaves it for the next time, Esc ends"
        return [[("reverse", part)] for part in fold(text, width)]

    def idle(self) -> frozenset[str]:
        """Return what does nothing now."""
        out = set() if self.item is not None else {"grants.revoke", "grants.narrow", "grants.keep"}
        if self._walk is None and not any(g.due for g in self.items):
            out.add("grants.review")
        return frozenset(out)

    def action_review(self) -> None:
        """Begin the review, or end it."""
        if self._walk is not None:
            self._finish()
        elif any(g.due for g in self.items):
            self._walk, self._done, self.words = {"kept": 0, "narrowed": 0, "revoked": 0}, set(), ""
            self.place = START
            self.say("")
        else:
            self.say("no grant is due: there is nothing to review")
        self.fill()

    def action_back(self) -> None:
        """End the review, or as ever."""
        if self._walk is not None and not self.words:
            self._finish()
            self.fill()
        else:
            super().action_back()

    def _finish(self) -> None:
        walk, left = self._walk or {}, len(self.listed)
        self._walk = None
        said = ", ".join(f"{n} {what}" for what, n in (walk | {"left": left}).items() if n)
        self.desk.start(self.change("review.done", f"review done: {said}", **walk, skipped=left))

    def _ready(self) -> bool:
        """Whether the selected grant has been there long enough for a key to be meant for it."""
        early = self._walk is not None and self.desk.clock() - self._shown[1] < QUIET
        if early:
            self._shown = (self._shown[0], self.desk.clock())
            self.say(EARLY)
        return not early

    async def _walked(self, method: str, done: str, ident: str, **more: str) -> None:
        """Do it; in a review count it, and go on to the next."""
        good = await self.change(method, done, id=ident, **more)
        if good and self._walk is not None:
            self._walk[done] += 1
            self._done.add(ident)
            self.fill()

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
        if (grant := self.item) is None or not self._ready():
            return
        self.desk.confirm(
            f"take back: {shown(grant.rule)}",
            lambda: self.desk.start(self._walked("revoke", "revoked", grant.id)),
        )

    def action_narrow(self) -> None:
        """Let the person write a scope inside the present one."""
        if (grant := self.item) is None or not self._ready():
            return

        async def check(text: str) -> tuple[bool, str]:
            try:
                scope = unescape(text)
            except ValueError:
                return False, "a backslash is written \\\\"
            return scope != grant.scope, f"now: {shown(grant.rule)}; remitd takes only what lies inside it"

        def then(text: str) -> None:
            self.desk.start(self._walked("grant.narrow", "narrowed", grant.id, scope=unescape(text)))

        self.desk.ask("narrower scope", escape(grant.suffices or grant.scope), check, then)

    def action_keep(self) -> None:
        """Note that it was looked at."""
        if (grant := self.item) is not None and self._ready():
            self.desk.start(self._walked("grant.keep", "kept", grant.id))

    def action_extend(self) -> None:
        """Let it last longer, once the person has said so again."""
        if (grant := self.item) is None:
            return
        self.desk.confirm(
            f"for 30 days from now: {shown(grant.rule)}",
            lambda: self.desk.start(self.change("grant.extend", "extended", id=grant.id, seconds=EXTEND)),
        )
