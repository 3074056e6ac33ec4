"""``remit grants``, ``remit grant`` and ``remit review``: what you allowed for longer, and going through it.

A review shows one grant at a time and takes one key for it. Nothing is kept, or taken up again, by Enter, by what was typed
before the grant was shown, or by more than one key at once (pasted text). Where standard input or output is no terminal
the grants that want a look are listed instead, and the exit status is 1 while there are any.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable
from typing import Any

from remit_daemon.cli.client import NEGATIVE, OK, Client, RpcError
from remit_daemon.cli.options import none
from remit_daemon.wire.escape import escape
from remit_daemon.wire.words import moment_text, span

KEYS = {"k": "keep", "n": "narrow", "r": "revoke", "s": "skip", "q": "quit"}
MARKERS = {
    "suspended": "suspended: not used for 30 days, not in force",
    "unused": "never used in a week",
    "stale": "not used for two weeks",
    "never-narrowed": "broader than its use",
    "dead": "what it is for is gone",
}
SETTLE = 0.3  # seconds that a grant has been on the screen before a key counts for it


def grant_lines(g: dict[str, Any], now: float) -> list[str]:
    """Return a grant as lines, every text of an agent's choosing escaped and none shortened."""
    last = f"last {span(now - g['last_used'])} ago" if g["last_used"] else "never used"
    refusals = f" ({g['denials']} refusals)" if g["denials"] else ""
    where = f" on {g['via']}" if g["via"] else ""
    asked = f", {g['prompt']}" if g["prompt"] else ""
    ends = f"expires {moment_text(g['expires'])}" if g["expires"] else f"ends with session {g['session']}"
    lines = [
        f"{g['id']}  {escape(g['rule'])}",
        f"    used {g['uses']}x{refusals}, {last}; {ends}",
        f"    given by {g['by']}{where}{asked}, {moment_text(g['created'])}",
    ]
    if g["markers"]:
        lines.append("    ! " + "; ".join(MARKERS[m] for m in g["markers"]))
    if g["withheld"]:
        lines.append("    ! waits: its agent's program has changed (remit agent update)")
    if g["suffices"]:
        lines.append(f"    would do: {escape(g['suffices'])}")
    return lines


def _json(value: object) -> None:
    print(json.dumps(value), flush=True)


def _out(text: str) -> None:
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode("utf-8"))
    sys.stdout.flush()


def grants(client: Client, args: argparse.Namespace) -> int:
    """Run ``remit grants``; returns the exit status."""
    found = client.call("grants")
    if args.json:
        _json(found)
        return OK
    for g in found:
        _out("\n".join(grant_lines(g, time.time())) + "\n")
    if not found:
        none("nothing is granted")
    return OK


def grant(client: Client, args: argparse.Namespace) -> int:
    """Run ``remit grant narrow|extend|keep``; returns the exit status. Raises ValueError for what is no time."""
    from remit_daemon.cli.commands import seconds

    params: dict[str, Any] = {"id": args.id}
    if args.action == "narrow":
        params["scope"] = args.value
    elif args.action == "extend":
        params["seconds"] = seconds(args.value)
    result = client.call(f"grant.{args.action}", params)
    if args.json:
        _json(result)
    else:
        _out(escape(result["rule"]) + "\n")
    return OK


class Walk:
    """A review's course: which grant is shown, and what came of the others. Pure but for ``call``."""

    def __init__(self, due: list[dict[str, Any]], call: Callable[[str, dict[str, Any]], Any]) -> None:
        self._due = due
        self._call = call
        self._at = 0
        self.tally = {"kept": 0, "narrowed": 0, "revoked": 0, "skipped": 0}

    @property
    def current(self) -> dict[str, Any] | None:
        """The grant that is shown, None at the end."""
        return self._due[self._at] if self._at < len(self._due) else None

    def place(self) -> str:
        """Return where in the course we are."""
        return f"{self._at + 1} of {len(self._due)}"

    def act(self, key: str, scope: str = "") -> str:
        """Take one of KEYS (``n`` with the scope to narrow to) and return a line to show. Raises RpcError; nothing moved then."""
        g = self.current
        if g is None:
            return ""
        match KEYS.get(key):
            case "keep":
                self._call("grant.keep", {"id": g["id"]})
                return self._next(
                    "kept", f"{g['id']} kept" + (", in force again" if g["suspended"] else "")
                )
            case "narrow":
                result = self._call("grant.narrow", {"id": g["id"], "scope": scope})
                return self._next("narrowed", f"now: {result['rule']}")
            case "revoke":
                self._call("revoke", {"id": g["id"]})
                return self._next("revoked", f"{g['id']} revoked")
            case "skip":
                return self._next("skipped", f"{g['id']} is left for the next time")
            case "quit":
                self.tally["skipped"] += len(self._due) - self._at
                self._at = len(self._due)
                return ""
            case _:
                return ""

    def _next(self, what: str, said: str) -> str:
        self.tally[what] += 1
        self._at += 1
        return said


