"""Type into the terminal that the session shares with the person.

Escape: the injecting call is accepted.
Trap: TIOCSTI by any descriptor of the terminal; request numbers whose high half a 64-bit comparison sees
and the kernel does not.
Harness: pty
"""

import ctypes
import os

from _attack import call, run

TIOCSTI, TIOCLINUX = 0x5412, 0x541C
CHAR = ctypes.create_string_buffer(b"x", 1)


def inject(request: int, opening: str = "") -> object:
    def act() -> str:
        fd = os.open(opening, os.O_RDWR) if opening else 0
        call("ioctl", fd, request, CHAR)
        return "a character was typed"

    return act


run(
    {
        "TIOCSTI": inject(TIOCSTI),
        "TIOCSTI with high bits": inject(TIOCSTI | 1 << 32),
        "TIOCSTI, sign-extended": inject(TIOCSTI | ~0xFFFFFFFF),
        "TIOCSTI on /dev/tty": inject(TIOCSTI, "/dev/tty"),
        "TIOCSTI on /proc/self/fd/0": inject(TIOCSTI, "/proc/self/fd/0"),
        "TIOCLINUX": inject(TIOCLINUX),
    },
    native={"TIOCLINUX": "a pseudo-terminal has no console"},
)
