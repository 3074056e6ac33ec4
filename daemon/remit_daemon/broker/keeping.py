"""What becomes of a grant after it was given: a person keeps, narrows or extends it, time suspends and removes it.

Pure: each function takes a grant and the time and returns the grant as it is then. A narrowed grant covers nothing that it
did not cover before; an extended one ends within MAX_ALWAYS from now. Who looks at a grant, for whatever reason, has
reviewed it: that is as good as a use against its being suspended.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from remit_daemon.broker.events import Refused
from remit_daemon.broker.records import TOKEN, Grant
from remit_daemon.broker.scopes import exec_tokens, grant_within, literal
from remit_daemon.broker.views import grant_scope, grant_view
from remit_daemon.wire.rpc import CONFLICT, INVALID_PARAMS
from remit_policy.match import PatternError

DAY = 86400.0
MAX_ALWAYS = 365 * DAY  # a person is asked once a year at least
SUSPEND_AFTER = 30 * DAY  # unused and not looked at: not in force until a person says so
REMOVE_AFTER = 90 * DAY
REVIEW_EVERY = 30 * DAY


def idle_since(grant: Grant) -> float:
    """Return when ``grant`` was last used, or looked at by a person, or given."""
    return max(grant.created, grant.last_used or 0.0, grant.reviewed or 0.0)


def fate(grant: Grant, now: float) -> str:
    """Return what time does to ``grant`` at ``now``: expired, removed, suspended, or "" for nothing."""
    idle = now - idle_since(grant)
    if grant.expires is not None and grant.expires <= now:
        return "expired"
    if idle > REMOVE_AFTER:
        return "removed"
    return "suspended" if idle > SUSPEND_AFTER and not grant.suspended else ""


def is_due(grant: Grant, now: float) -> bool:
    """Tell whether a person has not looked at ``grant`` for long, or it was suspended."""
    return grant.suspended or now - max(grant.created, grant.reviewed or 0.0) > REVIEW_EVERY


def kept(grant: Grant, now: float) -> Grant:
    """Return ``grant`` as a person who looked at it keeps it: in force."""
    return replace(grant, reviewed=now, suspended=False)


def narrowed(grant: Grant, scope: str, home: str, now: float) -> Grant:
    """Return ``grant`` for ``scope`` (``~/`` is ``home``) alone. Raises Refused when that is not within what it covers."""
    if TOKEN in grant.ops:
        raise Refused(CONFLICT, f"grant {grant.id} is for one token exactly: nothing is narrower")
    if scope.startswith("~/"):
        scope = home + scope[1:]
    whole = grant_scope(grant)
    if len(grant.patterns) > 1:
        raise Refused(CONFLICT, f"grant {grant.id} is for two paths exactly: nothing is narrower")
    if scope == whole:
        raise Refused(CONFLICT, f"grant {grant.id} has this scope already")
    if not grant_within(grant, whole, scope):
        raise Refused(INVALID_PARAMS, f"the scope is not within that of grant {grant.id}")
    patterns: tuple[str, ...] = (scope,)
    tokens = grant.argv
    if grant.argv is not None:
        patterns = grant.patterns
        try:
            tokens = exec_tokens(scope, literal(grant.patterns[0]))
        except PatternError as e:
            raise Refused(INVALID_PARAMS, f"{e}; expected {e.expected}") from None
    return replace(kept(grant, now), patterns=patterns, argv=tokens, narrowed=now)


def extended(grant: Grant, seconds: int, now: float) -> Grant:
    """Return ``grant`` until ``seconds`` from now. Raises Refused when it would not end later so."""
    if not 0 < seconds <= MAX_ALWAYS:
        raise Refused(INVALID_PARAMS, "a time is between one second and 365 days")
    if grant.expires is None:
        raise Refused(CONFLICT, f"grant {grant.id} ends with its session")
    if now + seconds <= grant.expires:
        raise Refused(CONFLICT, f"grant {grant.id} lasts longer than that already")
    return replace(kept(grant, now), expires=now + seconds, duration=str(seconds))


def rules_differ(old: Grant, new: Grant) -> bool:
    """Tell whether what is in force changes when ``new`` takes the place of ``old``."""
    return (old.patterns, old.argv, old.suspended) != (new.patterns, new.argv, new.suspended)


def entry_of(grant: Grant, op: str, actor: str, outcome: str) -> dict[str, Any]:
    """Return the ledger's row for what ``actor`` or time did to ``grant``."""
    return {
        "actor": actor, "op": op, "agent": grant.agent, "session": grant.session, "outcome": outcome,
        "rule": f"grant:{grant.id}", "note": grant_view(grant)["rule"],
    }  # fmt: skip


def change_of(old: Grant, new: Grant) -> dict[str, Any]:
    """Return the row for a person's change of ``old`` into ``new``."""
    if (old.patterns, old.argv) != (new.patterns, new.argv):
        outcome = "narrowed"
    elif old.expires != new.expires:
        outcome = "extended"
    else:
        outcome = "resumed" if old.suspended else "kept"
    entry = entry_of(new, "grant", "human", outcome)
    if outcome in ("narrowed", "extended"):
        entry["note"] = f"{grant_view(old)['rule']} -> {entry['note']}"
    return entry


def told(grant: Grant, change: str) -> dict[str, Any]:
    """Return what watchers are told of a grant that changed."""
    return {**grant_view(grant), "change": change}
