"""Calls the person on the desktop: what ``notices`` decides, through the session bus, and what the person clicks.

A click can deny one question or open a terminal with the screen; it allows nothing. Clicks count only when they come from the
very connection that showed the notification. Without a bus, or a notification server, nothing is shown and nothing is lost.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from remit_daemon.broker import events as ev
from remit_daemon.broker import standing
from remit_daemon.runtime.notices import DENY, REVIEW, Close, Notices, Show

if TYPE_CHECKING:
    from remit_daemon.runtime.daemon import Daemon

log = logging.getLogger("remitd.desktop")

# The freedesktop proposal for "the terminal that this person uses", and Debian's alternative.
_TERMINALS = (("xdg-terminal-exec",), ("x-terminal-emulator", "-e"))


class Server(Protocol):
    """What shows notifications: ``runtime.bus``."""

    async def show(self, replaces: int, summary: str, body: str, actions: tuple[str, ...]) -> int: ...

    async def close_notification(self, ident: int) -> None: ...


def terminal() -> tuple[str, ...]:
    """Return the command before which another command runs in a new terminal, () when there is none to be opened."""
    if not (os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY")):
        return ()
    return next((words for words in _TERMINALS if shutil.which(words[0])), ())


class Desktop:
    """See the module's text. ``heard`` takes what watchers are told; ``run`` does the rest, for ever."""

    def __init__(self, daemon: Daemon, server: Server) -> None:
        self._daemon = daemon
        self._server = server
        self._terminal = terminal()
        self._notices = Notices(can_review=bool(self._terminal))
        self._wake = asyncio.Event()

    def heard(self, method: str, params: dict[str, Any]) -> None:
        """Take what watchers are told."""
        match method:
            case "prompt":
                self._notices.prompt(params)
            case "prompt.done":
                self._notices.done(params["id"])
            case "quiet":
                self._notices.quiet = params["mode"] != "off"
            case "review":
                self._say(f"{params['grants']} grants want a look", "remit review goes through them")
            case "grant" if params["change"] == "suspended":
                self._say("A grant was suspended", f"{params['id']} was not used for long: remit review")
            case _:
                return
        self._wake.set()

    def _say(self, summary: str, body: str) -> None:
        if not self._notices.quiet:
            self._daemon.spawn(self._tell(summary, body))

    async def _tell(self, summary: str, body: str) -> None:
        try:
            await self._server.show(0, summary, body, ())
        except (OSError, TimeoutError) as e:
            log.info("not shown: %s", e)
        except Exception:  # whatever a bus or the library does, the next question is told
            log.exception("internal error")

    def again(self) -> None:
        """Take up what waits already: the bus is there, or there again, and another server knows of nothing."""
        self._notices = Notices(can_review=bool(self._terminal))
        self._notices.quiet = bool(standing.mode(self._daemon.broker.state, self._daemon.clock()))
        for view in self._daemon.broker.prompts():
            self._notices.prompt(view)
        self._wake.set()

    def acted(self, ident: int, action: str) -> None:
        """Take a click on ``action`` of the notification ``ident``."""
        if action == DENY and (prompt := self._notices.denied(ident)):
            self._daemon.attempt(ev.Answer(prompt, "deny", "once", via="notification"))
        elif action in (REVIEW, "default") and self._notices.is_ours(ident) and self._terminal:
            words = [*self._terminal, sys.executable, "-m", "remit_daemon.cli.main", "tui"]
            try:
                subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
            except OSError as e:
                log.warning("no terminal: %s", e)

    def closed(self, ident: int) -> None:
        """Take note that the notification ``ident`` is gone."""
        self._notices.closed(ident)

    async def run(self) -> None:
        """Show and close what is due."""
        while True:
            for command in self._notices.due(time.monotonic()):
                await self._perform(command)
            due = self._notices.next_due()
            wait = None if due is None else max(0.0, due - time.monotonic())
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    async def _perform(self, command: Show | Close) -> None:
        try:
            if isinstance(command, Close):
                await self._server.close_notification(command.ident)
                return
            c = command
            ident = await self._server.show(c.replaces, c.summary, c.body, c.actions)
            for close in self._notices.shown(c.agent, ident):
                await self._server.close_notification(close.ident)
        except (OSError, TimeoutError) as e:
            log.info("not shown: %s", e)
        except Exception:  # whatever a bus or the library does, the next question is told
            log.exception("internal error")
