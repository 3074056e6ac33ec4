"""``remit tui``: the program around the machine. It feeds events in and carries commands out."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from textual import events
from textual.app import App

from remit_daemon.wire import paths
from remit_daemon.wire.rpc import CONFLICT, NOT_FOUND
from remit_tui.client import Client, GoneError, RpcError
from remit_tui.events import (
    TERMS,
    Answer,
    Answered,
    Beaten,
    Choice,
    Command,
    Event,
    Failed,
    Focus,
    Look,
    Preview,
    Previewed,
    Ring,
    Tick,
)
from remit_tui.screens.prompts import Prompts
from remit_tui.state import State, step
from remit_tui.text import shown

TICK = 0.2  # s: how late the screen may say that keys count again


class RemitApp(App[int]):
    """The prompts of the remitd behind the approver socket at ``path``.

    ``clock`` is monotonic and ``wall`` counts since the epoch, both in seconds.
    """

    ENABLE_COMMAND_PALETTE = False
    TITLE = "remit"

    def __init__(
        self, path: str, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        super().__init__()
        self._clock = clock
        self.client = Client(path, self.dispatch)
        self.state = State(now=clock())
        self._prompts = Prompts(self.dispatch, wall)
        self._tasks: set[asyncio.Task[None]] = set()

    def get_default_screen(self) -> Prompts:
        """Return the one screen."""
        return self._prompts

    def on_mount(self) -> None:
        """Connect, and keep time."""
        self._start(self.client.run())
        self.set_interval(TICK, lambda: self.dispatch(Tick()))

    async def on_unmount(self) -> None:
        """Disconnect; with the connection remitd takes it that nobody looks any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def on_app_focus(self, _event: events.AppFocus) -> None:
        """The terminal has the keyboard again."""
        self.dispatch(Focus(True))

    def on_app_blur(self, _event: events.AppBlur) -> None:
        """The keyboard is elsewhere."""
        self.dispatch(Focus(False))

    def dispatch(self, event: Event) -> None:
        """Feed one event to the machine, carry its commands out and show what it is now."""
        self.state, commands = step(self.state, event, self._clock())
        for command in commands:
            self._carry_out(command)
        self._prompts.show(self.state)

    def _carry_out(self, command: Command) -> None:
        if isinstance(command, Ring):
            self.bell()
        elif isinstance(command, Look):
            self._start(self._look(command))
        elif isinstance(command, Preview):
            self._start(self._preview(command.choice))
        elif isinstance(command, Answer):
            self._start(self._answer(command.choice))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look(self, look: Look) -> None:
        try:
            await self.client.call("look", id=look.id, looking=look.on)
        except (RpcError, GoneError):
            pass  # a prompt that is over needs no clock

    async def _preview(self, choice: Choice) -> None:
        try:
            reply = await self.client.call("preview", **_params(choice))
            rule, scope = str(reply["rule"]), str(reply.get("scope") or "")
        except (RpcError, GoneError) as e:
            self.dispatch(Previewed(choice, "", "", str(e) or "remitd gave no reason"))
        except (TypeError, KeyError, AttributeError):
            self.dispatch(Previewed(choice, "", "", "remitd said something unexpected"))
        else:
            self.dispatch(Previewed(choice, rule, scope))

    async def _answer(self, choice: Choice) -> None:
        try:
            reply = await self.client.call("answer", **_params(choice))
            settled = tuple(str(i) for i in reply.get("settled") or ())
            self.dispatch(Answered(choice, str(reply.get("rule") or ""), settled))
        except RpcError as e:
            # A conflict is also how remitd says that this person, or this scope, cannot settle it.
            how = await self._how(choice.id) if e.code == CONFLICT else ""
            if how:
                self.dispatch(Beaten(choice, how))
            else:
                self.dispatch(Failed(choice, e.message or "remitd gave no reason", e.code == NOT_FOUND))
        except GoneError as e:
            self.dispatch(Failed(choice, str(e), unsure=True))
        except (TypeError, AttributeError):
            self.dispatch(Failed(choice, "remitd said something unexpected"))

    async def _how(self, prompt_id: str) -> str:
        """Return how a prompt was answered; "" when it was not, or nothing is known."""
        try:
            answer = (await self.client.call("prompt", id=prompt_id)).get("answer")
        except (RpcError, GoneError, AttributeError):
            return ""
        return _worded(answer) if isinstance(answer, dict) else ""


def _worded(answer: dict[str, Any]) -> str:
    verdict, lasts, by = (str(answer.get(key) or "") for key in ("verdict", "for", "by"))
    word = {"allow": "allowed", "deny": "denied"}.get(verdict, "settled")
    term = next(
        (name for name, wire in TERMS if str(wire) == lasts), f"{lasts} s" if lasts.isdigit() else lasts
    )
    whom = {"": "", "human": "on another of your screens", "policy": "by the policy"}.get(
        by, f"through {by}"
    )
    return ", ".join(shown(p) for p in (word, term, whom) if p)


def _params(choice: Choice) -> dict[str, Any]:
    params = {"id": choice.id, "verdict": choice.verdict, "for": TERMS[choice.term][1]}
    return params | ({"scope": choice.scope} if choice.scope else {})


def main() -> int:
    """Run the screen in this terminal; return its exit status (2: there is no terminal)."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("remit tui: needs a terminal; use remit prompts and remit answer instead", file=sys.stderr)
        return 2
    return RemitApp(paths.find().approver).run() or 0
