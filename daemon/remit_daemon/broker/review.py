"""What a person should look at among the grants, and what would do in place of each. Pure.

Markers of a grant, each with a reason that a person can check:

    suspended       unused for long, and not in force until a person keeps it
    unused          never used in the week since it was given
    stale           not used for two weeks
    never-narrowed  broad, and all that it was ever used for lies in a narrower scope, which ``suffices``
    dead            what it is for is not there any more
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from posixpath import commonpath, dirname
from typing import Any

from remit_daemon.broker.keeping import DAY, is_due
from remit_daemon.broker.records import TOKEN, Grant
from remit_daemon.broker.scopes import exec_scope, grant_within, is_single, literal
from remit_daemon.broker.views import grant_scope, grant_view
from remit_policy.match import escape
from remit_policy.model import FILE_OPS
from remit_policy.resources import exact, is_path

STALE_AFTER = 14 * DAY
UNUSED_AFTER = 7 * DAY
NARROW_AFTER = 7 * DAY  # before that nobody knows what it will be used for
NARROW_USES = 3


@dataclass(frozen=True, slots=True)
class Use:
    """One thing that a grant was used for: the resource, for a program its arguments (argv[0] included)."""

    resource: str
    argv: tuple[str, ...] = ()


def is_broad(grant: Grant) -> bool:
    """Tell whether ``grant`` covers more than one thing; one for a token never does."""
    if TOKEN in grant.ops:
        return False
    if grant.argv is not None:
        return "**" in grant.argv
    return len(grant.patterns) == 1 and not is_single(grant.ops[0], grant.patterns[0])


def place(grant: Grant) -> str:
    """Return the file or directory without which ``grant`` is for nothing, "" when that cannot be said."""
    ops = set(grant.ops)
    if not ops <= {*FILE_OPS, "exec"} or not grant.patterns[0].startswith("/"):
        return ""
    head = literal(grant.patterns[0])
    if is_broad(grant) and grant.argv is None:
        return head.rpartition("/")[0] or "/"
    return dirname(head) if ops & {"create", "delete"} else head


def suffices(grant: Grant, used: Sequence[Use], now: float) -> str:
    """Return the narrowest scope that covers all of ``used`` when it is narrower than that of ``grant``, else ""."""
    since = grant.narrowed or grant.created
    if not is_broad(grant) or not used or grant.uses < NARROW_USES or now - since < NARROW_AFTER:
        return ""
    whole = grant_scope(grant)
    if grant.argv is not None:
        commands = {u.argv[1:] for u in used}
        if len(commands) != 1:
            return ""
        found = exec_scope(grant.patterns[0], [escape(a) for a in commands.pop()])
    else:
        found = _covering(grant.ops[0], sorted({u.resource for u in used}))
    return found if found and found != whole and grant_within(grant, whole, found) else ""


def _covering(op: str, used: list[str]) -> str:
    if len(used) == 1:
        return exact(op, used[0])
    if not all(is_path(op, p) and p.startswith("/") for p in used):
        return ""
    parents = {dirname(p) for p in used}
    if len(parents) > 1:
        return escape(commonpath(parents)) + "/**"
    (parent,) = parents
    endings = {
        p.rpartition("/")[2].rpartition(".")[2] if "." in p.rpartition("/")[2][1:] else "" for p in used
    }
    ending = endings.pop() if len(endings) == 1 else ""
    return f"{escape(parent)}/*.{escape(ending)}" if ending else escape(parent) + "/*"


def markers(grant: Grant, now: float, *, gone: bool, enough: str) -> tuple[str, ...]:
    """Return what is to be said of ``grant``: ``gone`` that its ``place`` is not there, ``enough`` what suffices."""
    found = []
    if grant.suspended:
        found.append("suspended")
    if grant.last_used is None:
        if now - grant.created > UNUSED_AFTER:
            found.append("unused")
    elif now - grant.last_used > STALE_AFTER:
        found.append("stale")
    if enough:
        found.append("never-narrowed")
    if gone:
        found.append("dead")
    return tuple(found)


def reviewed_view(grant: Grant, now: float, *, gone: bool, used: Sequence[Use]) -> dict[str, Any]:
    """Return the wire Grant with its markers, what would suffice, and whether a person should look at it."""
    enough = suffices(grant, used, now)
    found = markers(grant, now, gone=gone, enough=enough)
    fresh = grant.reviewed is not None and now - grant.reviewed < UNUSED_AFTER and not grant.suspended
    return {
        **grant_view(grant),
        "markers": list(found),
        "suffices": enough,
        "due": (bool(found) and not fresh) or is_due(grant, now),
    }
