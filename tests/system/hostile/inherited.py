"""Use what was open, or set, before the session began.

Escape: a descriptor beyond the standard three is open, the secret is read through one, or a variable
that makes loaders and interpreters run something is still set.
Trap: descriptors opened before the exec are not restricted by anything; start-up before the hand-off.
"""

import os

from _attack import leak, run

FDS = []
for n in sorted(int(n) for n in os.listdir("/proc/self/fd")):
    try:
        target = os.readlink(f"/proc/self/fd/{n}")
    except OSError:
        continue
    if n > 2 and not target.startswith(f"/proc/{os.getpid()}"):
        FDS.append((n, target))


def read_them() -> str:
    for n, _ in FDS:
        try:
            got = leak(os.pread(n, 4096, 0))
        except OSError:
            continue
        if got:
            return got
    return ""


def variables() -> str:
    names = [
        "LD_PRELOAD",
        "LD_BIND_NOW",
        "NODE_OPTIONS",
        "BUN_OPTIONS",
        "PYTHONSTARTUP",
        "BASH_ENV",
        "PERL5OPT",
    ]
    return " ".join(n for n in names if n in os.environ)


run(
    {
        "descriptor of the secret": read_them,
        "any descriptor": lambda: " ".join(f"{n}={t}" for n, t in FDS),
        "variables": variables,
    }
)
