"""The variants that are compared, each a long-lived runner inside its confinement."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

START_LIMIT = 30.0  # seconds until a runner must have said that it is ready
ANSWER_LIMIT = 300.0  # seconds for one command

HERE = Path(__file__).resolve().parent

# What the workloads need, and nothing asked about: a prompt that nobody answers would be timed instead.
POLICY = """\
version = 1

[agent.bench]
match = {{ name = "bench*" }}
roles = ["bench"]

[role.bench]
reads = "{reads}"

[role.bench.files]
read = {{ allow = ["$PROJECT/**", "/usr/**", "/etc/**", "/lib/**", "/lib64/**", "/bin/**", "/opt/**"] }}
write = {{ allow = ["$PROJECT/**", "$TMPDIR/**"] }}
create = {{ allow = ["$PROJECT/**", "$TMPDIR/**"] }}
delete = {{ allow = ["$PROJECT/**", "$TMPDIR/**"] }}
metadata = {{ allow = ["$PROJECT/**", "$TMPDIR/**"] }}
execute = {{ allow = ["$PROJECT/**", "/usr/**", "/lib/**", "/lib64/**", "/bin/**", "/opt/**"] }}
"""


class Unavailable(Exception):
    """A variant cannot be measured here; the text says why."""


class Variant:
    """One runner: ``wrap`` is what stands before a command to confine it."""

    def __init__(self, name: str, wrap: list[str], python: str, project: Path) -> None:
        self.name = name
        self.wrap = wrap
        self._command = [*wrap, python, "-I", str(project / "runner.py")]
        self._project = project
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    def start(self) -> None:
        """Start the runner. Raises Unavailable with the program's own words when it does not come up."""
        try:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._project,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=(self._project.parent / f"{self.name}.err").open("wb"),
            )
        except OSError as e:
            raise Unavailable(str(e)) from None
        if self._line(START_LIMIT) != "ready":
            self.stop()
            raise Unavailable(self.complaint() or "its runner did not come up")

    def complaint(self) -> str:
        """Return the last lines that the variant wrote to standard error."""
        text = (self._project.parent / f"{self.name}.err").read_text(errors="replace")
        return " / ".join(text.strip().splitlines()[-3:])

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def ask(self, order: dict) -> None:
        assert self._process
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Unavailable(self.complaint() or "its runner has ended") from None

    def answer(self, limit: float = ANSWER_LIMIT) -> dict:
        line = self._line(limit)
        if not line:
            raise Unavailable(self.complaint() or "its runner gave no answer")
        return json.loads(line)

    def run(self, argv: list[str], **order: object) -> dict:
        self.ask({"argv": argv, "cwd": str(self._project)} | order)
        return self.answer()

    def _line(self, limit: float) -> str:
        assert self._process
        assert self._process.stdout
        fd = self._process.stdout.fileno()
        until = time.monotonic() + limit
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([fd], [], [], max(0.0, until - time.monotonic()))
            data = os.read(fd, 65536) if ready else b""
            if not data:
                return ""
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def stop(self) -> None:
        if not self._process:
            return
        assert self._process.stdin
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def all_variants(remit: str | None, python: str, project: Path) -> tuple[list[Variant], dict[str, str]]:
    """Return the variants that came up, native first, and for each other one why it is absent."""
    wraps: dict[str, list[str]] = {"native": []}
    absent: dict[str, str] = {}
    for reads in ("ask", "fixed"):
        if not remit:
            absent[reads] = "there is no `remit` beside this Python"
            continue
        policy = project.parent / f"{reads}.toml"
        policy.write_text(POLICY.format(reads=reads))
        wraps[reads] = [
            remit, "run", "--agent", "bench", "--project", str(project), "--policy", str(policy),
            "--ask", "deny", "--",
        ]  # fmt: skip
    if shutil.which("bwrap"):
        wraps["bwrap"] = [
            "bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp",
            "--bind", str(project), str(project), "--unshare-all", "--die-with-parent",
        ]  # fmt: skip
    else:
        absent["bwrap"] = "bubblewrap is not installed"
    variants = []
    for name, wrap in wraps.items():
        variant = Variant(name, wrap, python, project)
        try:
            variant.start()
        except Unavailable as e:
            absent[name] = str(e)
        else:
            variants.append(variant)
    return variants, absent
