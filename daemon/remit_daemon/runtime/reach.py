"""How far an answer would reach, looked up in a thread: in the ledger's last month, and on the disk.

Both looks are bounded in entries and in time, and say so when they were cut: the person waits for them.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from typing import TYPE_CHECKING, Any

from remit_daemon.broker import events as ev
from remit_daemon.broker.core import Refused
from remit_daemon.broker.reach import Count, Trial
from remit_daemon.broker.records import Grant
from remit_daemon.broker.views import meaning
from remit_daemon.ledger.queries import recent_acts
from remit_daemon.ledger.schema import open_reader
from remit_daemon.runtime.policies import SnapshotRefused, subject_of
from remit_daemon.wire.rpc import CONFLICT

if TYPE_CHECKING:
    from remit_daemon.runtime.daemon import Daemon

MAX_ENTRIES = 50_000  # directory entries, or rows
WITHIN = 0.4  # seconds for each of the two looks: longer, and a person goes on without
PAST = 30 * 86400.0


async def reach(daemon: Daemon, prompt: str, scope: str) -> dict[str, Any]:
    """Return the wire's answer to ``reach``: what else ``scope`` ("" the narrowest) of ``prompt`` would permit.

    Raises Refused as ``preview`` would, LedgerError.
    """
    shown = daemon.broker.preview(ev.Answer(prompt, "allow", "always", scope))
    asked = daemon.broker.state.prompts[prompt]
    ops, patterns, tokens = meaning(asked, shown["scope"])
    session = daemon.broker.state.sessions[asked.session]
    base = daemon.broker.state.bases.get(session.id)
    try:
        base = base or daemon.policies.snapshot(subject_of(session))
    except SnapshotRefused as e:
        raise Refused(CONFLICT, str(e)) from None
    grant = Grant("g0", asked.agent, "", ops, patterns, "allow", "always", 0.0, None, argv=tokens)
    trial = Trial(grant, base.rules)
    since = daemon.clock() - PAST
    daemon.catch_up()
    past, disk = await asyncio.to_thread(_look, trial, daemon.ledger.path, since)
    return {
        "scope": shown["scope"],
        "rule": shown["rule"],
        "ledger": past.view(),
        "disk": disk.view() if disk else None,
    }


def _look(trial: Trial, ledger: str, since: float) -> tuple[Count, Count | None]:
    top = trial.top()
    return in_ledger(trial, ledger, since), below(trial, top) if top else None


def in_ledger(trial: Trial, path: str, since: float) -> Count:
    """Return the acts of the agent after ``since`` that ``trial`` would have permitted. Raises LedgerError."""
    count = Count()
    top, end = trial.top(), time.monotonic() + WITHIN
    db = open_reader(path)
    db.set_progress_handler(lambda: time.monotonic() > end, 10_000)
    single = trial.grant.patterns[0] if trial.grant.argv is not None else ""
    try:
        rows = recent_acts(db, trial.grant.agent, trial.ops, since, top or os.path.dirname(single))
        for number, (op, resource, argv) in enumerate(rows):
            if number >= MAX_ENTRIES:
                count.at_least = True
                break
            if trial.covers(op, resource, argv):
                count.add(resource)
    except sqlite3.OperationalError:  # interrupted
        count.at_least = True
    finally:
        db.close()
    count.examples = list(dict.fromkeys(count.examples))
    return count


def below(trial: Trial, top: str) -> Count:
    """Return the files below ``top`` that ``trial`` would permit. Links are not followed."""
    count = Count()
    end = time.monotonic() + WITHIN
    todo, seen = [top], 0
    while todo:
        directory = todo.pop()
        try:
            entries = os.scandir(directory)
        except OSError:
            continue  # what we may not list, an agent of ours may not either
        with entries:
            for entry in entries:
                seen += 1
                if seen > MAX_ENTRIES or (seen % 64 == 0 and time.monotonic() > end):
                    count.at_least = True
                    return count
                try:
                    directory_itself = entry.is_dir(follow_symlinks=False)
                except OSError:
                    continue
                if directory_itself:
                    todo.append(entry.path)
                elif any(trial.covers(op, entry.path) for op in trial.grant.ops):
                    count.add(entry.path, trial.kind(entry.path))
    return count
