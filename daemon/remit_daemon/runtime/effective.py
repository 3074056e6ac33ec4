"""What is in force for an agent, rule by rule, with how often each decided: gathered in a thread from the ledger."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from typing import TYPE_CHECKING, Any

from remit_daemon.broker.core import Refused
from remit_daemon.broker.scopes import rules_of
from remit_daemon.ledger.queries import hits
from remit_daemon.ledger.schema import open_reader
from remit_daemon.runtime.policies import SnapshotRefused, Subject, subject, subject_of
from remit_daemon.wire.rpc import CONFLICT, INVALID_PARAMS
from remit_policy.explain import rule_view
from remit_policy.model import ADMIN, GRANT, GUARD, PACK, PROJECT, USER

if TYPE_CHECKING:
    from remit_daemon.runtime.daemon import Daemon

PAST = 30 * 86400.0
WITHIN = 5.0  # seconds for counting
_ORDER = (GUARD, ADMIN, PROJECT, USER, PACK, GRANT)


async def of(daemon: Daemon, agent: str, project: str) -> dict[str, Any]:
    """Return the wire's answer to ``policy.effective``. Raises Refused."""
    if project and not project.startswith("/"):
        raise Refused(INVALID_PARAMS, "project must be absolute")
    whom = _subject(daemon, agent, project)
    try:
        snapshot = daemon.policies.snapshot(whom)
    except SnapshotRefused as e:
        raise Refused(CONFLICT, str(e)) from None
    grants = [g for g in daemon.broker.state.grants.values() if g.agent == agent and not g.suspended]
    rules = [*snapshot.rules, *(rule for g in grants for rule in rules_of(g, snapshot.rules))]
    daemon.catch_up()
    since = daemon.clock() - PAST
    counted = await asyncio.to_thread(_count, daemon.ledger.path, agent, since)
    views = []
    for rule in sorted(rules, key=lambda r: _ORDER.index(r.layer)):
        n, at = (counted or {}).get(rule.source, (0, None))
        views.append({**rule_view(rule), "hits": n, "last": at})
    return {
        "agent": agent,
        "project": whom.project,
        "roles": daemon.policies.set.roles(agent, whom.exe, whom.sha256, whom.variables),
        "reads": snapshot.reads,
        "net_all": snapshot.net_all,
        "rules": views,
        "at_least": counted is None,
    }


def _subject(daemon: Daemon, agent: str, project: str) -> Subject:
    known = [s for s in daemon.broker.state.sessions.values() if s.agent == agent]
    if known and not project:
        return subject_of(known[-1])
    home = os.path.realpath(os.path.expanduser("~"))
    hello: dict[str, Any] = {
        "home": home, "project": project or home, "cwd": project or home, "tmpdir": "", "exe": "", "sha256": "", "hold": 0,
        "argv": [agent], "policy": [], "launch": [],
    }  # fmt: skip
    if known:
        hello |= {name: known[-1].hello[name] for name in ("exe", "sha256", "argv", "launch")}
    return subject(agent, hello)


def _count(path: str, agent: str, since: float) -> dict[str, tuple[int, float]] | None:
    """Return ``ledger.queries.hits``, None when that took too long."""
    end = time.monotonic() + WITHIN
    db = open_reader(path)
    db.set_progress_handler(lambda: time.monotonic() > end, 10_000)
    try:
        return hits(db, agent, since)
    except sqlite3.OperationalError:
        return None
    finally:
        db.close()
