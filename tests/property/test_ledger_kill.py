"""kill -9 of the journal's writer and of the ledger's, at any moment: no record is lost, none stands twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from fakes.ledger import Clock
from remit_daemon.ledger import store
from remit_daemon.ledger.queries import Filter, every
from remit_daemon.ledger.store import Ledger, SessionInfo
from remit_daemon.wire.journal import unpack

KILLS = 20

# Writes acts and their ends to a journal, as fast as a busy agent, until it is killed.
WRITER = """
import os, random, sys, time
sys.path[:0] = sys.argv[2:]
from fakes.ledger import act, count, done
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
number, waiting = 0, []
while True:
    number += 1
    if number % 9 == 0:
        os.write(fd, count(number, "read", 2))
    else:
        os.write(fd, act(number, path=f"/p/{number}"))
        waiting.append(number)
    if random.random() < 0.7:
        os.write(fd, done(waiting.pop(random.randrange(len(waiting)))) if waiting else b"")
    time.sleep(0.0002)
"""

# Takes in every journal of the directory, in small transactions, until it is killed.
READER = """
import os, sys
sys.path[:0] = sys.argv[2:]
from remit_daemon.ledger import store
store.CHUNK = 2000
store.CHECKPOINT_ROWS, store.CHECKPOINT_GAP_NS = 50, 1_000_000
ledger = store.Ledger(sys.argv[1] + "/ledger.db", key=sys.argv[1] + "/key")
print("ready", flush=True)
while True:
    for name in sorted(os.listdir(sys.argv[1])):
        if name.endswith(".journal"):
            ledger.ingest(store.SessionInfo(name, "agent"), sys.argv[1] + "/" + name)
"""


def spawn(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments, *filter(None, sys.path)], stdout=subprocess.PIPE, text=True
    )


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_no_row_is_lost_or_doubled(tmp_path: Path) -> None:
    chance = random.Random(4711)
    kills = 0
    round_ = 0
    while kills < KILLS:
        round_ += 1
        writer = spawn(WRITER, str(tmp_path / f"{round_:02}.journal"))
        for _ in range(2):  # two readers die over each writer, the last one after it
            reader = spawn(READER, str(tmp_path))
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0, 0.15))
            if kills % 3 == 1:
                kill(writer)
            kill(reader)
            kills += 1
        if writer.returncode is None:
            kill(writer)

    ledger = Ledger(str(tmp_path / "ledger.db"), key=str(tmp_path / "key"), clock=Clock(time.time_ns()))
    total = 0
    for name in sorted(os.listdir(tmp_path)):
        if not name.endswith(".journal"):
            continue
        session = SessionInfo(name, "agent")
        ledger.ingest(session, str(tmp_path / name))
        acts: dict[str, str] = {}
        counted = 0
        for fields, _ in unpack((tmp_path / name).read_bytes()):
            if fields[0] == "act":
                acts[fields[10]] = "pending"
            elif fields[0] == "done":
                acts[f"/p/{fields[1]}"] = fields[3]
            else:
                counted += int(fields[4])
        rows = [row for row in every(ledger._db, Filter(session=name)) if row.op != "damage"]
        assert [row.path for row in rows] == list(acts)
        assert [row.outcome for row in rows] == list(acts.values())
        assert ledger.counts(name).get("read", 0) == counted
        total += len(rows)
    assert total > 100
    assert ledger.query(Filter(op="damage")) == []
    report = ledger.verify()
    assert report.errors == []
    assert report.checkpoints > 1
    ledger.close()
    assert store.CHUNK > 2000  # the small one was the children's alone
