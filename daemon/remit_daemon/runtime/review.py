"""The facts that a review of grants needs: what the ledger saw of each, and whether its place is still there.

Gathered in a thread of its own, on a reader's connection: a path may lie on a file system that hangs, and the loop is
where answers come from.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from remit_daemon.broker import keeping
from remit_daemon.broker.records import Grant
from remit_daemon.broker.review import Use, is_broad, place, reviewed_view
from remit_daemon.ledger.queries import uses_of
from remit_daemon.ledger.schema import LedgerError, open_reader

if TYPE_CHECKING:
    from remit_daemon.runtime.daemon import Daemon

WITHIN = 5.0  # seconds; a grant of which nothing could be learnt by then is shown without


async def grants(daemon: Daemon) -> list[dict[str, Any]]:
    """Return the wire Grants with their markers. Raises LedgerError."""
    daemon.catch_up()  # first: it counts their uses
    now = daemon.clock()
    held = [g for g in daemon.broker.state.grants.values() if g.expires is None or g.expires > now]
    try:
        async with asyncio.timeout(WITHIN):
            facts = await asyncio.to_thread(_facts, daemon.ledger.path, held)
    except TimeoutError:
        facts = {}
    views = []
    for grant in held:
        gone, used = facts.get(grant.id, (False, ()))
        view = reviewed_view(grant, now, gone=gone, used=used)
        views.append(view | {"withheld": daemon.broker.state.waits(grant)})
    return views


def _facts(path: str, grants: Sequence[Grant]) -> dict[str, tuple[bool, tuple[Use, ...]]]:
    found: dict[str, tuple[bool, tuple[Use, ...]]] = {}
    db = open_reader(path)
    try:
        for grant in grants:
            used: tuple[Use, ...] = ()
            if is_broad(grant) and grant.uses:
                acts = uses_of(db, f"grant:{grant.id}", grant.narrowed or grant.created)
                used = tuple(Use(path, argv) for path, argv in acts)
            where = place(grant)
            found[grant.id] = (bool(where) and not _is_there(where), used)
    except sqlite3.Error as e:
        raise LedgerError(f"cannot read the ledger {path}: {e}") from None
    finally:
        db.close()
    return found


def _is_there(path: str) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True  # it cannot be told, so nothing is said
    return True


def standing(daemon: Daemon) -> dict[str, int]:
    """Return how many grants a person should look at, as far as that is known without looking, and how many are suspended."""
    now = daemon.clock()
    held = daemon.broker.state.grants.values()
    return {
        "due": sum(keeping.is_due(g, now) for g in held),
        "suspended": sum(g.suspended for g in held),
    }
