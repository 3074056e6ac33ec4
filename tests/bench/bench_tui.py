"""The screen's start: from its command to the first picture, and to the first one with what remitd says.

A remitd of its own has a ledger of REMIT_BENCH_ROWS rows (200,000 unless told). ``textual alone`` is the first picture of a
program that only imports textual and shows a word: what no program with it can be under.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time

from bench_ledger import fill

STARTS = 9
LIMIT = 20.0  # s in which a start must have shown something
_ALONE = "from textual.app import App\nfrom textual.widgets import Static\nclass A(App):\n def compose(self): yield Static('F1 Prompts no prompt waits no agent runs')\nA().run()"


def _start(argv: list[str], env: dict[str, str], *wanted: bytes) -> list[float]:
    """Run ``argv`` on a new terminal of 80x24; return when each of ``wanted`` had been drawn, in seconds."""
    began = time.perf_counter()
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(argv[0], argv, env | {"TERM": "xterm-256color"})
    try:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        drawn, times = b"", dict.fromkeys(wanted, 0.0)
        while not all(times.values()):
            if time.perf_counter() - began > LIMIT or not select.select([terminal], [], [], LIMIT)[0]:
                raise RuntimeError(f"nothing was shown in {LIMIT} s")
            drawn += os.read(terminal, 1 << 16)
            for text, when in times.items():
                if not when and text in drawn:
                    times[text] = time.perf_counter() - began
        return list(times.values())
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def rows() -> list[tuple[str, str]]:
    """Return what was measured, median of STARTS after one that does not count."""
    total = int(os.environ.get("REMIT_BENCH_ROWS", "200000"))
    directory = tempfile.mkdtemp(prefix="remit-bench-")
    env = dict(os.environ)
    for name in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
        env[name] = f"{directory}/{name.lower()}"
        os.makedirs(env[name] + "/remit", 0o700)
        os.chmod(env[name], 0o700)
    remit = [sys.executable, "-m", "remit_daemon.cli.main"]
    ledger = fill(env["XDG_STATE_HOME"] + "/remit", total, "ledger.key")[0]
    ledger.close()
    daemon = subprocess.Popen([*remit, "daemon"], env=env, stderr=subprocess.DEVNULL)
    try:
        while not os.path.exists(env["XDG_RUNTIME_DIR"] + "/remit/approver.sock"):
            if daemon.poll() is not None:
                raise RuntimeError("remitd ended")
            time.sleep(0.02)
        shown = [_start([*remit, "tui"], env, b"F1 Prompts", b"no agent runs") for _ in range(STARTS + 1)]
        alone = [_start([sys.executable, "-c", _ALONE], env, b"F1 Prompts") for _ in range(STARTS + 1)]
    finally:
        daemon.terminate()
        daemon.wait()
        shutil.rmtree(directory, ignore_errors=True)
    first, known, least = (
        statistics.median(t[i] for t in some[1:]) for some, i in ((shown, 0), (shown, 1), (alone, 0))
    )
    return [
        ("tui: first picture", f"{first * 1e3:.0f} ms; textual alone {least * 1e3:.0f} ms"),
        (f"tui: first picture of what remitd says, {total:,} rows behind it", f"{known * 1e3:.0f} ms"),
    ]


if __name__ == "__main__":
    for what, figure in rows():
        print(f"{what:64} {figure}")
