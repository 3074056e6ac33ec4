"""``remit prompts --watch``: prompts one at a time on a terminal, answered by a letter and then Enter.

Against answers nobody meant to give:
- keys count only after a prompt has stood still for QUIET seconds without any key; what comes before is thrown away,
  and starts the wait again;
- Enter alone does nothing; a letter only chooses, and shows the very rule; Enter after it, not sooner than PAUSE, gives the answer;
- what arrives as more than one key at once is pasted or buffered text and thrown away, the choice with it;
- Esc leaves the prompt queued; deny is what is marked at first.

Where standard input or output is no terminal, prompts are only listed as they come, and never answered.
"""

from __future__ import annotations

import json
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable
from typing import Any

from remit_daemon.cli.client import Client, RpcError
from remit_daemon.wire.escape import escape

QUIET = 0.5  # seconds
PAUSE = 0.15  # seconds between the letter and Enter: less is no second thought but a script or a paste
_PASTE_ON, _PASTE_OFF = "\x1b[?2004h", "\x1b[?2004l"  # bracketed paste, xterm's ctlseqs

# letter → verdict, for
CHOICES = {
    "d": ("deny", "once"),
    "x": ("deny", "always"),
    "a": ("allow", "once"),
    "s": ("allow", "session"),
    "w": ("allow", "always"),
}


class Keys:
    """From bytes of a terminal to intents, for one prompt. Pure; times are monotonic seconds.

    ``feed`` returns ``None``, ``choose`` (see ``choice`` and ``scope``), ``answer``, ``leave`` or ``quit``.
    """

    def __init__(self, shown: float, scopes: int) -> None:
        self._last = shown
        self._armed = False
        self._chosen = 0.0
        self._scopes = scopes
        self._pasting = False
        self.choice = ""
        self.scope = 0

    def feed(self, data: bytes, now: float) -> str | None:
        """Take what one read gave at ``now``."""
        quiet = now - self._last
        self._last = now
        if self._pasting or b"\x1b[200~" in data:
            self._pasting = b"\x1b[201~" not in data
            self._drop()
            return None
        if data in (b"\x03", b"\x04"):
            return "quit"  # gives up watching; no answer is in it
        if data == b"\x1b":
            return "leave"
        if not self._armed:
            if quiet < QUIET:
                return None
            self._armed = True
        if len(data) != 1:
            self._drop()
            return None
        key = chr(data[0])
        if key in "\r\n":
            if self.choice and now - self._chosen >= PAUSE:
                return "answer"
            return None
        if key == "q":
            return "quit"
        if key in CHOICES:
            self.choice, self._chosen = key, now
            return "choose"
        if key.isdigit() and 1 <= int(key) <= self._scopes:
            self.scope, self._chosen = int(key) - 1, now
            return "choose" if self.choice else None
        self._drop()
        return None

    def _drop(self) -> None:
        self.choice = ""
        self._armed = False


