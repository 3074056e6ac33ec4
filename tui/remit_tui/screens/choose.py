"""A small screen before a view for one of a few things, each by a key. While it is there nobody reads a prompt."""

from __future__ import annotations

from collections.abc import Mapping

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen

from remit_tui.frame import Line
from remit_tui.text import fold
from remit_tui.widgets.lines import Lines


class Choose(ModalScreen[str | None]):
    """Lets a person choose one of ``choices`` by its key; any other key chooses none. All texts are fit to be shown."""

    DEFAULT_CSS = """
    Choose { align: center bottom; background: transparent; }
    Choose Vertical { height: auto; border-top: solid $foreground 40%; background: $surface; padding: 0 1; }
    """

    def __init__(self, title: str, choices: Mapping[str, str]) -> None:
        super().__init__()
        self._title = title
        self._choices = choices

    def compose(self) -> ComposeResult:
        """Lay out the choices."""
        with Vertical():
            yield Lines(id="choices")

    def on_resize(self) -> None:
        """Fold them."""
        width = max(self.size.width - 4, 8)
        lines: list[Line] = [[("bold", part)] for part in fold(self._title, width)]
        for key, text in self._choices.items():
            lines.append([("bold", f"  {key} "), ("", text)])
        self.query_one(Lines).show([*lines, [("dim", "any other key leaves it as it is")]])

    def on_key(self, event: events.Key) -> None:
        """Take a key."""
        event.stop()
        event.prevent_default()
        self.dismiss(event.key if event.key in self._choices else None)