def review(client: Client, args: argparse.Namespace) -> int:
    """Run ``remit review``; returns the exit status."""
    due = [g for g in client.call("grants") if g["due"]]
    if args.json:
        _json(due)
        return NEGATIVE if due else OK
    if not due:
        _out("nothing to review\n")
        return OK
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        for g in due:
            _out("\n".join(grant_lines(g, time.time())) + "\n")
        return NEGATIVE
    walk = Walk(due, client.call)
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        while (g := walk.current) is not None:
            _out(f"\n{walk.place()}\n" + "\n".join(grant_lines(g, time.time())) + "\n")
            _out("  [k] keep   n narrow   r revoke   s skip   q quit: ")
            key = _key(fd, before)
            try:
                scope = _scope(g) if key == "n" else ""
                said = walk.act(key, scope) if key != "n" or scope else "not narrowed"
            except RpcError as e:
                said = str(e)
            _out(f"  {escape(said)}\n" if said else "\n")
    except KeyboardInterrupt:
        walk.act("q")
        _out("\n")
    finally:
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)
    client.call("review.done", walk.tally)
    _out(", ".join(f"{n} {what}" for what, n in walk.tally.items() if n) + "\n")
    return OK


def _key(fd: int, before: list[Any]) -> str:
    """Return the next key that is meant for what is shown: alone, and not sooner than SETTLE."""
    tty.setcbreak(fd, termios.TCSAFLUSH)
    try:
        shown = time.monotonic()
        while True:
            select.select([fd], [], [])
            data = os.read(fd, 256)
            if not data or data == b"\x04":
                return "q"
            if len(data) == 1 and time.monotonic() - shown >= SETTLE and chr(data[0]) in KEYS:
                _out(chr(data[0]) + "\n")
                return chr(data[0])
            shown = time.monotonic()
    finally:
        termios.tcsetattr(fd, termios.TCSAFLUSH, before)


def _scope(g: dict[str, Any]) -> str:
    """Ask for the scope to narrow ``g`` to; "" when there is to be none."""
    if g["suffices"]:
        _out(f"  all its uses lie within {escape(g['suffices'])}\n")
    hint = " (or 'it' for that one)" if g["suffices"] else ""
    _out(f"  to which scope?{hint} ")
    line = sys.stdin.readline().strip()
    return str(g["suffices"]) if line == "it" and g["suffices"] else line


def quiet(client: Client, args: argparse.Namespace) -> int:
    """Run ``remit quiet``; returns the exit status. Raises ValueError for what is no time."""
    from remit_daemon.cli.commands import seconds

    if args.time == "off":
        result = client.call("quiet", {"mode": "off"})
    elif args.time:
        result = client.call("quiet", {"mode": args.mode, "seconds": seconds(args.time)})
    else:
        result = client.call("status")["quiet"] or {"mode": "off", "until": None}
    if args.json:
        _json(result)
    else:
        _out(quiet_line(result) + "\n")
    return OK


def quiet_line(quiet: dict[str, Any]) -> str:
    """Return what a quiet mode means."""
    if quiet["mode"] == "off":
        return "prompts are put to you as they come"
    done = "denied" if quiet["mode"] == "deny" else "held, and nobody is called"
    return f"until {moment_text(quiet['until'])} prompts are {done}"
