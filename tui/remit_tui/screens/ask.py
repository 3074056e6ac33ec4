"""A small screen before a view for a line of text. While it is there nobody reads a prompt.

What is edited is escaped, as it is shown: a name that turns the direction of writing must not do so in an input either.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input

from remit_tui.frame import Line
from remit_tui.text import fold
from remit_tui.widgets.lines import Lines

Check = Callable[[str], Coroutine[Any, Any, tuple[bool, str]]]
SETTLE = 0.15  # s without a keystroke after which what was written is checked


class Pen(Input):
    """An input that knows which keys it had."""

    def __init__(self, text: str) -> None:
        super().__init__(text, select_on_focus=False)
        self._had: deque[events.Key] = deque(maxlen=16)

    def on_key(self, event: events.Key) -> None:
        """Remember the key."""
        self._had.append(event)

    def had(self, event: events.Key) -> bool:
        """Tell whether this very key came by here."""
        return any(event is key for key in self._had)


class Ask(ModalScreen[str | None]):
    """Lets a person write one line. ``check`` says whether it will do, and what it would mean; Enter takes it then."""

    DEFAULT_CSS = """
    Ask { align: center bottom; background: transparent; }
    Ask Vertical { height: auto; max-height: 70%; border-top: solid $foreground 40%; background: $surface; padding: 0 1; }
    Ask Input, Ask Input:focus { border: none; height: 1; padding: 0; }
    Ask VerticalScroll { height: auto; max-height: 12; }
    """

    AUTO_FOCUS = ""  # the line gets the keyboard once it can take what was typed ahead
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Leave it")]

    def __init__(self, title: str, text: str, check: Check) -> None:
        super().__init__()
        self._title = title
        self._text = text
        self._check = check
        self._ahead: list[events.Key] = []  # typed before the line was there to take it
        self._checked: tuple[str, bool] | None = None
        self._wanted: str | None = None  # the text that is to be taken once it is checked
        self._pending: asyncio.Task[None] | None = None

    def compose(self) -> ComposeResult:
        """Lay out title, line and what it means."""
        with Vertical():
            yield Lines(id="title")
            yield Pen(self._text)
            with VerticalScroll(can_focus=False):
                yield Lines(id="means")

    def on_mount(self) -> None:
        """Say what it is for."""
        self.query_one("#title", Lines).show(
            [[("bold", self._title), ("dim", "  Enter takes it, Esc leaves it")]]
        )
        self.call_after_refresh(self._begin)

    def on_key(self, event: events.Key) -> None:
        """Keep what is typed before the line is there."""
        self.ahead(event)

    def ahead(self, event: events.Key) -> None:
        """Take a key that did not come by the line, since it was on its way to something else: the line is to have it."""
        if event.key == "escape" or any(pen.had(event) for pen in self.query(Pen)):
            return
        event.stop()
        event.prevent_default()
        key = events.Key(event.key, event.character)
        if self.focused is None:
            self._ahead.append(key)
        else:
            self.app.post_message(key)

    def _begin(self) -> None:
        """Put what was typed ahead where it belongs, and let the line take what follows."""
        self.set_focus(self.query_one(Pen))
        for key in self._ahead:
            self.app.post_message(key)

    def on_input_changed(self, message: Input.Changed) -> None:
        """Check what is written, once the keyboard is quiet."""
        if message.value != self._wanted:  # the line may tell of its change after it was submitted
            self._again(message.value, SETTLE)

    def _again(self, text: str, wait: float, *, submit: bool = False) -> None:
        if self._pending is not None:
            self._pending.cancel()
        self._checked = None
        self._wanted = text if submit else None
        self._pending = asyncio.create_task(self._checking(text, wait, submit))

    async def _checking(self, text: str, wait: float, submit: bool) -> None:
        await asyncio.sleep(wait)
        good, means = await self._check(text)
        if not self.is_mounted:
            return
        self._checked = (text, good)
        width = max(self.size.width - 5, 8)
        lines: list[Line] = []
        for part in means.split("\n"):
            lines += [[("" if good else "bold", p)] for p in fold(("" if good else "✗ ") + part, width)]
        self.query_one("#means", Lines).show(lines)
        if submit and good:
            self.dismiss(text)

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """Take the line when it will do."""
        message.stop()
        if self._checked == (message.value, True):
            self.dismiss(message.value)
        elif self._checked is None:
            self._again(message.value, 0, submit=True)

    def on_unmount(self) -> None:
        """Stop checking."""
        if self._pending is not None:
            self._pending.cancel()
