"""A person's directories and the real daemon in them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from fakes.supervisor import FakePerson, FakeSupervisor
from remit_daemon.wire.paths import Paths, find


class Machine:
    """A person's directories and their daemon."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.project = root + "/project"
        self.env = dict(os.environ) | {
            "HOME": root + "/home",
            "XDG_CONFIG_HOME": root + "/config",
            "XDG_STATE_HOME": root + "/state",
            "XDG_RUNTIME_DIR": root + "/run",
        }
        for name in ("home", "config", "state", "run", "project"):
            os.makedirs(f"{root}/{name}", 0o700, exist_ok=True)
        self.paths: Paths = find(self.env)
        self.process: subprocess.Popen[bytes] | None = None
        self.open: list[Any] = []

    def start(self) -> None:
        with open(self.root + "/log", "ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "remit_daemon.runtime"], env=self.env, stdout=out, stderr=out
            )
        until(lambda: self._answers(), "the daemon answers")

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(self.paths.approver)
        except OSError:
            return False
        return True

    def kill(self, number: int = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(10)

    def person(self) -> FakePerson:
        found = FakePerson(self.paths.approver)
        self.open.append(found)
        return found

    def supervisor(self, **hello: Any) -> FakeSupervisor:
        found = FakeSupervisor(
            self.paths, self.root + "/elsewhere", **({"home": self.root + "/home"} | hello)
        )
        self.open.append(found)
        return found

    def policy(self, text: str) -> None:
        os.makedirs(self.paths.config + "/policy.d", exist_ok=True)
        with open(self.paths.config + "/policy.d/test.toml", "w") as f:
            f.write(text)

    def log(self) -> str:
        with open(self.root + "/log") as f:
            return f.read()

    def stop(self) -> None:
        for thing in self.open:
            try:
                thing.close()
            except AttributeError:
                pass  # never connected
        if self.process is not None and self.process.poll() is None:
            assert self.kill(signal.SIGTERM) == 0, self.log()
        assert "Traceback" not in self.log(), self.log()


def until(what: Callable[[], object], text: str, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"not in time: {text}"
        time.sleep(0.02)
