"""Landlock: the race-free floor under what the supervisor lets continue.

<linux/landlock.h>, landlock(7). A ruleset *handles* rights: what it handles and no rule allows is refused. What it
does not handle is free, so a right that the kernel does not know is a hole and `Ruleset` raises for it; the caller
asks `supported()` first when it can do with less, and says so.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct

from .syscalls import NATIVE

# access_fs; the number is the ABI that brought it, with its kernel
EXECUTE = 1 << 0  # 1, Linux 5.13
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
REMOVE_DIR = 1 << 4
REMOVE_FILE = 1 << 5
MAKE_CHAR = 1 << 6
MAKE_DIR = 1 << 7
MAKE_REG = 1 << 8
MAKE_SOCK = 1 << 9
MAKE_FIFO = 1 << 10
MAKE_BLOCK = 1 << 11
MAKE_SYM = 1 << 12
REFER = 1 << 13  # 2, Linux 5.19
TRUNCATE = 1 << 14  # 3, Linux 6.2
IOCTL_DEV = 1 << 15  # 5, Linux 6.10
BIND_TCP = 1 << 0  # access_net; 4, Linux 6.7
CONNECT_TCP = 1 << 1
SCOPE_ABSTRACT_UNIX = 1 << 0  # scoped; 6, Linux 6.12
SCOPE_SIGNAL = 1 << 1

# What the parts of remit mean by these words. Making device nodes is handled and never granted.
READ = READ_FILE | READ_DIR
WRITE = (
    WRITE_FILE
    | TRUNCATE
    | REFER
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REG
    | MAKE_SOCK
    | MAKE_FIFO
    | MAKE_SYM
)
ALL_FS = READ | WRITE | EXECUTE | MAKE_CHAR | MAKE_BLOCK | IOCTL_DEV
ALL_NET = BIND_TCP | CONNECT_TCP
ALL_SCOPED = SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL
FILE_RIGHTS = (
    EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
)  # others on a non-directory are EINVAL

_NAMES = (
    ("fs", (1 << 13) - 1, 1, "files", "5.13"),
    ("fs", REFER, 2, "moving files between directories", "5.19"),
    ("fs", TRUNCATE, 3, "truncating files", "6.2"),
    ("net", ALL_NET, 4, "TCP bind and connect", "6.7"),
    ("fs", IOCTL_DEV, 5, "device ioctls", "6.10"),
    ("scoped", ALL_SCOPED, 6, "signals and abstract sockets to the outside", "6.12"),
)

_RULE_PATH_BENEATH = 1
_RULE_NET_PORT = 2
_ATTR = struct.Struct("=QQQ")  # struct landlock_ruleset_attr: fs, net, scoped
_PATH = struct.Struct("=Qi")  # struct landlock_path_beneath_attr, packed
_PORT = struct.Struct("=QQ")  # struct landlock_net_port_attr

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_long = ctypes.c_long


class LandlockError(Exception):
    """Landlock is absent, lacks a right that was asked for, or refused a rule."""


def abi() -> int:
    """Return the kernel's Landlock ABI; 0 where it is not built in or not switched on."""
    found = _syscall(_long(NATIVE["landlock_create_ruleset"]), None, _long(0), _long(1))
    return int(found) if found > 0 else 0


def supported(version: int) -> tuple[int, int, int]:
    """Return the (fs, net, scoped) rights that ABI `version` knows."""
    known = {"fs": 0, "net": 0, "scoped": 0}
    for kind, bits, since, _text, _kernel in _NAMES:
        if version >= since:
            known[kind] |= bits
    return known["fs"], known["net"], known["scoped"]


def lacking(version: int, fs: int, net: int, scoped: int) -> list[str]:
    """Return, in words, what of these rights ABI `version` does not know, each with the kernel that does."""
    wanted = {"fs": fs, "net": net, "scoped": scoped}
    return [
        f"{text} (Linux {kernel})"
        for kind, bits, since, text, kernel in _NAMES
        if version < since and wanted[kind] & bits
    ]


class Ruleset:
    """A ruleset under construction: handled rights, then rules, then `restrict_self` in the process to confine.

    fs, net, scoped: the rights to handle. Raises LandlockError naming what this kernel lacks.
    """

    __slots__ = ("fd", "fs", "net", "scoped")

    def __init__(self, fs: int = ALL_FS, net: int = ALL_NET, scoped: int = ALL_SCOPED) -> None:
        self.fd = -1
        self.fs, self.net, self.scoped = fs, net, scoped
        version = abi()
        if not version:
            raise LandlockError(
                "Landlock is not available: it needs Linux 5.13 and `landlock` in the lsm= list"
            )
        missing = lacking(version, fs, net, scoped)
        if missing:
            raise LandlockError(
                f"this kernel's Landlock (ABI {version}) does not cover {', '.join(missing)}"
            )
        attr = _ATTR.pack(fs, net, scoped)
        self.fd = _check(
            _syscall(_long(NATIVE["landlock_create_ruleset"]), attr, _long(len(attr)), _long(0)),
            "create a ruleset",
        )

    def allow(self, place: int | str | bytes, rights: int) -> int:
        """Allow `rights` at and below `place` (a path, or a descriptor, O_PATH will do); return those in force.

        Rights that the ruleset does not handle are dropped, and on anything but a directory those that only a
        directory can have. A path is followed to its end. Raises OSError when it cannot be opened.
        """
        if isinstance(place, int):
            return self._allow_fd(place, rights)
        fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
        try:
            return self._allow_fd(fd, rights)
        finally:
            os.close(fd)

    def _allow_fd(self, fd: int, rights: int) -> int:
        rights &= self.fs
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= FILE_RIGHTS
        if rights:  # an empty rule is ENOMSG
            self._add(_RULE_PATH_BENEATH, _PATH.pack(rights, fd))
        return rights

    def allow_port(self, port: int, rights: int) -> int:
        """Allow BIND_TCP and CONNECT_TCP, as in `rights`, for one port; return those in force."""
        rights &= self.net
        if rights:
            self._add(_RULE_NET_PORT, _PORT.pack(rights, port))
        return rights

    def _add(self, kind: int, rule: bytes) -> None:
        _check(
            _syscall(_long(NATIVE["landlock_add_rule"]), _long(self.fd), _long(kind), rule, _long(0)),
            "add a rule",
        )

    def restrict_self(self) -> None:
        """Confine the calling thread and its future children for good. NO_NEW_PRIVS must be set."""
        _check(
            _syscall(_long(NATIVE["landlock_restrict_self"]), _long(self.fd), _long(0)),
            "confine the process",
        )

    def close(self) -> None:
        """Give the descriptor back; a domain in force stays."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _check(result: int, what: str) -> int:
    if result >= 0:
        return int(result)
    code = ctypes.get_errno()
    if code == errno.E2BIG:  # restrict_self: LANDLOCK_MAX_NUM_LAYERS is 16
        raise LandlockError(f"cannot {what}: 16 Landlock domains are nested already")
    raise LandlockError(f"cannot {what}: {os.strerror(code)}")
