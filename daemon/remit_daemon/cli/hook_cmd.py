"""``remit hook AGENT``: a hook for agents that ask one before each tool call.

The agent's own settings run it (`PreToolUse` of Claude Code and Codex, `BeforeTool` of Gemini CLI). What the call would do is asked of remit,
with the agent's stated reason as the purpose that a person reads; the answer is given back in the agent's own form. A hook is
advice: the agent may be told not to run it. In a session the wall is behind it, elsewhere there is none.

What it never does is allow what remit would ask about: without remitd, without an answer, on anything it cannot read, it says "ask" (to
Codex, whose hooks can only deny, "deny"); on a tool that it does not know it says nothing. A command whose program may run is no command
all of whose deeds are allowed: outside a session it says nothing to that.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from remit_client import NoDaemon, Remit, RemitError
from remit_daemon.cli.client import OK, USAGE
from remit_daemon.cli.hook_tools import Wish, wish
from remit_daemon.wire.escape import escape

AGENTS = ("claude", "codex", "gemini")
MAX_EVENT = 16 << 20  # characters: a Write carries the file
_USAGE = "usage: remit hook claude|codex|gemini\n\nReads the agent's hook event from standard input.\n"
# Between an agent and its hook: what runs a command line.
_BETWEEN = ("sh", "bash", "dash", "zsh", "ash", "env", "timeout")
_MAX_BETWEEN = 4


def run(args: list[str], *, json_out: bool) -> int:
    """Answer one hook event; returns the exit status: 0 whatever the answer is, 2 for wrong use."""
    if len(args) != 1 or args[0] not in AGENTS:
        asked = args in (["--help"], ["-h"])
        (sys.stdout if asked else sys.stderr).write(_USAGE)
        return OK if asked else USAGE
    verdict, why = _verdict(args[0], sys.stdin.read(MAX_EVENT))
    said = form(args[0], verdict, why)
    if said:
        print(json.dumps(said))
    return OK


def _verdict(agent: str, text: str) -> tuple[str, str]:
    """Return (allow, deny, ask or "" for no opinion, why)."""
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        return "ask", "remit cannot read what the hook was given"
    wanted = wish(event)
    if not wanted.acts and not wanted.purpose:
        return "", ""
    try:
        with _connect(agent, event) as remit:
            return decide(remit, wanted)
    except NoDaemon as e:
        return "ask", f"remit was not asked: {e}"
    except RemitError as e:
        return "ask", f"remit was not asked: {e}"


def decide(remit: Remit, wanted: Wish) -> tuple[str, str]:
    """Return remit's verdict on all that is wanted, and why. Raises NoDaemon, RemitError."""
    if wanted.purpose:
        remit.intend(wanted.purpose, [] if wanted.command else [a.resource for a in wanted.acts])
    for act in wanted.acts:
        told = remit.request(act.op, act.resource, argv=act.argv, purpose=wanted.purpose)
        what = f"{act.op} {escape(act.resource)}"
        if told.verdict == "deny":
            return "deny", f"remit: {what} is denied: {told.message or told.rule}"
        if told.verdict != "allow":
            return "ask", f"remit: {what}: {told.message}"
    confined = bool(remit.whoami()["confined"])
    if not wanted.acts or not wanted.known or (wanted.command and not confined):
        return "", ""
    return "allow", "remit allows it"


def _connect(agent: str, event: dict[str, Any]) -> Remit:
    if os.environ.get("REMIT_SOCKET"):
        return Remit()
    cwd = event.get("cwd")
    project = cwd if isinstance(cwd, str) and cwd.startswith("/") else os.getcwd()
    pid = _agent_pid()
    try:
        return Remit(agent=agent, project=project, pid=pid)
    except RemitError:
        return Remit(pid=pid)  # known already, by another name


def _agent_pid() -> int:
    """Return the process that started us, the shells between left out."""
    pid = os.getppid()
    for _ in range(_MAX_BETWEEN):
        try:
            with open(f"/proc/{pid}/stat", "rb") as f:
                head, _, rest = f.read().rpartition(b")")
        except OSError:
            break
        parent = int(rest.split()[1])
        if head.partition(b"(")[2].decode("utf-8", "replace") not in _BETWEEN or parent <= 1:
            break
        pid = parent
    return pid


def form(agent: str, verdict: str, why: str) -> dict[str, Any]:
    """Return the answer in the agent's own form; empty: none is given, and the agent goes by its own settings."""
    if not verdict:
        return {}
    if agent == "gemini":
        return {"decision": verdict} | ({} if verdict == "allow" else {"reason": why, "systemMessage": why})
    if agent == "codex":  # it refuses a hook's allow and ask as unsupported, and then goes on
        if verdict == "allow":
            return {}
        verdict = "deny"
    return {
        "hookSpecificOutput": {
            "hookEventName": "PreToolUse", "permissionDecision": verdict, "permissionDecisionReason": why,
        }
    }  # fmt: skip
