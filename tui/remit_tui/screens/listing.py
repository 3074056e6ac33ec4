"""A view that is a list above the whole of its selected item; sessions, grants, agents and policy are such."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches

from remit_tui.client import GoneError, RpcError
from remit_tui.fields import RecordError
from remit_tui.frame import Line
from remit_tui.outside import OutsideError
from remit_tui.place import START, Place, moved, within
from remit_tui.screens.view import Desk, View
from remit_tui.text import shown
from remit_tui.widgets.lines import Lines, Page
from remit_tui.widgets.table import Table

FRESH = 2.0  # s between readings while the view is looked at: what it shows changes by itself


class Listing(View):
    """Reads its items again and again while it is shown, keeps the selected one selected, and filters by words."""

    EMPTY: ClassVar[str] = "nothing"

    DEFAULT_CSS = """
    Listing Page { height: 45%; border-top: solid $foreground 40%; padding: 0 1; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "move('down')", "Move", key_display="j/k", tooltip="the next one", id="any.down"),
        Binding("k,up", "move('up')", "Up", show=False, tooltip="the one before", id="any.up"),
        Binding("g,home", "move('top')", "First", show=False, tooltip="the first one", id="any.first"),
        Binding("G,end", "move('bottom')", "Last", show=False, tooltip="the last one", id="any.last"),
        Binding("pagedown,ctrl+f", "move('page_down')", "Page down", show=False, tooltip="a screen on", id="any.page_down"),
        Binding("pageup,ctrl+b", "move('page_up')", "Page up", show=False, tooltip="a screen back", id="any.page_up"),
        Binding("space", "scroll(1)", "Read on", show=False, tooltip="scroll what is below the list", id="any.read_on"),
        Binding("b", "scroll(-1)", "Read back", show=False, tooltip="scroll it back", id="any.read_back"),
        Binding("escape", "back", "Back", show=False, tooltip="drop the filter, then go back to the prompts", id="any.back"),
    ]  # fmt: skip

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.items: tuple[Any, ...] = ()
        self.words = ""
        self.place = START
        self._read = False
        self._old = ""  # why what is shown is not what is
        self._busy = False

    # What a view gives.

    async def read(self) -> tuple[Any, ...]:
        """Return the items as remitd has them now."""
        raise NotImplementedError

    def key(self, item: Any) -> str:
        """Return what names ``item`` among the others."""
        raise NotImplementedError

    def text(self, item: Any) -> str:
        """Return what a filter looks into."""
        raise NotImplementedError

    def row(self, item: Any, width: int, on: bool) -> Line:
        """Return the line of ``item``."""
        raise NotImplementedError

    def detail(self, item: Any, width: int) -> list[Line]:
        """Return the whole of ``item``."""
        raise NotImplementedError

    def head(self, width: int) -> list[Line]:
        """Return what is said of the list itself, above the selected item; nothing for most."""
        return []

    # What they share.

    def body(self) -> ComposeResult:
        """Lay out list and detail."""
        yield Table(id="table")
        with Page(id="page", can_focus=False):
            yield Lines(id="detail")

    @property
    def listed(self) -> tuple[Any, ...]:
        """The items that the filter leaves."""
        words = self.words.lower().split()
        return tuple(i for i in self.items if all(w in self.text(i).lower() for w in words))

    @property
    def item(self) -> Any:
        """The selected item; None in an empty list."""
        listed = self.listed
        return listed[self.place.at] if self.place.at < len(listed) else None

    def on_mount(self) -> None:
        """Begin to read."""
        self.set_interval(FRESH, self.refresh_items)

    def on_screen_resume(self) -> None:
        """Read at once."""
        self.refresh_items()

    def refresh_items(self) -> None:
        """Read again, unless nobody looks or it is being done."""
        if self.is_current and not self._busy:
            self._busy = True
            self.desk.start(self._reading())

    async def _reading(self) -> None:
        try:
            items = await self.read()
            self._old, self._read = "", True
        except (RpcError, GoneError, RecordError, OutsideError) as e:
            self._old = str(e) or "remitd gave no reason"
        except (TypeError, KeyError, AttributeError):
            self._old = "remitd said something unexpected"
        else:
            chosen = self.item
            self.items = items
            if chosen is not None:
                keys = [self.key(i) for i in self.listed]
                at = keys.index(self.key(chosen)) if self.key(chosen) in keys else self.place.at
                self.place = Place(at, self.place.top)
        finally:
            self._busy = False
        self.fill()

    def fill(self) -> None:
        """Show what there is."""
        try:
            table, page = self.query_one(Table), self.query_one("#detail", Lines)
        except NoMatches:
            return
        listed = self.listed
        self.place = within(self.place, len(listed), table.size.height)
        if self.words:
            empty = f"nothing fits “{shown(self.words)}”; Esc shows all"
        else:
            empty = self.EMPTY if self._read else "reading"
        table.show(len(listed), self.place, lambda i, width, on: self.row(listed[i], width, on), empty)
        item, width = self.item, max(self.size.width - 3, 8)
        lines: list[Line] = []
        if self._old:
            lines.append([("reverse", f" {'OLD: ' if self.items else ''}{shown(self._old)} ")])
        if self.words:
            lines.append([("dim", f"filter: {shown(self.words)} ({len(listed)} of {len(self.items)})")])
        page.show([*lines, *self.head(width), *(self.detail(item, width) if item is not None else [])])
        self.frame()  # which keys do something depends on the selected item

    def on_table_sized(self) -> None:
        """Fit the list."""
        self.fill()

    def on_table_picked(self, message: Table.Picked) -> None:
        """Select the clicked row."""
        self.place = Place(message.index, self.place.top)
        self._moved()

    def on_table_wheeled(self, message: Table.Wheeled) -> None:
        """Go along."""
        self.place = Place(self.place.at + message.rows, self.place.top)
        self._moved()

    def action_move(self, how: str) -> None:
        """Move the cursor."""
        self.place = moved(self.place, how, len(self.listed), self.query_one(Table).size.height)
        self._moved()

    def _moved(self) -> None:
        self.say("")
        self.query_one(Page).scroll_home(animate=False)
        self.fill()

    def action_scroll(self, direction: int) -> None:
        """Scroll the detail."""
        page = self.query_one(Page)
        (page.scroll_page_down if direction > 0 else page.scroll_page_up)(animate=False)

    def action_back(self) -> None:
        """Drop the filter, or go back to the prompts."""
        if self.words:
            self.words = ""
            self.fill()
        else:
            self.desk.go("prompts")

    def action_filter(self) -> None:
        """Let the person write words that must be in a row."""

        async def check(_text: str) -> tuple[bool, str]:
            return True, "each word must be somewhere in it; none shows all"

        def then(text: str) -> None:
            self.words = text
            self.fill()

        self.desk.ask("show only", self.words, check, then)

    async def change(self, method: str, done: str, **params: Any) -> bool:
        """Call ``method``; say ``done`` or why not, and read again; return whether it was done."""
        try:
            await self.desk.client.call(method, **params)
        except (RpcError, GoneError) as e:
            self.say(f"not done: {shown(str(e)) or 'remitd gave no reason'}")
            return False
        else:
            self.say(done)
            return True
        finally:
            self.refresh_items()