class _Screen:
    def __init__(self, client: Client, out: Callable[[str], None]) -> None:
        self.client = client
        self.out = out
        self.left: set[str] = set()
        self.current: dict[str, Any] | None = None
        self.keys = Keys(0.0, 0)
        self.quiet = client.call("status")["quiet"] is not None  # whether the bell is not to ring

    def show_next(self) -> None:
        """Show the oldest open prompt that was not left."""
        waiting = [p for p in self.client.call("prompts") if p["id"] not in self.left]
        if not waiting:
            self.current = None
            self.out("\nnothing waits; new prompts appear here, q ends\n")
            return
        from remit_daemon.cli.commands import describe_prompt

        self.current = p = waiting[0]
        self.client.call("look", {"id": p["id"], "looking": True})
        others = len(waiting) - 1
        more = f"\n    ({others} more wait{'' if others > 1 else 's'} behind it)" if others else ""
        self.out(f"\n{describe_prompt(p)}{more}\n")
        self.out(
            "  [d] deny once   x deny always   a allow once   s allow for the session\n"
            "  w allow always   1-9 scope   Enter confirms   Esc leaves it queued   q ends\n"
        )
        self.keys = Keys(time.monotonic(), len(p["scopes"]))

    def leave(self) -> None:
        """Stop looking at the current prompt, which stays open."""
        if self.current is not None:
            self.left.add(self.current["id"])
            self.call("look", {"id": self.current["id"], "looking": False})
            self.current = None

    def params(self) -> dict[str, Any]:
        assert self.current is not None
        verdict, duration = CHOICES[self.keys.choice]
        scope = self.current["scopes"][self.keys.scope]["scope"] if duration != "once" else ""
        return {"id": self.current["id"], "verdict": verdict, "for": duration, "scope": scope, "via": "cli"}

    def call(self, method: str, params: dict[str, Any]) -> Any:
        """Call; an error is shown and None returned."""
        try:
            return self.client.call(method, params)
        except RpcError as e:
            self.out(f"  {escape(str(e))}\n")
            return None

    def key(self, data: bytes) -> bool:
        """Take one read of the keyboard; False to end."""
        if self.current is None:
            return data not in (b"q", b"\x03", b"\x04")
        match self.keys.feed(data, time.monotonic()):
            case "quit":
                return False
            case "leave":
                self.out(f"  {self.current['id']} stays queued\n")
                self.leave()
                self.show_next()
            case "choose":
                shown = self.call("preview", {k: v for k, v in self.params().items() if k != "via"})
                if shown is None:
                    self.keys.choice = ""
                else:
                    self.out(f"  {escape(shown['rule'])}\n  Enter to confirm\n")
            case "answer":
                result = self.call("answer", self.params())
                if result is not None:
                    self.out(f"  done: {escape(result['rule'])}\n")
                    self.current = None
                    self.show_next()
                else:
                    self.keys.choice = ""
            case _:
                pass
        return True

    def heard(self, message: dict[str, Any]) -> None:
        """Take a notification."""
        method, params = message.get("method"), message.get("params", {})
        if method == "prompt.done" and self.current is not None and params.get("id") == self.current["id"]:
            self.out(f"  {params['id']} is settled: {params['state']}\n")
            self.current = None
            self.show_next()
        elif method == "prompt" and self.current is None and params.get("id") not in self.left:
            if not self.quiet:
                self.out("\a")
            self.show_next()
        elif method == "quiet":
            self.quiet = params["mode"] != "off"


def run(client: Client, *, json_out: bool) -> int:
    """Watch prompts until told to stop; returns the exit status."""
    client.call("watch")
    if json_out or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _list(client, json_out)
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)

    def out(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    screen = _Screen(client, out)
    try:
        tty.setcbreak(fd, termios.TCSAFLUSH)  # discards what was typed before
        out(_PASTE_ON)
        screen.show_next()
        going = True
        while going:
            while client.heard:
                screen.heard(client.heard.pop(0))
            ready = select.select([fd, client], [], [])[0]
            if client in ready:
                while (message := client.notification(0)) is not None:
                    screen.heard(message)
            if fd in ready:
                data = os.read(fd, 4096)
                going = bool(data) and screen.key(data)
        screen.leave()
    except KeyboardInterrupt:
        screen.leave()
    finally:
        out(_PASTE_OFF)
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)
    return 0


def _list(client: Client, json_out: bool) -> int:
    from remit_daemon.cli.commands import describe_prompt

    def show(prompt: dict[str, Any]) -> None:
        print(json.dumps(prompt) if json_out else describe_prompt(prompt), flush=True)

    shown = set()
    for prompt in client.call("prompts"):
        shown.add(prompt["id"])
        show(prompt)
    while True:
        message = client.notification(None)
        if message is None:
            continue
        params = message.get("params", {})
        if message.get("method") == "prompt" and params["id"] not in shown:
            shown.add(params["id"])
            show(params)
        elif message.get("method") == "prompt.done":
            shown.discard(params["id"])
            print(json.dumps(params) if json_out else f"{params['id']}  {params['state']}", flush=True)
