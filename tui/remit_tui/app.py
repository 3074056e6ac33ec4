"""``remit tui``: the program around the machines. It feeds events in and carries commands out."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from textual import events
from textual.app import App, SystemCommand
from textual.binding import Binding
from textual.screen import Screen

from remit_daemon.wire import paths
from remit_tui import answering, views
from remit_tui import events as ev
from remit_tui.client import Client, GoneError, RpcError
from remit_tui.events import Command, Event, Focus, Told
from remit_tui.frame import VIEWS
from remit_tui.machine import step
from remit_tui.screens.prompts import Prompts
from remit_tui.screens.view import Lined, View
from remit_tui.state import State
from remit_tui.text import shown

if TYPE_CHECKING:
    from remit_tui.screens.ledger import Ledger

# The quiet times on offer, each by its key: in words, and as the wire has it (mode, seconds).
QUIETS = {
    "1": ("held for 15 min", "hold", 900),
    "2": ("held for 1 h", "hold", 3600),
    "3": ("denied for 15 min", "deny", 900),
    "4": ("denied for 1 h", "deny", 3600),
}
TICK = 0.2  # s: how late the screen may say that keys count again
_IN_PALETTE = ("any.filter", "any.help", "any.quiet", "any.quit")  # of the keys that all views have


class RemitApp(App[int]):
    """What remitd behind the approver socket at ``path`` has to show and to ask.

    ``clock`` is monotonic and ``wall`` counts since the epoch, both in seconds. ``settings`` is the file of the person's own.
    """

    TITLE = "remit"
    DEFAULT_MODE = "prompts"

    def __init__(
        self,
        path: str,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        settings: str = "",
    ) -> None:
        super().__init__()
        self.clock = clock
        self.wall = wall
        self.trouble = ""
        self.client = Client(path, self._heard)
        self.state = State(now=clock())
        self._prompts = Prompts(self, self.dispatch)
        self._tasks: set[asyncio.Task[object]] = set()
        self._views: dict[str, View] = {"prompts": self._prompts}
        self._here = True  # whether this terminal has the keyboard
        self._settings = settings
        self.add_mode("prompts", lambda: self._prompts)

    def on_mount(self) -> None:
        """Connect, and keep time."""
        if self._settings:
            self._settle(self._settings)
        self.start(self.client.run())
        self.set_interval(TICK, lambda: self.dispatch(ev.Tick()))

    def _settle(self, path: str) -> None:
        if not os.path.exists(path):
            return
        from remit_tui import settings

        try:
            chosen = settings.read(path, views.bindings(), self.available_themes)
        except settings.SettingsError as e:
            self.trouble = f"{e}; the file is not used"
            return
        if chosen.theme:
            self.theme = chosen.theme
        self.set_keymap(chosen.keys)

    async def on_unmount(self) -> None:
        """Disconnect; with the connection remitd takes it that nobody looks any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Whether a person reads prompts.

    def on_app_focus(self, _event: events.AppFocus) -> None:
        """The terminal has the keyboard again."""
        self._here = True
        self.attend()

    def on_app_blur(self, _event: events.AppBlur) -> None:
        """The keyboard is elsewhere."""
        self._here = False
        self.attend()

    def attend(self) -> None:
        """Take it that a person reads prompts when these are what is before the keyboard."""
        self.dispatch(Focus(self._here and self.screen is self._prompts))

    # The machine of the prompts.

    def _heard(self, event: Event) -> None:
        """Feed what remitd said. It tells how many grants are due as far as it knows without looking; the view of grants knows better."""
        if isinstance(event, ev.Stood) and self.base is not None and self.base.NAME == "grants":
            event = ev.Stood(replace(event.standing, due=self.state.standing.due))
        self.dispatch(event)

    def dispatch(self, event: Event) -> None:
        """Feed one event to the machine, carry its commands out and show what it is now."""
        self.state, commands = step(self.state, event, self.clock())
        for command in commands:
            self._carry_out(command)
        here = self.base
        if here is self._prompts:
            self._prompts.show(self.state)
        elif here is not None:
            here.frame()

    @property
    def base(self) -> View | None:
        """The view that is shown, whatever small screen is before it."""
        stack = self.screen_stack if self._screen_stacks[self._current_mode] else []
        return stack[0] if stack and isinstance(stack[0], View) else None

    def _carry_out(self, command: Command) -> None:
        if isinstance(command, ev.Ring):
            self.bell()
        elif isinstance(command, ev.Look):
            self.start(answering.look(self.client, command))
        elif isinstance(command, ev.Preview):
            self._then(answering.preview(self.client, command.choice))
        elif isinstance(command, ev.Reach):
            self._then(answering.reach(self.client, command.choice))
        elif isinstance(command, ev.Recall):
            self._then(answering.recall(self.client))
        elif isinstance(command, ev.Answer):
            self._then(answering.answer(self.client, command.choice))
        elif isinstance(command, ev.AnswerAll):
            self._then(answering.answer_all(self.client, command.choices))
        elif isinstance(command, ev.EditScope):
            answering.edit_scope(self, command.choice, self.dispatch)
        elif isinstance(command, ev.AskMessage):
            answering.ask_message(self, command, self.dispatch)
        elif isinstance(command, ev.Steer):
            self.steer(command.session, command.agent, command.action)

    def _then(self, work: Coroutine[Any, Any, Event]) -> None:
        async def done() -> None:
            self.dispatch(await work)

        self.start(done())

    def push_screen(self, *args: Any, **kwargs: Any) -> Any:
        """Put a small screen before the view, which from now on nobody reads."""
        try:
            return super().push_screen(*args, **kwargs)
        finally:
            if self.state.focus:
                self.attend()

    # What views use (``screens.view.Desk``).

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        """Do ``work`` beside the screen."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def go(self, view: str) -> None:
        """Show the view of that name."""
        if len(self.screen_stack) > 1:
            return  # a small screen is to be left first
        if view not in self._views:
            self._views[view] = views.make(view, self)
            self.add_mode(view, partial(self._views.__getitem__, view))
        self.switch_mode(view)
        self.attend()  # at once: keys that are on their way already must not find the prompts armed

    def ledger(self, filter_text: str) -> None:
        """Show the ledger, filtered."""
        self.go("ledger")
        there: Ledger = self._views["ledger"]  # type: ignore[assignment]
        there.filter(filter_text)

    def steer(self, session: str, agent: str, action: str) -> None:
        """Pause, resume or stop a session; to stop is asked once more."""

        async def work() -> None:
            try:
                await self.client.call(action, session=session)
            except (RpcError, GoneError) as e:
                self.say(f"not done: {shown(str(e)) or 'remitd gave no reason'}")
            else:
                word = {"pause": "paused", "resume": "goes on", "stop": "is being stopped"}[action]
                self.say(f"{shown(agent)} (session {shown(session)}) {word}")

        if action == "stop":
            whom = f"{shown(agent)} (session {shown(session)})"
            self.confirm(f"stop {whom} and all that it started", lambda: self.start(work()))
        else:
            self.start(work())

    def say(self, text: str) -> None:
        """Say ``text`` (fit to be shown) in the view that is shown."""
        if self.base is self._prompts:
            self.dispatch(Told(text))
        elif self.base is not None:
            self.base.say(text)

    def ask(
        self,
        title: str,
        text: str,
        check: Callable[[str], Coroutine[Any, Any, tuple[bool, str]]],
        then: Callable[[str], None],
    ) -> None:
        """Let the person write a line; ``check`` says whether it will do, and what it means."""
        from remit_tui.screens.ask import Ask

        self.push_screen(Ask(title, text, check), lambda said: None if said is None else then(said))

    def confirm(self, question: str, then: Callable[[], None]) -> None:
        """Ask whether it is really to be done; ``question`` is fit to be shown."""
        from remit_tui.screens.confirm import Confirm

        self.push_screen(Confirm(question, self.clock), lambda said: then() if said == "y" else None)

    async def decide(
        self, question: str, more: tuple[str, ...], also: dict[str, str], yes: str = "yes"
    ) -> str:
        """Ask ``question`` over the lines ``more`` (all fit to be shown); return "y", a key of ``also``, or "" for no."""
        from remit_tui.screens.confirm import Confirm

        said: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.push_screen(
            Confirm(question, self.clock, more, also, yes), lambda word: said.set_result(word or "")
        )
        return await said

    def stood(self, due: int) -> None:
        """Take note that so many grants want a look."""
        if due != self.state.standing.due:
            self.dispatch(ev.Stood(replace(self.state.standing, due=due)))

    # Keys that all views have.

    def on_key(self, event: events.Key) -> None:
        """Report a key that means nothing to the prompts; give a line to write in what was typed ahead of it.

        Keys are sent to what is before the keyboard when they come, a burst of them before the first has done anything; here
        they arrive one after another, and what counts is what is before the keyboard now.
        """
        if self.screen is self._prompts:
            if event.key not in self.screen.active_bindings:
                event.stop()
                event.prevent_default()
                self.dispatch(ev.Key(ev.Action.OTHER))
        elif isinstance(self.screen, Lined):
            self.screen.ahead(event)

    def action_view(self, view: str) -> None:
        """Go to a view."""
        self.go(view)

    def action_turn(self, by: int) -> None:
        """Go to the view that is ``by`` further on."""
        if self.base is not None:
            self.go(VIEWS[(VIEWS.index(self.base.NAME) + by) % len(VIEWS)])

    def action_keys(self) -> None:
        """Show the keys that the view has, as they are bound now."""
        from remit_tui.screens.help import Help

        bindings = [a.binding for a in self.screen.active_bindings.values() if a.binding.tooltip]
        self.push_screen(Help(sorted(bindings, key=lambda b: (b.id or "any.").startswith("any."))))

    def action_quiet(self) -> None:
        """Begin a quiet time, or end the one that there is."""
        from remit_tui.screens.choose import Choose

        on = self.state.standing.quiet
        choices = {"0": "end it: questions come as ever"} if on else {}
        choices |= {key: text for key, (text, _, _) in QUIETS.items()}

        def then(key: str | None) -> None:
            if key == "0":
                self.start(self._quiet("off", 0))
            elif key in QUIETS:
                self.start(self._quiet(*QUIETS[key][1:]))

        self.push_screen(Choose("quiet: nobody is called, and what would be asked is", choices), then)

    async def _quiet(self, mode: str, seconds: int) -> None:
        params = {"seconds": seconds} if seconds else {}
        try:
            await self.client.call("quiet", mode=mode, **params)
        except (RpcError, GoneError) as e:
            self.say(f"not done: {shown(str(e)) or 'remitd gave no reason'}")
        else:
            self.say("the quiet time is over" if mode == "off" else "quiet has begun; Q ends it")

    async def action_quit(self) -> None:
        """Leave; prompts stay as they are."""
        self.exit(0)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Offer the views, the theme and the keys of this view, except those that answer."""
        for name in VIEWS:
            yield SystemCommand(name.capitalize(), f"go to {name}", partial(self.go, name))
        yield SystemCommand(
            "Theme", "choose colours; theme in tui.toml keeps them", self.action_change_theme
        )
        seen = set()
        for active in screen.active_bindings.values():
            b: Binding = active.binding
            # What a person answers with has keys of its own and nothing else: in a palette Enter means go on.
            fit = b.id in _IN_PALETTE or not (b.id or "prompts.").startswith(("any.", "prompts."))
            if fit and b.action not in seen:
                seen.add(b.action)
                yield SystemCommand(
                    b.description, b.tooltip, partial(self.run_action, b.action, active.node)
                )


def main() -> int:
    """Run the screen in this terminal; return its exit status (2: there is no terminal)."""
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):  # it draws on the last
        print("remit tui: needs a terminal; use remit prompts and remit answer instead", file=sys.stderr)
        return 2
    where = paths.find()
    return RemitApp(where.approver, settings=f"{where.config}/tui.toml").run() or 0
