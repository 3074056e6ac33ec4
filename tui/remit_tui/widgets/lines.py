"""Widgets that show lines of ``words``: literal text and styles, never markup."""

from __future__ import annotations

from textual.app import RenderResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from remit_tui import words
from remit_tui.frame import Line
from remit_tui.state import State


def content(lines: list[Line]) -> Content:
    """Return ``lines`` as Textual's content; the text stays literal whatever it holds."""
    parts: list[Content] = []
    for i, line in enumerate(lines):
        if i:
            parts.append(Content("\n"))
        parts += [Content.styled(text, style) if style else Content(text) for style, text in line]
    return Content("").join(parts)


class Lines(Static):
    """Lines that were folded to the widget's width already."""

    DEFAULT_CSS = "Lines { height: auto; text-wrap: nowrap; }"

    def __init__(self, *, id: str) -> None:
        super().__init__("", id=id, markup=False)
        self._lines: list[Line] | None = None

    @property
    def height(self) -> int:
        """How many rows it needs, whether it was laid out already or not."""
        return len(self._lines or ())

    def show(self, lines: list[Line]) -> None:
        """Show ``lines``; costs nothing when they are what is shown."""
        if lines != self._lines:
            self._lines = lines
            self.update(content(lines))


class Page(VerticalScroll):
    """The question in full. Says when it was scrolled, for who allows must have been at its end."""

    DEFAULT_CSS = "Page { height: 1fr; scrollbar-size-vertical: 1; }"

    class Moved(Message):
        """The page is at another place than before."""

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self.post_message(self.Moved())

    @property
    def at_end(self) -> bool:
        """Whether nothing is below what is in view."""
        return self.scroll_offset.y >= self.max_scroll_y


class Queue(Widget):
    """The list of prompts: as many rows as there is room for, around the selected one."""

    ROWS = 5
    DEFAULT_CSS = "Queue { height: 1; }"

    class Picked(Message):
        """A row was clicked; ``steps`` from the selected one."""

        def __init__(self, steps: int) -> None:
            super().__init__()
            self.steps = steps

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._state = State()
        self._queue = self._state.queue

    def show(self, state: State) -> None:
        """Show the prompts of ``state``."""
        before, self._state = self._state, state
        if _listed(before) == _listed(state):
            return
        self._queue = state.queue
        self.styles.height = min(max(len(self._queue), 1), self.ROWS)
        self.refresh()

    def _first(self) -> int:
        total, height = len(self._queue), max(self.size.height, 1)
        return min(max(self._state.index - height // 2, 0), max(total - height, 0))

    def render(self) -> RenderResult:
        """Return the rows that are in view."""
        state, width = self._state, self.size.width
        if not self._queue:
            empty = "nothing was missed" if state.past else "nothing waits for an answer"
            empty = "nothing here fits the filter" if state.source else empty
            return content([[("dim", f"  {empty}" if state.up else "  ")]])
        first = self._first()
        rows = self._queue[first : first + max(self.size.height, 1)]
        return content([words.row(p, state, width) for p in rows])

    def on_click(self, event: Click) -> None:
        """Select the row."""
        steps = self._first() + event.y - self._state.index
        if steps and 0 <= self._first() + event.y < len(self._queue):
            self.post_message(self.Picked(steps))


def _listed(state: State) -> tuple[object, ...]:
    return (
        state.source,
        state.past,
        state.selected,
        state.shown,
        state.left,
        state.marked,
        state.filter,
        state.up,
    )
