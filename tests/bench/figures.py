"""Figures that are no ratio of a workload: start-up, memory, the way from an answer to the resumed call."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from variants import Unavailable, Variant

ANSWERS = 20  # prompts answered for one latency figure
SEEN = 5.0  # seconds within which an ask must have become a prompt


def seconds_of(argv: list[str], cwd: Path) -> float:
    started = time.perf_counter()
    done = subprocess.run(argv, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise Unavailable(
            done.stderr.decode(errors="replace").strip()[-300:] or f"status {done.returncode}"
        )
    return seconds


class Approver:
    """A person's connection to remitd: JSON-RPC, a line each (see remit_daemon.wire.rpc)."""

    def __init__(self) -> None:
        from remit_daemon.wire import paths

        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(paths.find().approver)
        except OSError as e:
            raise Unavailable(f"remitd cannot be reached: {e.strerror}") from None
        self._file = self._socket.makefile("rwb")
        self._id = 0

    def call(self, method: str, **params: object) -> dict:
        self._id += 1
        order = {"jsonrpc": "2.0", "id": self._id, "method": method, "params": params}
        self._file.write(json.dumps(order).encode() + b"\n")
        self._file.flush()
        for line in self._file:
            answer = json.loads(line)
            if answer.get("id") == self._id:
                if "error" in answer:
                    raise Unavailable(f"{method}: {answer['error']['message']}")
                return answer["result"]
        raise Unavailable("remitd closed the connection")


def memory(pid: int) -> str:
    """Return a process's resident and proportional memory as text."""
    values = {}
    for name, key in (("status", "VmRSS:"), ("smaps_rollup", "Pss:")):
        try:
            for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
                if line.startswith(key):
                    values[key[:-1]] = int(line.split()[1]) / 1024
        except OSError:
            continue
    return ", ".join(f"{k} {v:.1f} MB" for k, v in values.items()) or "unreadable"


def memory_rows(supervised: Variant | None) -> list[tuple[str, str, str]]:
    """Return name, figure and promise for the supervisor of ``supervised`` and for remitd."""
    rows = []
    if supervised:
        rows.append(("supervisor, after the workloads", memory(supervised.pid), "<= 20 MB"))
        rows.append(("remitd, after the workloads", memory(Approver().call("status")["pid"]), "<= 80 MB"))
    return rows


def latency_rows(remit: str, python: str, project: Path) -> list[tuple[str, str, str]]:
    """Hold reads, answer each as a person would, and time from the answer to the call's return."""
    # Outside the project, and not in a temporary directory that a session may have as its own.
    with tempfile.TemporaryDirectory(prefix="remit-bench-asked.", dir=project.parent) as directory:
        wrap = [remit, "run", "--agent", "bench-asks", "--project", str(project), "--ask", "prompt", "--"]
        variant = Variant("prompt", wrap, python, project)
        variant.start()
        try:
            approver = Approver()
            times = []
            for i in range(ANSWERS):
                path = os.path.join(directory, f"file{i}")
                Path(path).write_text("asked for\n")
                variant.ask({"open": path})
                prompt = _wait_for(approver, path)
                answered = time.monotonic()
                approver.call("answer", id=prompt, verdict="allow", **{"for": "once"})
                answer = variant.answer(limit=30)
                if answer["error"]:
                    raise Unavailable(f"allowed, and yet: {answer['error']}")
                times.append((answer["at"] - answered) * 1000)
        finally:
            variant.stop()
    middle, worst = statistics.median(times), max(times)
    return [("answer to resumed call", f"{middle:.1f} ms (worst of {ANSWERS}: {worst:.1f})", "<= 20 ms")]


def _wait_for(approver: Approver, path: str) -> str:
    until = time.monotonic() + SEEN
    while time.monotonic() < until:
        for prompt in approver.call("prompts"):
            if prompt["path"] == path:  # type: ignore[index]
                return prompt["id"]  # type: ignore[index]
        time.sleep(0.005)
    raise Unavailable(f"no prompt came for {path}")
