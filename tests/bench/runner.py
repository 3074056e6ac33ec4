"""Time commands from inside a variant: the same program natively, under remit and under bubblewrap.

One JSON object a line on stdin, one in answer on stdout:
    {"argv": [...], "cwd": DIR, "env": {...}, "capture": bool}   {"seconds": s, "status": n, "out": text, "err": text}
    {"open": PATH}                                               {"at": CLOCK_MONOTONIC, "error": text}
So a session's start-up is no part of a workload's time, and the variants can be interleaved.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time


def run(order: dict) -> dict:
    with tempfile.TemporaryFile() as err:
        started = time.perf_counter()
        try:
            done = subprocess.run(
                order["argv"],
                cwd=order["cwd"],
                env=os.environ | order.get("env", {}),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if order.get("capture") else subprocess.DEVNULL,
                stderr=err,
                check=False,
            )
        except OSError as e:
            return {"seconds": 0.0, "status": 127, "out": "", "err": str(e)}
        seconds = time.perf_counter() - started
        err.seek(0)
        tail = err.read()[-2000:].decode(errors="replace")
    return {
        "seconds": seconds,
        "status": done.returncode,
        "out": (done.stdout or b"").decode(),
        "err": tail,
    }


def open_once(path: str) -> dict:
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as e:
        return {"at": time.monotonic(), "error": str(e)}
    return {"at": time.monotonic(), "error": ""}


def main() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        order = json.loads(line)
        answer = open_once(order["open"]) if "open" in order else run(order)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


main()
