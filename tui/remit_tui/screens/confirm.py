"""A small screen before a view for a yes. While it is there nobody reads a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen

from remit_tui.frame import Line
from remit_tui.state import EARLY, QUIET
from remit_tui.text import fold
from remit_tui.widgets.lines import Lines

_MOVES = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": -8, "b": -8, "pagedown": 8, "space": 8}  # rows


class Confirm(ModalScreen[str]):
    """Asks whether something is really to be done. ``y``, and the keys of ``also``, count after a quiet moment only; Enter and all
    else is no. What is asked, and the lines ``more`` that it is about, are fit to be shown."""

    DEFAULT_CSS = """
    Confirm { align: center bottom; background: transparent; }
    Confirm Vertical { height: auto; border-top: solid $foreground 40%; background: $surface; padding: 0 1; }
    Confirm VerticalScroll { height: auto; max-height: 16; scrollbar-size-vertical: 1; }
    """

    def __init__(
        self,
        question: str,
        clock: Callable[[], float],
        more: tuple[str, ...] = (),
        also: Mapping[str, str] | None = None,
        yes: str = "yes",
    ) -> None:
        super().__init__()
        self._question = question
        self._clock = clock
        self._more = more
        self._also = also or {}
        self._yes = yes
        self._quiet_since: float | None = None

    def compose(self) -> ComposeResult:
        """Lay out question and answers."""
        with Vertical():
            with VerticalScroll(can_focus=False):
                yield Lines(id="question")
            yield Lines(id="answers")

    def on_mount(self) -> None:
        """Ask; keys count from when it is on the terminal."""
        self._say("")
        self.call_after_refresh(self._painted)

    def _painted(self) -> None:
        self._quiet_since = self._clock()

    def _say(self, notice: str) -> None:
        width = max(self.size.width - 4, 8)
        lines: list[Line] = [[("bold", p)] for p in fold(self._question + "?", width)]
        for text in self._more:
            lines += [[("", part)] for part in fold(text, width)]
        self.query_one("#question", Lines).show(lines)
        keys = ", ".join(f"{key}: {text}" for key, text in {"y": self._yes, **self._also}.items())
        answers: list[Line] = [[("reverse bold", " ▸ no "), ("", f"  {keys}, after {QUIET:g} s of quiet")]]
        self.query_one("#answers", Lines).show([*answers, *([[("", notice)]] if notice else [])])

    def on_resize(self) -> None:
        """Fold anew."""
        self._say("")

    def on_paste(self, event: events.Paste) -> None:
        """Throw pasted text away."""
        event.stop()
        self._quiet_since = self._clock()

    def on_key(self, event: events.Key) -> None:
        """Take a late ``y`` (or another that is offered) as said, an early one as nothing, anything else as no."""
        event.stop()
        event.prevent_default()
        now = self._clock()
        if event.key in _MOVES:
            self.query_one(VerticalScroll).scroll_relative(y=_MOVES[event.key], animate=False)
        elif event.key != "y" and event.key not in self._also:
            self.dismiss("")
        elif self._quiet_since is not None and now - self._quiet_since >= QUIET:
            self.dismiss(event.key)
        else:
            self._quiet_since = now
            self._say(EARLY)
