"""Which sessions a change reaches, and the snapshots that they are sent then. Pure, on the broker's state.

What a sub-session may do follows from what those above it may: whatever changes for a session changes for all below it.
"""

from __future__ import annotations

from collections.abc import Iterable

from remit_daemon.broker import events as ev
from remit_daemon.broker.judge import Judge
from remit_daemon.broker.records import Grant
from remit_daemon.broker.state import State
from remit_policy import model


def affected(state: State, grants: Iterable[Grant]) -> set[str]:
    """Return the running sessions that one of ``grants`` is for, and all below them."""
    grants = list(grants)
    return with_subs(
        state,
        {
            s.id
            for s in state.sessions.values()
            if s.live and s.id in state.bases
            for g in grants
            if (g.session == s.id if g.session else g.agent == s.agent)
        },
    )


def of_agent(state: State, agent: str) -> set[str]:
    """Return the sessions of ``agent`` that have a policy, and all below them."""
    return with_subs(
        state, {s.id for s in state.sessions.values() if s.agent == agent and s.id in state.bases}
    )


def with_subs(state: State, sessions: set[str]) -> set[str]:
    """Return ``sessions`` and all that were delegated from them."""
    below = {sub for ident in sessions for sub in state.below(ident)}
    return sessions | {sub for sub in below if sub in state.bases}


def push(state: State, judge: Judge, sessions: set[str]) -> list[ev.Command]:
    """Judge ``sessions`` by what is in force now, and send each its snapshot under the next revision."""
    if not sessions:
        return []
    state.revision += 1
    out: list[ev.Command] = []
    for ident in sorted(sessions):
        state.engines.pop(ident, None)
        text = model.dumps(judge.compose(state, ident))
        out.append(ev.Send(ident, {"type": "snapshot", "snapshot": text, "revision": state.revision}))
    return out
