"""Sessions as the broker knows them: begun, taken up again, steered by a person, under another policy, ended. Pure, on the state.

A session that is steered stays a session; one that has ended is never taken up again, ends all that were delegated from it,
and takes its holds, its prompts and the grants for it alone with it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from remit_daemon.broker import events as ev
from remit_daemon.broker import limits, prompts, snapshots
from remit_daemon.broker.events import Refused
from remit_daemon.broker.judge import Judge
from remit_daemon.broker.records import Session
from remit_daemon.broker.state import State
from remit_daemon.broker.states import SessionMove, SessionState, move_session
from remit_daemon.broker.views import session_entry, session_view
from remit_daemon.wire.control import of_api, of_gateway
from remit_daemon.wire.rpc import CONFLICT, INVALID_PARAMS
from remit_daemon.wire.words import UNCONFINED
from remit_policy import model

_ASK_MODES = ("prompt", "deny", "allow-once", "learn")


def started(state: State, event: ev.Started) -> list[ev.Command]:
    """Begin a session, or take it up again. Raises Refused for one that has ended, or whose parent does not run."""
    new = event.session
    if new.ask not in _ASK_MODES:
        raise Refused(INVALID_PARAMS, f"no ask mode {new.ask!r}")
    known = state.sessions.get(new.id)
    if known is not None and not known.live:
        raise Refused(CONFLICT, f"session {new.id} has ended")
    if new.parent:
        state.running(new.parent)
    state.bases[new.id] = event.base
    state.engines.pop(new.id, None)
    lost(state, new.id, gateway=False)
    out: list[ev.Command] = []
    if known is None:
        state.sessions[new.id] = new
        out += [
            ev.Store(new),
            ev.Record(session_entry(new, "session", outcome="started", note=_note(new), argv=new.argv)),
        ]
    elif known.state is SessionState.PAUSED:
        out.append(ev.Send(new.id, {"type": "pause"}))
    return [*out, ev.Notify("session", view(state, state.sessions[new.id]))]


def _note(new: Session) -> str:
    notes = [
        f"ask={new.ask}" if new.ask != "prompt" else "",
        f"{new.assurance}, {UNCONFINED}" if not new.confined else "",
        "network unmediated" if new.net_all else "",
        f"delegated by {new.parent}" if new.parent else "",
    ]
    return " ".join(filter(None, notes))


def lost(state: State, ident: str, *, gateway: bool) -> list[ev.Command]:
    """Forget what the supervisor of ``ident``, or its ``gateway``, held: it says again what it holds when it comes back."""
    state.holds = {
        k: v for k, v in state.holds.items() if k[0] != ident or of_api(k[1]) or of_gateway(k[1]) != gateway
    }
    return []


def ended(state: State, event: ev.Ended, now: float) -> list[ev.Command]:
    """End a session and all below it. Raises Refused when there is none, IllegalMove when it has ended."""
    session = state.session(event.session)
    below: list[ev.Command] = []
    for sub in state.below(session.id):
        if state.sessions[sub].live:  # not ended with the one above it
            below += ended(state, ev.Ended(sub, None), now)
    session = replace(
        session, state=move_session(session.state, SessionMove.END), ended=now, status=event.status
    )
    state.sessions[session.id] = session
    state.holds = {k: v for k, v in state.holds.items() if k[0] != session.id}
    state.bases.pop(session.id, None)
    state.engines.pop(session.id, None)
    state.stated.pop(session.id, None)
    out: list[ev.Command] = [*below, ev.Store(session), *limits.end(state, session.id, now)]
    gone = "supervisor gone" if session.confined else "client gone"
    if session.parent:
        gone = "its first program ended"
    status = gone if event.status is None else f"status {event.status}"
    out.append(ev.Record(session_entry(session, "session", outcome="ended", note=status)))
    for prompt in state.open_of(session.id):
        out += prompts.miss(state, prompt)
    for grant in [g for g in state.grants.values() if g.session == session.id]:
        del state.grants[grant.id]
        out.append(ev.Drop("grant", grant.id))
    return [*out, ev.Notify("session", view(state, session))]


def steer(state: State, event: ev.Steer) -> list[ev.Command]:
    """Pause, resume or stop a session. Raises Refused, and IllegalMove for what it is already."""
    session = state.session(event.session)
    out: list[ev.Command] = []
    if event.action == "stop":
        if not session.live:
            raise Refused(CONFLICT, f"session {session.id} has ended")
        out.append(ev.Record(session_entry(session, "stop", actor="human")))
    else:
        move = {"pause": SessionMove.PAUSE, "resume": SessionMove.RESUME}[event.action]
        session = replace(session, state=move_session(session.state, move))
        state.sessions[session.id] = session
        out += [ev.Store(session), ev.Record(session_entry(session, event.action, actor="human"))]
    out.append(ev.Send(session.id, {"type": event.action}))
    if event.action == "stop":
        out.append(ev.EndTree(session.id, session.tag))
        if session.parent:  # a session's own mark is on all of its tree, a sub-session's on its own part
            out += [ev.EndTree(sub, state.sessions[sub].tag) for sub in state.below(session.id)]
    return [*out, ev.Notify("session", view(state, session)), ev.Reply()]


def policy_changed(state: State, judge: Judge, event: ev.PolicyChanged, now: float) -> list[ev.Command]:
    """Put sessions under the policy that is theirs now, where it is another one."""
    changed = {
        k
        for k, base in event.bases.items()
        if k in state.bases and model.dumps(base) != model.dumps(state.bases[k])
    }
    for ident in changed:
        base = state.bases[ident] = event.bases[ident]
        state.sessions[ident] = replace(state.sessions[ident], net_all=base.net_all)
    changed = snapshots.with_subs(state, changed)
    return [
        *snapshots.push(state, judge, changed),
        *prompts.judge_again(state, judge, changed, now),
    ]


def view(state: State, session: Session) -> dict[str, Any]:
    """Return the wire Session."""
    return session_view(session, len(state.open_of(session.id)))
