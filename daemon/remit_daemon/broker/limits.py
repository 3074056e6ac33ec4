"""Limits as remitd counts them: accounts that all sessions of an owner fill, and the leases that points hold of them.

    reserve: a lease, or one act's costs that a point asks for -> used, here or at the point -> committed by its report
                                                               -> returned unused: released

- What counts against a limit is ``level`` (committed; it drains evenly) and what points hold (it does not drain: when it
  will be used nobody knows). Together they never exceed the amount, but by what a person allowed.
- A point that ends without a word has used all it held. Nobody is locked out by that: the level drains.
- A clock that goes back drains nothing until it is where it was; one that went back by more than the limit's whole time is taken
  as it is, since an account must not wait for a time that was wrong.
- Leases are given below WARN of the amount. Beyond it, and until CALM, they are called back and each act is asked for, so the last
  fifth is counted exactly; bytes alone are always leased, since they are counted while they flow.

The owner of an account is an agent's name or a session, always that of the chain's root: children draw from their parent.
Pure functions on ``State``; what they return are the broker's commands.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from remit_daemon.broker import events as ev
from remit_daemon.broker.records import Account, Lease, Prompt, Scope, Session
from remit_daemon.broker.state import State
from remit_daemon.wire.control import FIRST_OF_GATEWAY
from remit_policy.limits import SLICES, UNITS, Limit, shown, span
from remit_policy.match import escape

WARN = 0.8  # of the amount: a warning, and the end of leases
CALM = 0.6  # of the amount: below it, the next warning may come
LATE = 60.0  # seconds in which a point that has ended may still say what it did not use
MAX_COSTS = 8  # kinds of costs of one act: there are fewer
MAX_AMOUNT = 1 << 50  # of one cost
MAX_LEASES = 256  # points that hold of one account; more ask for each act
QUESTION = (("prompts", 1),)  # what a new prompt costs
EXTEND = "limit:"  # begins the scope that stands for "so much more, once"

Costs = Sequence[tuple[str, int]]


def costs_of(texts: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """Return the (kind, amount) pairs of an ask's ``costs``. Raises ValueError."""
    out = []
    for text in texts:
        kind, _, amount = text.partition(":")
        if kind not in UNITS or not amount.isascii() or not amount.isdigit() or len(amount) > 16:
            raise ValueError(f"{text!r} is no cost")
        if not 0 < int(amount) <= MAX_AMOUNT:
            raise ValueError(f"{text!r} is out of range")
        out.append((kind, int(amount)))
    if len(out) > MAX_COSTS:
        raise ValueError("too many costs")
    return tuple(out)


def root(state: State, session: str) -> Session:
    """Return the session whose limits ``session`` draws from: the one that the person started."""
    return state.sessions[state.chain(session)[-1]]


def _key(state: State, session: str, limit: Limit) -> str:
    top = root(state, session)
    return f"{top.id if limit.per == 'session' else top.agent}\t{limit.ident}"


def limits_of(state: State, session: str) -> tuple[Limit, ...]:
    """Return the limits that ``session`` is under while it lives: its own snapshot's and those of all above it.

    Of the same limit the one further up counts: an agent writes the policy of what it starts, and is not to give itself more so.
    """
    found: dict[str, Limit] = {}
    for ident in state.chain(session) if session in state.bases else ():
        if ident in state.bases:
            found |= {limit.ident: limit for limit in state.bases[ident].limits}
    return tuple(found.values())


def _account(state: State, session: str, limit: Limit, now: float) -> Account:
    """Return the account of ``limit`` as it is at ``now``, made when there is none."""
    key = _key(state, session, limit)
    found = state.accounts.get(key)
    if found is None:
        owner = key.partition("\t")[0]
        found = Account(key, owner, limit.ident, limit.kind, limit.amount, limit.seconds, 0.0, now)
    elif found.at - now > found.seconds:
        state.accounts[key] = replace(
            found, at=now
        )  # from here on it drains, whether anything is charged or not
    found = drained(found, now)
    return replace(found, amount=limit.amount, seconds=limit.seconds, source=limit.source)


def drained(account: Account, now: float) -> Account:
    """Return ``account`` with what came back since it was last looked at."""
    if now < account.at:
        return replace(account, at=now) if account.at - now > account.seconds else account
    back = (now - account.at) * account.amount / account.seconds
    return replace(account, level=max(0.0, account.level - back), at=now)


def held(account: Account) -> int:
    """Return what points hold of ``account`` and have not said they used."""
    return sum(max(0, x.given - x.used - x.returned) for x in account.leases.values() if x.closed is None)


