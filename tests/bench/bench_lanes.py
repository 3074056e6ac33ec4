"""The person's lane: how long ``approver.sock`` takes while agents flood remitd, beside an idle one, in one run.

The flood is of everything that an agent can cause: questions (each of another file), journals that grow, calls of agent.sock
sent without waiting for their answers. ``rows()`` gives (what, figure) pairs for the table; run as a program it prints them.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fakes.machine import Machine
from fakes.supervisor import FakeSupervisor, RpcError

CALLS = int(os.environ.get("REMIT_BENCH_CALLS", "300"))  # of each kind, idle and in the flood
FLOODS = 2  # sessions at once
PAUSE = 0.004  # seconds between a person's calls: they come one at a time
KINDS = ("status", "grants", "sessions", "answer")


def flood(kind: str, project: str) -> None:
    """Be one session that floods until killed. ``kind`` is asks, journal, agent or all."""
    from remit_daemon.wire.frames import encode
    from remit_daemon.wire.journal import pack
    from remit_daemon.wire.paths import find

    paths = find()
    sup = FakeSupervisor(paths, project)
    if sup.connect()["type"] != "welcome":
        raise SystemExit("remitd does not take the session")
    sup.sock.setblocking(False)
    lines = {}
    for _ in range(4 if kind in ("agent", "all") else 0):
        line = socket.socket(socket.AF_UNIX)
        line.connect(paths.agent)
        line.setblocking(False)
        lines[line] = b""
    request = b'{"jsonrpc":"2.0","id":1,"method":"denials","params":{"limit":20}}\n' * 20
    number = act = 0
    out = b""
    journal = os.open(f"{paths.spool}/{sup.session}.journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    print("flooding", flush=True)
    while True:
        if kind in ("asks", "all") and len(out) < 1 << 18:
            for _ in range(20):
                number += 1
                ask = {
                    "type": "ask", "seq": number, "ops": ["read"], "path": f"{project}-not/{number}", "path2": "",
                    "pid": 1, "proc": "1", "exe": "/x", "comm": "x", "argv": [], "source": "default", "count": 1,
                    "costs": [], "short": False,
                }  # fmt: skip
                out += encode(ask)
        if kind in ("journal", "all") and act < 2_000_000:
            chunk = []
            for _ in range(200):
                act += 1
                chunk.append(
                    pack(["act", str(act), str(time.time_ns()), "write", "allow", "passed", "1", "1", "/usr/bin/x",
                          "", f"{project}/f{act % 997}", "", "", "", ""])
                )  # fmt: skip
            os.write(journal, b"".join(chunk))
            out += encode({"type": "poke"}) if len(out) < 1 << 18 else b""
        try:
            if out:
                out = out[sup.sock.send(out) :]
        except BlockingIOError:
            pass
        for sock in (sup.sock, *lines):
            try:
                while sock.recv(1 << 16):
                    pass
            except BlockingIOError:
                pass
        for line, rest in lines.items():
            try:
                lines[line] = rest = rest or request
                lines[line] = rest[line.send(rest) :]
            except BlockingIOError:
                pass
        time.sleep(0.005)


def _percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


class Asker:
    """A session of its own, in a process of its own, whose questions the person answers."""

    def __init__(self, machine: Machine) -> None:
        self._project = machine.project
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fakes.supervisor", machine.root + "/elsewhere"],
            cwd=Path(__file__).resolve().parents[1], env=machine.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._heard("welcome")

    def _heard(self, kind: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        frame: dict[str, Any] = json.loads(self.process.stdout.readline())
        if frame["type"] != kind:
            raise RuntimeError(f"{frame} in place of {kind}")
        return frame

    def prompts(self) -> list[str]:
        """Return open prompts to be answered."""
        assert self.process.stdin is not None
        out = []
        for number in range(min(CALLS, 90)):
            self.process.stdin.write(f"{self._project}/mine{number}\n".encode())
            self.process.stdin.flush()
            out.append(self._heard("asked")["prompt"])
        return out


def ended(*processes: subprocess.Popen[bytes]) -> None:
    """End sessions."""
    for one in processes:
        one.kill()
        one.wait()


def measure(machine: Machine, prompts: list[str]) -> dict[str, list[float]]:
    """Return the seconds that calls of a person took, by kind."""
    person = machine.person()
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(CALLS):
        for kind in KINDS:
            params = {}
            if kind == "answer":
                if not prompts:
                    continue
                params = {"id": prompts.pop(), "verdict": "deny", "for_": "once"}
            time.sleep(PAUSE)
            start = time.perf_counter()
            try:
                person.call(kind, **params)
            except RpcError as e:
                raise RuntimeError(f"{kind}: {e}") from None
            found[kind].append(time.perf_counter() - start)
    return found


def rows(kinds: tuple[str, ...] = ("asks", "journal", "agent", "all")) -> list[tuple[str, str]]:
    """Measure an idle daemon, and then one under each kind of flood."""
    out = []
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as root:
        machine = Machine(root)
        machine.start()
        try:
            asker = Asker(machine)
            idle = measure(machine, asker.prompts())
            ended(asker.process)
            for flooding in kinds:
                asker = Asker(machine)
                prompts = asker.prompts()
                floods = [
                    subprocess.Popen(
                        [sys.executable, __file__, "--flood", flooding, f"{root}/p{n}"], env=machine.env,
                        stdout=subprocess.PIPE,
                    )
                    for n in range(FLOODS)
                ]  # fmt: skip
                try:
                    for one in floods:
                        assert one.stdout is not None
                        if one.stdout.readline() != b"flooding\n":
                            raise RuntimeError("a flood did not begin")
                    busy = measure(machine, prompts)
                    if any(one.poll() is not None for one in floods):
                        raise RuntimeError("a flood ended")
                finally:
                    ended(asker.process, *floods)
                for kind in KINDS:
                    a, b = (_percentile(x[kind], 0.99) for x in (idle, busy))
                    c, d = (_percentile(x[kind], 0.5) for x in (idle, busy))
                    out.append(
                        (
                            f"lanes: {kind} while {flooding} flood",
                            f"p99 {b / a:.2f}x idle ({a * 1e3:.2f} -> {b * 1e3:.2f} ms), p50 {d / c:.2f}x"
                            f" ({c * 1e3:.2f} -> {d * 1e3:.2f} ms)",
                        )
                    )
        finally:
            machine.stop()
    return out


if __name__ == "__main__":
    if sys.argv[1:2] == ["--flood"]:
        flood(*sys.argv[2:])
    else:
        for what, figure in rows(tuple(sys.argv[1:]) or ("asks", "journal", "agent", "all")):
            print(f"{what:44} {figure}")
