"""The help page: made from the bindings, so that it cannot tell anything else than they do."""

from __future__ import annotations

import textwrap
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen

from remit_tui.state import QUIET
from remit_tui.widgets.lines import Lines
from remit_tui.words import Line

_NAMES = {"question_mark": "?", "escape": "Esc", "pagedown": "PgDn", "pageup": "PgUp", "ctrl+c": "Ctrl-C"}

SAFETY = (
    f"Keys answer only after a prompt has been in view for {QUIET:g} s without a keystroke; earlier ones are "
    "ignored, and pasted text always. An answer that lasts shows the rule that it saves first; pressing a or d "
    "again then saves it. Everything is shown escaped: \\x1b is an escape character in a name, \\u202e turns the "
    "direction of writing, \\x20 is a space."
)


def lines(bindings: list[Binding], width: int) -> list[Line]:
    """Return a line for each binding, then what protects, in lines of at most ``width`` cells."""
    out: list[Line] = [[("bold", "Keys"), ("dim", "  (j and k scroll, Esc goes back)")]]
    for binding in bindings:
        keys = ", ".join(
            _NAMES.get(k, k if len(k) == 1 else k.capitalize()) for k in binding.key.split(",")
        )
        out.append([("bold", keys.ljust(14)), ("", binding.tooltip or binding.description)])
    return [*out, [("", "")], *([("", text)] for text in textwrap.wrap(SAFETY, width))]


class Help(ModalScreen[None]):
    """The keys and what protects from a key pressed by mistake."""

    DEFAULT_CSS = """
    Help { align: center middle; }
    Help VerticalScroll { width: 100%; height: 100%; padding: 0 1; background: $surface; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,enter", "dismiss", "Back"),
        Binding("j,down", "scroll(1)", show=False),
        Binding("k,up", "scroll(-1)", show=False),
    ]

    def __init__(self, bindings: list[Binding]) -> None:
        super().__init__()
        self._bindings_told = bindings

    def compose(self) -> ComposeResult:
        """Lay out the page."""
        with VerticalScroll(can_focus=False):
            yield Lines(id="help")

    def on_resize(self) -> None:
        """Fill the page."""
        self.query_one(Lines).show(lines(self._bindings_told, max(self.size.width - 4, 20)))

    def action_scroll(self, rows: int) -> None:
        """Scroll by ``rows``."""
        self.query_one(VerticalScroll).scroll_relative(y=rows, animate=False)
