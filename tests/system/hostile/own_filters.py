"""Bring filters and listeners of one's own, or become unreadable to the supervisor.

Escape: the secret is read afterwards.
Trap: a second listener that continues what the first would refuse; a process whose memory the supervisor
cannot read and whose calls are therefore waved through.
"""

import ctypes
import fcntl
import os
import struct
import threading

from _attack import ARENA, call, read, run

NOTIFY = 0x7FC00000
ALLOW = 0x7FFF0000


def load(instructions: bytes, flags: int) -> int:
    call("prctl", 38, 1, 0, 0, 0)
    code = ctypes.create_string_buffer(instructions, len(instructions))
    program = struct.pack("H6xQ", len(instructions) // 8, ctypes.addressof(code))
    return call("seccomp", 1, flags, program)


def listener() -> str:
    # notify open, openat: load nr; jump to the notify on a match
    nr = 257 if os.uname().machine == "x86_64" else 56
    body = struct.pack("HBBI", 0x20, 0, 0, 0) + struct.pack("HBBI", 0x15, 0, 1, nr)
    body += struct.pack("HBBI", 0x06, 0, 0, NOTIFY) + struct.pack("HBBI", 0x06, 0, 0, ALLOW)
    got: list[str] = []

    def opener() -> None:
        fd.append(load(body, 8))
        ready.set()
        try:
            got.append(read(ARENA["secret"]))
        except OSError as e:
            got.append("")
            failed.append(e)

    fd: list[int] = []
    failed: list[OSError] = []
    ready = threading.Event()
    t = threading.Thread(target=opener, daemon=True)
    t.start()
    if not ready.wait(0.7):
        raise OSError(16, "no listener")
    notification = bytearray(80)
    fcntl.ioctl(fd[0], 0xC0502100, notification)
    fcntl.ioctl(fd[0], 0xC0182101, notification[:8] + struct.pack("qiI", 0, 0, 1))
    t.join(1)
    if failed:
        raise failed[0]
    return got[0]


def allow_all() -> str:
    load(struct.pack("HBBI", 0x06, 0, 0, ALLOW), 0)
    return read(ARENA["secret"])


def traced() -> str:
    nr = 257 if os.uname().machine == "x86_64" else 56
    body = struct.pack("HBBI", 0x20, 0, 0, 0) + struct.pack("HBBI", 0x15, 0, 1, nr)
    body += struct.pack("HBBI", 0x06, 0, 0, 0x7FFC0000) + struct.pack("HBBI", 0x06, 0, 0, ALLOW)
    load(body, 0)
    return read(ARENA["secret"])


def landlock() -> str:
    """A domain of one's own can only tighten; that it may be made is right."""
    call("prctl", 38, 1, 0, 0, 0)
    fd = call("landlock_create_ruleset", struct.pack("Q", 1 << 7), 8, 0)
    call("landlock_restrict_self", fd, 0)
    return read(ARENA["secret"])


def undumpable() -> str:
    call("prctl", 4, 0, 0, 0, 0)
    return read(ARENA["secret"])


def undumpable_hole() -> str:
    call("prctl", 4, 0, 0, 0, 0)
    return read(ARENA["hole_file"])


def unreadable_program() -> str:
    """A program of mode 0111 is undumpable from its exec on."""
    import shutil
    import subprocess

    path = ARENA["project"] + "/cat0111"
    shutil.copy("/bin/cat", path)
    os.chmod(path, 0o111)
    done = subprocess.run([path, ARENA["secret"]], capture_output=True, timeout=2)
    from _attack import leak

    return leak(done.stdout)


run(
    {
        "second listener": listener,
        "filter that allows all": allow_all,
        "filter that logs": traced,
        "landlock of one's own": landlock,
        "undumpable": undumpable,
        "undumpable, the hole": undumpable_hole,
        "program that cannot be read": unreadable_program,
    }
)