def full(account: Account) -> float:
    """Return how much counts against the amount."""
    return account.level + held(account)


def _matching(state: State, session: str, costs: Costs, now: float) -> list[tuple[Account, int]]:
    return [
        (_account(state, session, limit, now), amount)
        for limit in limits_of(state, session)
        for kind, amount in costs
        if limit.kind == kind
    ]


def spent(state: State, session: str, costs: Costs, now: float) -> Account | None:
    """Return the first account that has no room for ``costs``, or None."""
    for account, amount in _matching(state, session, costs, now):
        if full(account) + amount > account.amount + 1e-9 * account.amount:
            return account
    return None


def charge(state: State, session: str, costs: Costs, now: float) -> list[ev.Command]:
    """Count ``costs``, whether there is room or not; returns the commands."""
    out: list[ev.Command] = []
    for account, amount in _matching(state, session, costs, now):
        out += _put(state, replace(account, level=account.level + amount))
    return out


def _put(state: State, account: Account) -> list[ev.Command]:
    """Keep ``account``, and warn when it has come so far."""
    out: list[ev.Command] = []
    part = full(account) / account.amount
    if part >= WARN and not account.warned:
        account = replace(account, warned=True)
        out.append(ev.Record(_entry(account, "warned")))
        out.append(ev.Notify("limit", view(account)))
        out += recall(state, account)
    elif part < CALM and account.warned:
        account = replace(account, warned=False)
    state.accounts[account.id] = account
    return [ev.Store(account), *out]


def _entry(account: Account, outcome: str) -> dict[str, Any]:
    agent, session = _owner(account)
    return {
        "actor": "remit", "agent": agent, "session": session, "op": "limit", "outcome": outcome,
        "rule": account.source, "note": words(account),
    }  # fmt: skip


def _owner(account: Account) -> tuple[str, str]:
    return ("", account.owner) if per_session(account) else (account.owner, "")


def per_session(account: Account) -> bool:
    """Tell whether ``account`` is one session's."""
    return account.limit.rpartition(" ")[0].endswith(" session")


def recall(state: State, account: Account) -> list[ev.Command]:
    """Return the frames that call back what points hold of ``account``."""
    return [
        _frame(point, account, lease.given, recall=True)
        for point, lease in account.leases.items()
        if lease.closed is None and lease.given - lease.used - lease.returned > 0
    ]


def _frame(point: str, account: Account, given: int, *, recall: bool = False) -> ev.Send:
    session, _, gateway = point.partition("/")
    frame = {
        "type": "lease", "seq": FIRST_OF_GATEWAY if gateway else 0, "limit": account.limit, "given": given,
        "recall": recall,
    }  # fmt: skip
    return ev.Send(session, frame)


def report(state: State, event: ev.Report, now: float) -> list[ev.Command]:
    """Take what a point says it used and returned, and give it a lease when it wants one and there is room."""
    found = _reported(state, event, now)
    if found is None:
        return []  # the policy changed meanwhile: it is no limit any more
    account = found
    leases = dict(account.leases)
    for (
        point,
        lease,
    ) in account.leases.items():  # a gateway that was started anew has taken the place of one before
        if point != event.point and "/" in event.point and _gateway_of(point, event.session, lease):
            account, leases[point] = _closed(account, lease, now)
    old = leases.get(event.point, Lease(0, 0, 0))
    used = max(0, event.used - old.used)
    level = account.level + used
    if old.closed is not None:  # it was taken for spent when its session ended
        level = max(0.0, account.level - max(0, old.given - old.used - old.returned - used))
    given = max(0 if old.closed else old.given, event.used + event.returned)
    lease = replace(
        old, given=given, used=max(old.used, event.used), returned=max(old.returned, event.returned)
    )
    leases[event.point] = lease
    account = replace(account, level=level, leases=leases)
    if old.closed is None and event.want:
        more = _more(account)
        if len(leases) > MAX_LEASES:
            more = 0
        lease = replace(lease, given=given + more)
        account = replace(account, leases={**leases, event.point: lease})
        return [*_put(state, account), _frame(event.point, account, lease.given)]
    return _put(state, account)


def _reported(state: State, event: ev.Report, now: float) -> Account | None:
    """Return the account that ``event`` is about; of a session that has ended, only one of which it held a lease."""
    for limit in limits_of(state, event.session):
        if limit.ident == event.limit:
            return _account(state, event.session, limit, now)
    top = root(state, event.session)
    for owner in (top.id, top.agent):
        found = state.accounts.get(f"{owner}\t{event.limit}")
        if found is not None and event.point in found.leases:
            return drained(found, now)
    return None


