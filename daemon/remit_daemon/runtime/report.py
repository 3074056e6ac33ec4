"""What a session did, for a person: gathered in a thread, on a reader's connection."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import TYPE_CHECKING, Any

from remit_daemon.broker.core import Refused
from remit_daemon.ledger.report import build, few_lines
from remit_daemon.ledger.schema import LedgerError, open_reader
from remit_daemon.wire.escape import escape
from remit_daemon.wire.rpc import NOT_FOUND
from remit_daemon.wire.words import span

if TYPE_CHECKING:
    from remit_daemon.runtime.daemon import Daemon

log = logging.getLogger("remitd")

WITHIN = 10.0  # seconds for a report that was asked for
FAREWELL_WITHIN = 0.3  # seconds for the few lines at the end, for which a shell's prompt waits


async def of(daemon: Daemon, session: str) -> dict[str, Any]:
    """Return the wire Report of ``session``. Raises Refused when nothing is known of it, LedgerError."""
    daemon.catch_up(session)
    found = await asyncio.to_thread(_build, daemon.ledger.path, session, WITHIN)
    known = daemon.broker.state.sessions.get(session)
    if known is None and found["first"] is None:
        raise Refused(NOT_FOUND, f"no session {session}")
    return {
        "session": session,
        "agent": known.agent if known else "",
        "project": known.project if known else "",
        "argv": list(known.argv) if known else [],
        "started": known.started if known else found["first"],
        "ended": known.ended if known else found["last"],
        "status": known.status if known else None,
        **found,
    }


def _build(path: str, session: str, within: float) -> dict[str, Any]:
    db = open_reader(path)
    try:
        return build(db, session, within)
    except sqlite3.Error as e:
        raise LedgerError(f"cannot read the ledger {path}: {e}") from None
    finally:
        db.close()


async def farewell(daemon: Daemon, session: str) -> str:
    """Return what is said on the terminal when ``session`` has ended: some lines, or "" when nothing is worth saying."""
    known = daemon.broker.state.sessions.get(session)
    try:
        found = await asyncio.to_thread(_build, daemon.ledger.path, session, FAREWELL_WITHIN)
    except LedgerError as e:
        log.error("%s", e)
        return ""
    said = few_lines(found, escape)
    if not said or known is None:
        return ""
    took = span((known.ended or daemon.clock()) - known.started)
    first = f"session {session} of {escape(known.agent)}, {took}"
    return "\n".join([f"{first}: {said[0]}", *said[1:], f"`remit session show {session}` says more"])
