"""What a session learnt, made into rules that a person may accept: the ledger's rows, and the policy as it is now."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from remit_daemon.broker.core import Refused
from remit_daemon.ledger.queries import learnt
from remit_daemon.ledger.schema import LedgerError, open_reader
from remit_daemon.runtime.policies import SnapshotRefused, subject_of
from remit_daemon.wire.rpc import CONFLICT, NOT_FOUND
from remit_policy.engine import Engine
from remit_policy.model import ALLOW, Snapshot
from remit_policy.suggest import Act, suggest

if TYPE_CHECKING:
    from remit_daemon.runtime.daemon import Daemon

MAX_PROPOSALS = 200  # to be answered one by one: more is no learning but a policy to be written by hand


async def proposals(daemon: Daemon, session: str) -> dict[str, Any]:
    """Return the wire's answer to ``learn``. Raises Refused, LedgerError."""
    known = daemon.broker.state.sessions.get(session)
    if known is None:
        raise Refused(NOT_FOUND, f"no session {session}")
    try:
        policy = daemon.policies.snapshot(subject_of(known))
    except SnapshotRefused as e:
        raise Refused(CONFLICT, str(e)) from None
    daemon.catch_up(session)
    home = known.hello["home"]
    found, left = await asyncio.to_thread(_suggest, daemon.ledger.path, session, policy, home)
    return {
        "session": session,
        "agent": known.agent,
        "home": home,
        "project": known.project,
        "proposals": found,
        "left": left,
    }


def _suggest(path: str, session: str, policy: Snapshot, home: str) -> tuple[list[dict[str, Any]], int]:
    db = open_reader(path)
    try:
        acts = learnt(db, session)
    except sqlite3.Error as e:
        raise LedgerError(f"cannot read the ledger {path}: {e}") from None
    finally:
        db.close()
    # What a rule allows by now is learnt already.
    engine = Engine(policy)
    acts = [act for act in acts if engine.decide(act[0], act[1]).verdict != ALLOW]
    found = suggest(acts, policy.rules, home)[:MAX_PROPOSALS]
    return [asdict(p) for p in found], _left(
        acts, Engine(Snapshot("", tuple(r for p in found for r in p.rules())))
    )


def _left(acts: Sequence[Act], engine: Engine) -> int:
    return sum(engine.decide(op, resource).verdict != ALLOW for op, resource, _ in acts)
