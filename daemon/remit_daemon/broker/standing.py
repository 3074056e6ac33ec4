"""What stands for all sessions: a quiet time, and the monthly call for a review. Pure, on the broker's state.

In a quiet time what would be asked is denied, or held as ever while nobody is called; policy, grants and answers that were
given hold on. It survives a restart and ends by itself. Both its ends are rows of the ledger.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from remit_daemon.broker import events as ev
from remit_daemon.broker import keeping
from remit_daemon.broker.events import Refused
from remit_daemon.broker.state import State
from remit_daemon.broker.states import PromptState
from remit_daemon.broker.views import quiet_view
from remit_daemon.wire.rpc import INVALID_PARAMS
from remit_daemon.wire.words import term

MAX_QUIET = 86400.0  # seconds: longer than a day is forgotten, and a policy's business
_OFF = {"mode": "off", "until": None}


def mode(state: State, now: float) -> str:
    """Return the quiet mode in force, "" when there is none."""
    return state.standing.quiet if state.standing.quiet_until > now else ""


def deadline(state: State, now: float, life: float) -> float:
    """Return when a prompt that is made ``now`` is missed, ``life`` seconds after somebody could have seen it."""
    return life + (max(now, state.standing.quiet_until) if mode(state, now) else now)


def quiet(state: State, event: ev.Quiet, now: float, life: float) -> list[ev.Command]:
    """Begin or end a quiet time; when questions are held, those that wait do so beyond it. Raises Refused."""
    if event.mode not in ("deny", "hold", "off"):
        raise Refused(INVALID_PARAMS, "quiet is deny, hold or off")
    if event.mode != "off" and not 0 < event.seconds <= MAX_QUIET:
        raise Refused(INVALID_PARAMS, f"quiet lasts between one second and {term(int(MAX_QUIET))}")
    until = 0.0 if event.mode == "off" else now + event.seconds
    note = f"for {term(event.seconds)}" if until else ""
    out = _stand(state, "human", event.mode, note, until)
    if event.mode == "hold":
        for prompt in [p for p in state.prompts.values() if p.state is PromptState.OPEN]:
            later = max(prompt.deadline, until + life)
            state.prompts[prompt.id] = replace(prompt, deadline=later)
            out.append(ev.Store(state.prompts[prompt.id]))
    return [*out, ev.Reply(quiet_view(state.standing, now) or _OFF)]


def tick(state: State, now: float) -> list[ev.Command]:
    """Return what time brings: the end of a quiet time, and once a month the call for a review."""
    out: list[ev.Command] = []
    if state.standing.quiet and state.standing.quiet_until <= now:
        out += _stand(state, "remit", "off", "its time is over", 0.0)
    due = [g for g in state.grants.values() if keeping.is_due(g, now)]
    if due and now - state.standing.reminded >= keeping.REVIEW_EVERY:
        state.standing = replace(state.standing, reminded=now)
        out += [ev.Store(state.standing), ev.Notify("review", {"grants": len(due)})]
    return out


def _stand(state: State, actor: str, which: str, note: str, until: float) -> list[ev.Command]:
    quiet = "" if which == "off" else which
    state.standing = replace(state.standing, quiet=quiet, quiet_until=until)
    entry: dict[str, Any] = {"actor": actor, "op": "quiet", "outcome": which, "note": note}
    view = quiet_view(state.standing, 0.0) or _OFF
    return [ev.Store(state.standing), ev.Record(entry, sync=actor == "human"), ev.Notify("quiet", view)]
