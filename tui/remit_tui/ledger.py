"""The ledger's view as a pure machine: a window of rows over a ledger that is never loaded whole.

The window holds rows without a gap, at most KEEP; what is far from the cursor is let go and fetched again when it is near.
A page may come empty and still have a next (``wire.rpc``, log.page): the machine asks on until the screen is full or
the ledger ends, and says how far it has searched. Replies to a filter that was left are known by their ``turn``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from remit_tui.place import START, Place, moved, within
from remit_tui.records import Entry

PAGE = 200  # rows of one request: some 100 kB, more than a screen and its surroundings
KEEP = 2000  # rows in the window
NEAR = 60  # rows before an edge of the window at which more is fetched
_OPEN = ("pending", "held")  # outcomes that are still to come
_END = 1 << 62  # the goal that is the newest row, whichever that is
_RECENT = 200  # newest rows among which those are looked at again while following


@dataclass(frozen=True, slots=True)
class Fetch:
    """Command: get a page. ``older`` ones end before ``seq`` (None: the ledger's end), newer ones begin after it."""

    turn: int
    older: bool
    seq: int | None
    wanted: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Find:
    """Command: ask where ``time`` (s since the epoch) begins."""

    turn: int
    time: float


@dataclass(frozen=True, slots=True)
class View:
    """All that the view shows of the rows.

    ``older`` is where the page before the window ends (None: at the ledger's end, nothing was read yet), ``newer``
    where that behind it begins. ``first`` and ``caught`` say that there is none, the latter as of the last look. ``goal`` is
    the row that the cursor is to be put on once it is there.
    """

    wanted: dict[str, Any] = field(default_factory=dict)
    turn: int = 0
    entries: tuple[Entry, ...] = ()
    place: Place = START
    height: int = 1
    older: int | None = None
    first: bool = False
    newer: int | None = None
    caught: bool = True
    asked: frozenset[bool] = frozenset()  # directions of requests under way; True is older
    goal: int | None = None
    follow: bool = False
    size: int = 0
    trouble: str = ""

    @property
    def entry(self) -> Entry | None:
        """The row under the cursor."""
        return self.entries[self.place.at] if self.place.at < len(self.entries) else None

    @property
    def searching(self) -> bool:
        """Whether the screen is not full and more may come."""
        return bool(self.asked) and len(self.entries) < self.height


Step = tuple[View, list[Fetch | Find]]


def opened(view: View, wanted: dict[str, Any]) -> Step:
    """Start again from the newest row, with what ``wanted`` selects."""
    return _more(replace(_anew(view), wanted=wanted))


def _anew(view: View) -> View:
    return View(
        wanted=view.wanted, turn=view.turn + 1, height=view.height, follow=view.follow, size=view.size
    )


def resized(view: View, height: int) -> Step:
    """Take ``height`` rows as what is in view."""
    view = replace(view, height=max(height, 1))
    return _more(replace(view, place=within(view.place, len(view.entries), view.height)))


def move(view: View, how: str) -> Step:
    """Move the cursor, a move of ``place``; top and bottom are those of the ledger, not of the window."""
    if how == "top" and not view.first:
        return _more(replace(_anew(view), first=True, newer=0, caught=False, follow=False))
    if how == "bottom" and not view.caught:
        return _more(_anew(view))
    if how == "bottom" and view.newer is not None:
        view = replace(view, caught=False, goal=_END)  # there may be more by now
    place = moved(view.place, how, len(view.entries), view.height)
    view = replace(view, goal=view.goal if how == "bottom" else None)
    leaves = how in ("up", "page_up", "top") and place.at < len(view.entries) - 1
    return _more(replace(view, place=place, follow=view.follow and not leaves))


def select(view: View, row: int) -> Step:
    """Put the cursor on the row ``row`` of the window."""
    return _more(replace(view, place=within(replace(view.place, at=row), len(view.entries), view.height)))


def followed(view: View, on: bool) -> Step:
    """Stay at the newest row from now on, or no longer."""
    view = replace(view, follow=on)
    return move(view, "bottom") if on else (view, [])


def jump(view: View, time: float) -> Step:
    """Go to the first row of ``time`` or later."""
    return replace(view, turn=view.turn + 1, asked=frozenset(), follow=False), [Find(view.turn + 1, time)]


def found(view: View, turn: int, seq: int | None) -> Step:
    """Take the answer to Find: a row's number, or None when all rows are earlier."""
    if turn != view.turn:
        return view, []
    if seq is None:
        return _more(_anew(view))
    return _more(replace(_anew(view), older=seq, newer=seq - 1, caught=False, goal=seq))


def paged(
    view: View, turn: int, older: bool, entries: tuple[Entry, ...], following: int | None, size: int
) -> Step:
    """Take a page: its rows, oldest first, where the next begins (None: nowhere), and how long the ledger is."""
    if turn != view.turn:
        return view, []
    view = replace(view, asked=view.asked - {older}, size=size, trouble="")
    if older:
        if view.older is None:  # the newest rows: what comes later is behind the ledger as it was then
            view = replace(view, newer=size, caught=True, goal=_END)
        view = replace(view, older=following or view.older, first=following is None)
        view = _grown(view, entries, len(entries))
    else:
        if view.follow and view.place.at >= len(view.entries) - 1:
            view = replace(view, goal=_END)
        known = {e.seq: e for e in entries}
        kept = tuple(known.pop(e.seq, e) for e in view.entries)
        newer = size if following is None else following
        view = replace(view, entries=kept, newer=newer, caught=following is None)
        view = _grown(view, tuple(known.values()), 0)
    return _more(_trimmed(_at_goal(view)))


def _at_goal(view: View) -> View:
    if view.goal is None or not view.entries:
        return view
    last = len(view.entries) - 1
    at = next((i for i, e in enumerate(view.entries) if e.seq >= view.goal), last)
    if view.caught or view.entries[at].seq >= view.goal:
        view = replace(view, goal=None)
    return replace(view, place=within(Place(at, at), last + 1, view.height))


def failed(view: View, turn: int, why: str) -> View:
    """Take it that the request of this ``turn`` was not answered, because of ``why``."""
    return replace(view, asked=frozenset(), trouble=why) if turn == view.turn else view


def ticked(view: View) -> Step:
    """Look for newer rows while following; and again after a failure."""
    if view.trouble:
        return _more(replace(view, trouble=""))
    if not view.follow or not view.caught or False in view.asked or view.newer is None:
        return view, []
    waiting = [e.seq for e in view.entries[-_RECENT:] if e.outcome in _OPEN]
    seq = min([view.newer, *(s - 1 for s in waiting)])
    return replace(view, asked=view.asked | {False}), [Fetch(view.turn, False, seq, view.wanted)]


def _grown(view: View, entries: tuple[Entry, ...], before: int) -> View:
    rows = (*entries, *view.entries) if before else (*view.entries, *entries)
    place = Place(view.place.at + before, view.place.top + before) if view.entries else view.place
    return replace(view, entries=rows, place=within(place, len(rows), view.height))


def _trimmed(view: View) -> View:
    """Let go of what is farthest from the cursor."""
    over = len(view.entries) - KEEP
    if over <= 0:
        return view
    if view.place.at >= len(view.entries) // 2:
        rows = view.entries[over:]
        place = Place(view.place.at - over, view.place.top - over)
        view = replace(view, entries=rows, place=place, older=rows[0].seq, first=False)
    else:
        rows = view.entries[:-over]
        view = replace(view, entries=rows, newer=rows[-1].seq, caught=False)
    return replace(view, place=within(view.place, len(view.entries), view.height))


def _more(view: View) -> Step:
    """Ask for what the screen needs and does not have."""
    out: list[Fetch | Find] = []
    count = len(view.entries)
    if view.trouble:
        return view, out
    if not view.caught and False not in view.asked and view.place.top + view.height + NEAR >= count:
        out.append(Fetch(view.turn, False, view.newer, view.wanted))
    if not view.first and True not in view.asked and view.place.top < NEAR:
        out.append(Fetch(view.turn, True, view.older, view.wanted))
    return replace(view, asked=view.asked | {f.older for f in out if isinstance(f, Fetch)}), out
