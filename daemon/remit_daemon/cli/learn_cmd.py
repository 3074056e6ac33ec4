"""``remit learn``: what a session was let through with becomes rules, one by one, in a policy file of the person's own.

Enter alone is no. The file is checked by the loader, beside all others, before it takes the old one's place in one step.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import termios
import time
from typing import Any

from remit_daemon.broker.records import Grant
from remit_daemon.broker.scopes import grant_within
from remit_daemon.cli.client import NEGATIVE, OK, USAGE, Client
from remit_daemon.cli.policy_cmd import policy_dirs, variables
from remit_daemon.wire.escape import escape
from remit_daemon.wire.words import verbs
from remit_policy.explain import shown
from remit_policy.layers import PolicySet, check_file, load
from remit_policy.learned import Entry, NotOurs, read, render, written
from remit_policy.model import PACK, USER
from remit_policy.rules import BASE_ROLES, roles_for

_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def _out(text: str) -> None:
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode("utf-8"))
    sys.stdout.flush()


def learn(client: Client, args: argparse.Namespace) -> int:
    """Run ``remit learn SESSION``; returns the exit status: 1 when there is nothing to learn."""
    found = client.call("learn", {"session": args.session})
    if args.json:
        print(json.dumps(found))
        return OK if found["proposals"] else NEGATIVE
    if not found["proposals"]:
        _out(
            "nothing to learn: "
            + ("what is left is protected\n" if found["left"] else "no rule is missing\n")
        )
        return NEGATIVE
    agent = found["agent"]
    if not agent or not set(agent) <= _NAME or agent.startswith("."):
        sys.stderr.write(f"remit learn: {escape(agent)} cannot name a file; run it with --agent NAME\n")
        return USAGE
    path = f"{policy_dirs().user}/learned-{agent}.toml"
    others = load(policy_dirs(), None)
    try:
        roles, entries = _known(path, agent, others)
    except NotOurs as e:
        sys.stderr.write(
            f"remit learn: {escape(path)}: {escape(str(e))}; rename it, and learning begins a new one beside it\n"
        )
        return USAGE
    accepted = _choose(found)
    if not accepted:
        _out("nothing was added\n")
        return NEGATIVE
    if not _replace(path, render(agent, roles, [*entries, *accepted]), others):
        return USAGE
    errors = client.call("reload")["errors"]
    for fault in errors:
        sys.stderr.write(
            shown(f"{fault['file']}:{fault['line']}:{fault['column']}: {fault['message']}") + "\n"
        )
    _out(f"{len(accepted)} rule{'s' * (len(accepted) != 1)} in {escape(path)}, in force\n")
    return USAGE if errors else OK


def _known(path: str, agent: str, others: PolicySet) -> tuple[list[str], list[Entry]]:
    """Return the roles that the agent is to have besides, and what the file holds already. Raises NotOurs."""
    try:
        with open(path, encoding="utf-8") as f:
            return read(f.read(), agent)
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as e:
        raise NotOurs(f"it cannot be read: {e}") from None
    # A section of the person's own takes the place of the packs', so it names what they gave. Where there is one
    # already, another adds to it.
    chosen = roles_for(others.sources, agent, "", "", variables(""))
    own = any(layer == USER for layer, _ in chosen)
    return [] if own else [r for layer, r in chosen if layer == PACK and r not in BASE_ROLES], []


def _choose(found: dict[str, Any]) -> list[Entry]:
    accepted: list[Entry] = []
    total = len(found["proposals"])
    for number, p in enumerate(found["proposals"], 1):
        pattern = p["pattern"]
        things = f"{p['resources']} different, such as " if p["resources"] > 1 else ""
        _out(
            f"\n{number} of {total}: allow {found['agent']} to {', '.join(verbs(p['ops']))} {escape(pattern)}\n"
        )
        _out(f"    {p['number']}x, {things}{', '.join(escape(e) for e in p['examples'])}\n")
        while True:
            _out("  [n] no   y yes   e edit   q quit: ")
            word = _line()
            if word == "e":
                _out("  pattern (no wider than this one): ")
                edited = _line(keep=True)
                if edited.startswith("~/"):
                    edited = found["home"] + edited[1:]
                if _within(p, edited):
                    pattern, word = edited, "y"
                else:
                    _out("  this is not within what is proposed\n")
                    continue
            break
        if word == "q":
            break
        if word == "y":
            accepted += _entries(found, p, pattern)
            _out("  added\n")
    return accepted


def _line(*, keep: bool = False) -> str:
    """Return what is typed now, not what was typed before the question; "q" at the end of input."""
    if sys.stdin.isatty():
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
    line = sys.stdin.readline()
    if not line:
        return "q"
    return line.strip() if keep else line.strip().lower()


def _within(proposal: dict[str, Any], edited: str) -> bool:
    pattern = proposal["pattern"]
    whole = Grant("g0", "", "", tuple(proposal["ops"]), (pattern,), "allow", "always", 0.0, None)
    return edited == pattern or grant_within(whole, pattern, edited)


def _entries(found: dict[str, Any], p: dict[str, Any], pattern: str) -> list[Entry]:
    home = found["home"]
    when = time.strftime("%Y-%m-%d", time.localtime())
    things = f"{p['resources']} different, " if p["resources"] > 1 else ""
    note = f"{p['number']}x, {things}as {p['examples'][0]}; session {found['session']}, {when}"
    return [Entry(op, written(pattern, home), note) for op in p["ops"]]


def _replace(path: str, text: str, others: PolicySet) -> bool:
    """Put ``text`` in the place of ``path`` if the loader takes it; False, having said why not, if it does not."""
    folder = os.path.dirname(path)
    os.makedirs(folder, 0o700, exist_ok=True)
    fresh = f"{folder}/.{os.path.basename(path)}.new"  # no name that the loader reads
    beside = PolicySet([(layer, s) for layer, s in others.sources if s.file != path])
    try:
        with open(
            os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600),
            "w",
            encoding="utf-8",
        ) as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        if problems := check_file(fresh, beside):
            for p in problems:
                sys.stderr.write(f"remit learn: {shown(f'{p.file}:{p.line}:{p.column}: {p.message}')}\n")
            os.unlink(fresh)
            return False
        os.replace(fresh, path)
    except OSError as e:
        sys.stderr.write(f"remit learn: cannot write {escape(path)}: {e.strerror}\n")
        return False
    return True
