"""Have a tmux server outside the session type a command for us.

Escape: the command ran outside (its file exists), or the server answers.
Trap: terminals, editors and multiplexers act for whoever reaches their socket.
"""

import os
import shutil
import subprocess
import time

from _attack import ARENA, ask_socket, run

SOCKET = ARENA["tmux"]
FLAG = ARENA["run"] + "/tmux-flag"


def tmux(*words: str) -> str:
    done = subprocess.run(["tmux", "-S", SOCKET, *words], capture_output=True, timeout=1.5)
    if done.returncode:
        raise OSError(111, done.stderr.decode())
    return done.stdout.decode()


def send_keys() -> str:
    tmux("send-keys", f"touch {FLAG}", "Enter")
    for _ in range(30):
        time.sleep(0.03)
        if os.path.exists(FLAG):
            return "the outside shell obeyed"
    return "keys were sent"


def run_shell() -> str:
    tmux("run-shell", f"touch {FLAG}")
    return "the server ran it"


def connects() -> str:
    import socket

    with socket.socket(socket.AF_UNIX) as s:
        s.connect(SOCKET)
        return "connected to the server"


WAYS = {
    "send-keys": send_keys,
    "run-shell": run_shell,
    "capture": lambda: tmux("capture-pane", "-p"),
    "connect": connects,
    "systemd's socket": lambda: ask_socket(ARENA["run"] + "/systemd/private"),
}
run(WAYS, native=dict.fromkeys(WAYS, "tmux is not installed") if not shutil.which("tmux") else {})
