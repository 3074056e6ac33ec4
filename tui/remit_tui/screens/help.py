"""The help page: made from the bindings that are in force, so that it cannot tell anything else than they do."""

from __future__ import annotations

import textwrap
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.keys import format_key
from textual.screen import ModalScreen

from remit_tui.bulk import MOST
from remit_tui.frame import Line
from remit_tui.state import QUIET
from remit_tui.text import shown
from remit_tui.widgets.lines import Lines

SAFETY = (
    f"Keys answer only after a prompt has been in view for {QUIET:g} s without a keystroke; earlier ones are "
    "ignored, and pasted text always. An answer that lasts shows the rule that it saves first; pressing a or d "
    f"again then saves it. Several are answered once only, and at most {MOST} are allowed with one key, after all of "
    "them were read. Everything is shown escaped: \\x1b is an escape character in a name, \\u202e turns the "
    "direction of writing, \\x20 is a space."
)
_NAMES = {
    "escape": "Esc",
    "pagedown": "PgDn",
    "pageup": "PgUp",
    "space": "Space",
    "enter": "Enter",
    "tab": "Tab",
}


def name(key: str) -> str:
    """Return a key's name as it is on the keyboard."""
    if key.startswith("ctrl+"):
        return f"Ctrl-{key[5:].upper()}"
    return _NAMES.get(key) or (key if len(key) == 1 else _other(key))


def _other(key: str) -> str:
    text = format_key(key)
    return text if len(text) == 1 else key.capitalize()


def told(bindings: list[Binding], width: int, wanted: str = "") -> list[Line]:
    """Return a line for each action that holds ``wanted``, then what protects, in lines of at most ``width`` cells."""
    keys: dict[str, list[str]] = {}
    about: dict[str, str] = {}
    for b in bindings:
        keys.setdefault(b.action, []).append(name(b.key))
        about[b.action] = b.tooltip or b.description
    out: list[Line] = [[("bold", "Keys"), ("dim", f"  type to filter, Esc goes back: {shown(wanted)}")]]
    room = max(width - 15, 10)
    for action, names in keys.items():
        line = ", ".join(names)
        if all(w in f"{line} {about[action]}".lower() for w in wanted.lower().split()):
            parts = textwrap.wrap(about[action], room) or [""]
            out += [
                [("bold", (line if i == 0 else "").ljust(14) + " "), ("", part)]
                for i, part in enumerate(parts)
            ]
    if not wanted:
        out += [[("", "")], *([("", text)] for text in textwrap.wrap(SAFETY, width))]
    return out


class Help(ModalScreen[None]):
    """The keys and what protects from a key pressed by mistake."""

    DEFAULT_CSS = """
    Help { align: center middle; }
    Help VerticalScroll { width: 100%; height: 100%; padding: 0 1; background: $surface; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,question_mark", "dismiss", "Back"),
        Binding("down,ctrl+n", "scroll(1)", show=False),
        Binding("up", "scroll(-1)", show=False),
        Binding("pagedown", "scroll(10)", show=False),
        Binding("pageup", "scroll(-10)", show=False),
    ]

    def __init__(self, bindings: list[Binding]) -> None:
        super().__init__()
        self._told = bindings
        self._wanted = ""

    def compose(self) -> ComposeResult:
        """Lay out the page."""
        with VerticalScroll(can_focus=False):
            yield Lines(id="help")

    def _fill(self) -> None:
        self.query_one(Lines).show(told(self._told, max(self.size.width - 4, 20), self._wanted))

    def on_resize(self) -> None:
        """Fill the page."""
        self._fill()

    def on_key(self, event: events.Key) -> None:
        """Filter by what is typed."""
        if event.key == "backspace":
            self._wanted = self._wanted[:-1]
        elif event.character and event.character.isprintable() and event.key not in self.active_bindings:
            self._wanted += event.character
        else:
            return
        event.stop()
        self._fill()

    def action_scroll(self, rows: int) -> None:
        """Scroll by ``rows``."""
        self.query_one(VerticalScroll).scroll_relative(y=rows, animate=False)
