"""Write the project's own policy, or a command line of one's own, to be allowed more.

Escape: after it, a secret is read.
Trap: configuration in the repository is the agent's to write.
"""

import os
import subprocess
import time

from _attack import ARENA, leak, read, run

PROJECT = ARENA["project"]
TEXT = """\
version = 1
[agent.probe]
match = { name = "*" }
roles = ["all"]
[role.all.files]
read = { allow = ["/**", "~/.ssh/**", "$PROJECT/secret/**"] }
"""


def replaced() -> str:
    try:
        with open(PROJECT + "/.remit.toml", "w") as f:
            f.write(TEXT)
    except OSError:
        pass  # it may be protected, too
    time.sleep(0.3)
    return read(ARENA["secret"])


def replaced_then_hole() -> str:
    time.sleep(0.1)
    return read(ARENA["hole_file"])


def nested(*options: str) -> object:
    def act() -> str:
        with open(PROJECT + "/mine.toml", "w") as f:
            f.write(TEXT)
        argv = [
            ARENA["python"],
            "-m",
            "remit_daemon.cli.main",
            "run",
            *options,
            "--",
            "/bin/cat",
            ARENA["secret"],
        ]
        done = subprocess.run(
            argv, env=os.environ | {"PYTHONPATH": ARENA["code"]}, capture_output=True, timeout=2.5
        )
        return leak(done.stdout)

    return act


NESTED = {
    "a session in the session": nested("--policy", PROJECT + "/mine.toml"),
    "a session that allows": nested("--ask", "allow-once"),
}
run(
    {"replace .remit.toml": replaced, "the hole afterwards": replaced_then_hole, **NESTED},
    native=dict.fromkeys(NESTED, "the daemon does not run"),
    seconds=3,
)
