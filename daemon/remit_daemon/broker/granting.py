"""Grants in the broker's state: given by an answer, changed or taken back by a person, suspended and ended by time. Pure.

Of one place (agent, session, client, operations, patterns) there is one grant: the last that was given. Whatever changes what
is in force also returns the snapshots that say so. What becomes of a single grant is said in ``keeping``.
"""

from __future__ import annotations

from dataclasses import replace

from remit_daemon.broker import events as ev
from remit_daemon.broker import keeping, prompts, snapshots
from remit_daemon.broker.events import Refused
from remit_daemon.broker.judge import Judge
from remit_daemon.broker.keeping import MAX_ALWAYS
from remit_daemon.broker.records import ALWAYS, SESSION, Grant, Prompt, Settled
from remit_daemon.broker.state import State, before_change
from remit_daemon.broker.views import grant_view
from remit_daemon.wire.rpc import NOT_FOUND

Meant = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...] | None]  # as ``views.meaning`` returns it


def give(
    state: State, prompt: Prompt, settled: Settled, meant: Meant, agent: str, session: str
) -> tuple[Grant, list[ev.Command]]:
    """Make the grant of an answer to ``prompt`` for longer than once, for ``agent`` or, if so answered, its ``session``."""
    ops, patterns, tokens = meant
    expires = None
    if settled.duration != SESSION:
        life = MAX_ALWAYS if settled.duration == ALWAYS else min(float(settled.duration), MAX_ALWAYS)
        expires = settled.at + life
    grant = Grant(
        id=f"g{state.next_grant}", agent=agent, session=session if settled.duration == SESSION else "",
        ops=ops, patterns=patterns, verdict=settled.verdict, duration=settled.duration, created=settled.at, expires=expires,
        argv=tokens, prompt=prompt.id, via=settled.via, client=prompt.consent.client if prompt.consent else "",
    )  # fmt: skip
    state.next_grant += 1
    out: list[ev.Command] = []
    for old in [g for g in state.grants.values() if _same_place(g, grant)]:
        del state.grants[old.id]
        out.append(ev.Drop("grant", old.id))
    state.grants[grant.id] = grant
    return grant, [*out, ev.Store(grant)]


def _same_place(old: Grant, new: Grant) -> bool:
    return (old.agent, old.session, old.client, old.ops, old.patterns, old.argv) == (
        new.agent, new.session, new.client, new.ops, new.patterns, new.argv,
    )  # fmt: skip


def revoke(state: State, judge: Judge, event: ev.Revoke, now: float) -> list[ev.Command]:
    """Take back one grant, those of an agent, or all. Raises Refused when there is none of the id."""
    gone = [
        g for g in state.grants.values()
        if event.all or (event.id and g.id == event.id) or (event.agent and g.agent == event.agent)
    ]  # fmt: skip
    if event.id and not gone:
        raise Refused(NOT_FOUND, f"no grant {event.id}")
    out = _take_back(state, gone)
    # A once-answer that waits for its retry is a permission too.
    for p in list(state.prompts.values()):
        if p.pass_until is not None and p.pass_until > now and (event.all or p.agent == event.agent):
            state.prompts[p.id] = replace(p, pass_until=None)
            out.append(ev.Store(state.prompts[p.id]))
    out += snapshots.push(state, judge, snapshots.affected(state, gone))
    return [*out, ev.Reply({"revoked": [g.id for g in gone]})]


def _take_back(state: State, gone: list[Grant]) -> list[ev.Command]:
    out: list[ev.Command] = []
    for grant in gone:
        del state.grants[grant.id]
        entry = keeping.entry_of(grant, "revoke", "human", "revoked")
        out += [ev.Drop("grant", grant.id), ev.Record(entry, sync=True)]
    return out


def carry(state: State, judge: Judge, event: ev.Carry, now: float) -> list[ev.Command]:
    """Keep or take back what was granted to an agent before its program changed, as a person says."""
    state.withheld.pop(event.agent, None)
    older = [g for g in state.grants.values() if g.agent == event.agent and before_change(g, event.since)]
    out = [] if event.keep else _take_back(state, older)
    outcome = "kept" if event.keep else "dropped"
    note = f"{len(older)} answers from before its program changed"
    entry = {"actor": "human", "op": "agent", "agent": event.agent, "outcome": outcome, "note": note}
    out.append(ev.Record(entry, sync=True))
    return [
        *out,
        *_changed_for(state, judge, event.agent, now),
        ev.Reply({outcome: [g.id for g in older]}),
    ]


def withhold(state: State, judge: Judge, event: ev.Withhold, now: float) -> list[ev.Command]:
    """Use nothing of what was granted to an agent until now, since its program changed; or use it again."""
    if event.on:
        state.withheld[event.agent] = now
    else:
        state.withheld.pop(event.agent, None)
    return _changed_for(state, judge, event.agent, now)


def _changed_for(state: State, judge: Judge, agent: str, now: float) -> list[ev.Command]:
    running = snapshots.of_agent(state, agent)
    return [*snapshots.push(state, judge, running), *prompts.judge_again(state, judge, running, now)]


def used(state: State, event: ev.Used) -> list[ev.Command]:
    """Count what an enforcement point did by a grant; one that is gone meanwhile counts nothing."""
    grant = state.grants.get(event.id)
    if grant is None:
        return []
    grant = replace(
        grant, uses=grant.uses + event.n, denials=grant.denials + event.denied,
        last_used=max(event.at, grant.last_used or 0.0),
    )  # fmt: skip
    state.grants[grant.id] = grant
    return [ev.Store(grant)]


def change(state: State, judge: Judge, grant: Grant) -> list[ev.Command]:
    """Put ``grant``, changed by a person, in the place of the one of its id."""
    old = state.grants[grant.id]
    state.grants[grant.id] = grant
    out: list[ev.Command] = [ev.Store(grant), ev.Record(keeping.change_of(old, grant), sync=True)]
    if keeping.rules_differ(old, grant):
        out += snapshots.push(state, judge, snapshots.affected(state, [grant]))
    return [
        *out,
        ev.Notify("grant", keeping.told(grant, "kept")),
        ev.Reply({"grant": grant.id, "rule": grant_view(grant)["rule"]}),
    ]


def tick(state: State, judge: Judge, now: float) -> list[ev.Command]:
    """End or suspend the grants whose time has come."""
    out: list[ev.Command] = []
    changed: list[Grant] = []
    for grant in list(state.grants.values()):
        fate = keeping.fate(grant, now)
        if not fate:
            continue
        if fate == "suspended":
            grant = state.grants[grant.id] = replace(grant, suspended=True)
            out.append(ev.Store(grant))
        else:
            del state.grants[grant.id]
            out.append(ev.Drop("grant", grant.id))
        out += [
            ev.Record(keeping.entry_of(grant, "grant", "remit", fate)),
            ev.Notify("grant", keeping.told(grant, fate)),
        ]
        changed.append(grant)
    return [*out, *snapshots.push(state, judge, snapshots.affected(state, changed))]
