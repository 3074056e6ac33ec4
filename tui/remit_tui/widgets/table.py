"""A list of which only the rows in view are ever made: as long as one likes."""

from __future__ import annotations

from collections.abc import Callable

from textual import events
from textual.app import RenderResult
from textual.message import Message
from textual.widget import Widget

from remit_tui.frame import Line
from remit_tui.place import START, Place
from remit_tui.widgets.lines import content

Row = Callable[[int, int, bool], Line]  # index, width in cells, whether it is selected


class Table(Widget):
    """Shows rows that a function gives."""

    DEFAULT_CSS = "Table { height: 1fr; min-height: 3; }"

    class Sized(Message):
        """It has room for another number of rows than before."""

    class Picked(Message):
        """The row ``index`` was clicked."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    class Wheeled(Message):
        """The mouse's wheel was turned by ``rows``."""

        def __init__(self, rows: int) -> None:
            super().__init__()
            self.rows = rows

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._count = 0
        self._place = START
        self._row: Row = lambda index, width, on: []
        self._empty = ""

    def show(self, count: int, place: Place, row: Row, empty: str) -> None:
        """Show ``count`` rows at ``place``; ``empty`` is said when there is none."""
        self._count, self._place, self._row, self._empty = count, place, row, empty
        self.refresh()

    def render(self) -> RenderResult:
        """Return the rows that are in view."""
        if not self._count:
            return content([[("dim", "  " + self._empty)]])
        top = self._place.top
        rows = range(top, min(top + self.size.height, self._count))
        return content([self._row(i, self.size.width, i == self._place.at) for i in rows])

    def on_resize(self) -> None:
        """Tell how much room there is."""
        self.post_message(self.Sized())

    def on_click(self, event: events.Click) -> None:
        """Tell which row was meant."""
        if self._place.top + event.y < self._count:
            self.post_message(self.Picked(self._place.top + event.y))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Tell that it goes down."""
        event.stop()
        self.post_message(self.Wheeled(3))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Tell that it goes up."""
        event.stop()
        self.post_message(self.Wheeled(-3))
