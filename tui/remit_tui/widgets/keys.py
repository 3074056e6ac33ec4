"""The line of keys at the bottom: the few that do something now, and always the one that shows all."""

from __future__ import annotations

from textual import events
from textual.binding import Binding
from textual.keys import format_key

from remit_tui.frame import Line
from remit_tui.text import width_of
from remit_tui.widgets.lines import Lines

HELP = "any.help"


def fitted(bindings: list[Binding], width: int) -> list[tuple[str, Binding]]:
    """Return which of ``bindings`` have room in ``width`` cells, each with its text: their own first, help always."""
    own = [b for b in bindings if not (b.id or "").startswith("any.")]
    rest = [b for b in bindings if (b.id or "").startswith("any.") and b.id != HELP]
    wanted = [b for b in bindings if b.id == HELP] + own + rest
    out: list[tuple[str, Binding]] = []
    seen: set[str] = set()
    for b in wanted:
        text = f" {b.key_display or format_key(b.key)} {b.description} "
        if b.action in seen or width < width_of(text):
            continue
        seen.add(b.action)
        width -= width_of(text)
        out.append((text, b))
    return [*out[1:], *out[:1]]


class Keys(Lines):
    """Shows keys; a click does what the key does."""

    DEFAULT_CSS = "Keys { dock: bottom; height: 1; background: $panel; }"

    def __init__(self) -> None:
        super().__init__(id="keys")
        self._keys: list[tuple[str, Binding]] = []

    def fill(self, bindings: list[Binding]) -> None:
        """Show as many of ``bindings`` as have room."""
        self._keys = fitted(bindings, self.size.width)
        line: Line = []
        for text, _ in self._keys:
            key, _, what = text[1:].partition(" ")
            line += [("", " "), ("bold", key), ("", f" {what}")]
        self.show([line])

    async def on_click(self, event: events.Click) -> None:
        """Do what the clicked key does."""
        at = 0
        for text, binding in self._keys:
            at += width_of(text)
            if event.x < at:
                await self.screen.run_action(binding.action)
                return
