"""What every view has: the header, the line of views, its own matter, what was said last, the keys, and how to leave."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Protocol, runtime_checkable

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches
from textual.screen import Screen

from remit_tui import frame
from remit_tui.client import Client
from remit_tui.frame import VIEWS
from remit_tui.state import State
from remit_tui.text import fold
from remit_tui.widgets.keys import Keys
from remit_tui.widgets.lines import Lines


class Desk(Protocol):
    """What a view may use of the program around it."""

    state: State
    client: Client
    trouble: str
    wall: Callable[[], float]
    clock: Callable[[], float]

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        """Do ``work`` beside the screen."""

    def attend(self) -> None:
        """Take note of what is before the keyboard now."""

    def go(self, view: str) -> None:
        """Show the view of that name."""

    def ledger(self, filter_text: str) -> None:
        """Show the ledger, filtered."""

    def steer(self, session: str, agent: str, action: str) -> None:
        """Pause, resume or stop a session; to stop is asked once more."""

    def ask(
        self,
        title: str,
        text: str,
        check: Callable[[str], Coroutine[Any, Any, tuple[bool, str]]],
        then: Callable[[str], None],
    ) -> None:
        """Let the person write a line; ``check`` says whether it will do, and what it means."""

    def confirm(self, question: str, then: Callable[[], None]) -> None:
        """Ask whether it is really to be done; ``question`` is fit to be shown."""

    async def decide(
        self, question: str, more: tuple[str, ...], also: dict[str, str], yes: str = "yes"
    ) -> str:
        """Ask ``question`` over the lines ``more`` (all fit to be shown); return "y", a key of ``also``, or "" for no."""

    def stood(self, due: int) -> None:
        """Take note that so many grants want a look."""


@runtime_checkable
class Lined(Protocol):
    """A small screen with a line to write in."""

    def ahead(self, event: events.Key) -> None:
        """Take a key that was typed before it had the keyboard."""


class Tabs(Lines):
    """The line of views; a click goes there."""

    def __init__(self, view: str) -> None:
        super().__init__(id="tabs")
        self._view = view

    def on_resize(self) -> None:
        """Fit the names to the width."""
        self.show([frame.tabs(self._view, self.size.width)])

    async def on_click(self, event: events.Click) -> None:
        """Go to the view whose name was clicked."""
        if name := frame.tab_at(event.x, self._view, self.size.width):
            await self.run_action(f"app.view('{name}')")


class View(Screen[None]):
    """One of the views. ``NAME`` is one of frame.VIEWS; ``desk`` the program."""

    NAME: ClassVar[str] = ""

    DEFAULT_CSS = """
    #banner, #tabs, #notice { height: auto; }
    #notice { text-style: bold; padding: 0 1; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "app.keys", "Help", key_display="?", tooltip="this page", id="any.help"),
        Binding("slash", "filter", "Filter", key_display="/", tooltip="show only what fits; / and Enter shows all again", id="any.filter"),
        Binding("right_square_bracket", "app.turn(1)", "Views", key_display="[ ]", tooltip="the next view", id="any.next_view"),
        Binding("left_square_bracket", "app.turn(-1)", "View before", show=False, tooltip="the view before", id="any.previous_view"),
        *(
            Binding(f"f{n}", f"app.view('{name}')", name.capitalize(), show=False, tooltip=f"go to {name}", id=f"any.{name}")
            for n, name in enumerate(VIEWS, 1)
        ),
        Binding("Q", "app.quiet", "Quiet", show=False, tooltip="be left in peace for a while, or end that", id="any.quiet"),
        Binding("q", "app.quit", "Quit", tooltip="quit; what waits goes on waiting", id="any.quit"),
        Binding("ctrl+c", "app.quit", "Quit", show=False, tooltip="quit as well"),
    ]  # fmt: skip

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk = desk

    def compose(self) -> ComposeResult:
        """Lay the view out."""
        yield Lines(id="banner")
        yield Tabs(self.NAME)
        yield from self.body()
        yield Lines(id="notice")
        yield Keys()

    def body(self) -> ComposeResult:
        """Lay out what is this view's own."""
        raise NotImplementedError

    def on_screen_suspend(self) -> None:
        """Something is before it, or another view."""
        self.desk.attend()

    def on_screen_resume(self) -> None:
        """It is before the keyboard again."""
        self.frame()
        self.desk.attend()

    def idle(self) -> frozenset[str]:
        """Return the ids of bindings that do nothing now, to be left out of the line of keys."""
        return frozenset()

    def frame(self) -> None:
        """Show the header and the keys as they are now."""
        idle = self.idle()
        keys = [
            a.binding for a in self.active_bindings.values() if a.binding.show and a.binding.id not in idle
        ]
        try:
            self.query_one("#banner", Lines).show(
                frame.banner(self.desk.state, self.size.width, self.desk.trouble)
            )
            self.query_one(Keys).fill(keys)
        except NoMatches:
            pass  # not laid out yet, or being taken down

    def say(self, text: str) -> None:
        """Say ``text`` (fit to be shown) above the keys."""
        try:
            room = max(self.size.width - 2, 1)
            self.query_one("#notice", Lines).show(
                [[("", part)] for part in fold(text, room)] if text else []
            )
        except NoMatches:
            pass