def _gateway_of(point: str, session: str, lease: Lease) -> bool:
    return lease.closed is None and point.partition("/")[:2] == (session, "/")


def _more(account: Account) -> int:
    """Return how much one lease is given now."""
    if account.warned and account.kind != "bytes":
        return 0
    top = account.amount if account.kind == "bytes" else WARN * account.amount
    return max(0, min(account.amount // SLICES, int(top - full(account))))


def _closed(account: Account, lease: Lease, now: float) -> tuple[Account, Lease]:
    rest = max(0, lease.given - lease.used - lease.returned)
    return replace(account, level=account.level + rest), replace(lease, closed=now)


def end(state: State, session: str, now: float) -> list[ev.Command]:
    """Take for spent what the points of ``session`` hold: it has ended."""
    out: list[ev.Command] = []
    for account in list(state.accounts.values()):
        mine = [p for p, x in account.leases.items() if p.partition("/")[0] == session and x.closed is None]
        if not mine:
            continue
        account = drained(account, now)
        for point in mine:
            account, lease = _closed(account, account.leases[point], now)
            account = replace(account, leases={**account.leases, point: lease})
        state.accounts[account.id] = account
        out.append(ev.Store(account))
    return [*out, *prune(state, now)]


def prune(state: State, now: float) -> list[ev.Command]:
    """Forget leases that ended a while ago, and accounts on which nothing is."""
    out: list[ev.Command] = []
    for account in list(state.accounts.values()):
        leases = {p: x for p, x in account.leases.items() if x.closed is None or now - x.closed < LATE}
        if not leases and drained(account, now).level == 0.0:
            del state.accounts[account.id]
            out.append(ev.Drop("account", account.id))
        elif len(leases) != len(account.leases):
            state.accounts[account.id] = replace(account, leases=leases)
            out.append(ev.Store(state.accounts[account.id]))
    return out


def extend(state: State, ident: str, now: float) -> list[ev.Command]:
    """Give the account ``ident`` its whole amount once more; a person said so."""
    account = state.accounts.get(ident)
    if account is None:
        return []
    account = drained(account, now)
    account = replace(account, level=max(0.0, account.level - account.amount))
    return _put(state, account)


# -- words ----------------------------------------------------------------------------------------


def words(account: Account) -> str:
    """Return the state of ``account`` in a person's words."""
    owner = f"session {account.owner}" if per_session(account) else account.owner
    amount, used = shown(account.kind, account.amount), math.ceil(full(account))
    done = shown(account.kind, used) if account.kind in ("bytes", "spend") else str(used)
    return f"{done} of {amount} per {span(account.seconds)} are spent by {owner} ({account.limit})"


def view(account: Account) -> dict[str, Any]:
    """Return the wire Limit of ``account``, drained to the time that is meant."""
    agent, session = _owner(account)
    return {
        "limit": account.limit,
        "agent": agent,
        "session": session,
        "kind": account.kind,
        "used": full(account),
        "spent": math.ceil(full(account) + 0.01 * account.amount) > account.amount,
        "held": held(account),
        "amount": account.amount,
        "seconds": account.seconds,
        "source": account.source,
        "text": words(account),
    }


def views(state: State, agent: str, now: float) -> list[dict[str, Any]]:
    """Return the state of every limit that a live session is under, or that something is spent of; ``agent`` "": all."""
    found = {a.id: drained(a, now) for a in state.accounts.values()}
    for session in state.sessions.values():
        if session.live and session.id in state.bases:
            for limit in limits_of(state, session.id):
                account = _account(state, session.id, limit, now)
                found[account.id] = account
    out = []
    for account in found.values():
        owner = account.owner
        if per_session(account):
            owner = state.sessions[owner].agent if owner in state.sessions else ""
        if not agent or owner == agent:
            out.append(view(account) | {"agent": owner})
    return sorted(out, key=lambda v: (v["agent"], v["session"], v["limit"]))


def scopes(account: Account, narrowest: Scope) -> tuple[Scope, ...]:
    """Return what may be said to a spent limit: this act alone, or as much as the limit gives, once more."""
    label = f"{shown(account.kind, account.amount)} more, once"
    return narrowest, Scope(EXTEND + escape(account.limit), label)


def extension(prompt: Prompt, scope: str, verdict: str) -> str:
    """Return the rule of an answer to a spent limit, in words."""
    if scope.startswith(EXTEND):
        return f"{verdict} {prompt.scopes[1].label} ({prompt.limit.partition(chr(9))[2]})"
    return f"{verdict} this act once beyond {prompt.limit.partition(chr(9))[2]}"
