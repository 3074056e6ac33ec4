"""Kernel services that cross from one program of a user to another, or that nobody here needs.

Escape: the service is granted, or what a process outside put there is read.
Trap: keyrings and SysV memory belong to the uid; bpf, perf and userfaultfd are large surfaces.
"""

import ctypes
import os
import struct

from _attack import ARENA, AT_FDCWD, _libc, call, leak, run


def yes(act: object) -> object:
    def go() -> str:
        got = act()  # type: ignore[operator]
        return f"granted ({got})"

    return go


def shared_memory() -> str:
    _libc.shmat.restype = ctypes.c_void_p
    at = _libc.shmat(int(ARENA["shm_id"]), None, 0o10000)
    if at in (None, ctypes.c_void_p(-1).value):
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))
    return leak(ctypes.string_at(at, 128))


def handle() -> bytes:
    buf = ctypes.create_string_buffer(struct.pack("Ii", 64, 0), 136)
    mount = ctypes.create_string_buffer(4)
    call("name_to_handle_at", AT_FDCWD, ARENA["secret"], buf, mount, 0)
    return buf.raw


def by_handle() -> str:
    raw = ctypes.create_string_buffer(handle(), 136)
    fd = call("open_by_handle_at", os.open("/", os.O_RDONLY), raw, 0)
    return leak(os.read(fd, 4096))


perf = struct.pack("IIQQQQQ", 1, 112, 1, 0, 0, 0, 0x60).ljust(112, b"\0")
POLICY = "the system's own settings may refuse it"
run(
    {
        "SysV memory of the victim": shared_memory,
        "shmget": yes(lambda: call("shmget", 0, 4096, 0o1600)),
        "msgget": yes(lambda: call("msgget", 0, 0o1600)),
        "semget": yes(lambda: call("semget", 0, 1, 0o1600)),
        "add_key": yes(lambda: call("add_key", b"user", b"remit-arena", b"x", 1, -3)),
        "keyctl": yes(lambda: call("keyctl", 0, -3, 1)),
        "request_key": yes(lambda: call("request_key", b"user", b"remit-arena", None, -3)),
        "bpf": yes(lambda: call("bpf", 0, struct.pack("IIII", 2, 4, 8, 1).ljust(72, b"\0"), 72)),
        "perf_event_open": yes(lambda: call("perf_event_open", perf, 0, -1, -1, 0)),
        "userfaultfd": yes(lambda: call("userfaultfd", 1)),
        "fanotify_init": yes(lambda: call("fanotify_init", 0x200, 0)),
        "open_by_handle_at": by_handle,
        "personality": yes(lambda: call("personality", 0x0400000)),
        "io_uring_setup": yes(lambda: call("io_uring_setup", 1, ctypes.create_string_buffer(120))),
    },
    native={
        "bpf": POLICY,
        "perf_event_open": POLICY,
        "userfaultfd": POLICY,
        "fanotify_init": POLICY,
        "request_key": "finds no key where the attempts have sessions of their own",
        "open_by_handle_at": "needs CAP_DAC_READ_SEARCH",
        "io_uring_setup": POLICY,
    },
)
