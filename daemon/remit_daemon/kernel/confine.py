"""What a child does to itself between fork and exec: no new privileges, Landlock, then the filter.

prctl(2) PR_SET_NO_NEW_PRIVS, landlock_restrict_self(2), seccomp(2) SECCOMP_SET_MODE_FILTER. The order matters: the
filter notifies, and nobody answers yet. After `confine` the child may only use calls that the filter allows: it
write()s the listener's number to a pipe, and the parent takes the descriptor over with pidfd_getfd (sendmsg could be
a notified call, and would wait for an answer that cannot come).

Everything is looked up when this module is imported, so that nothing is imported or resolved after a fork.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from .syscalls import NATIVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .landlock import Ruleset

PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER = 1
FLAG_NEW_LISTENER = 1 << 3  # Linux 5.0
FLAG_WAIT_KILLABLE_RECV = 1 << 5  # Linux 5.19; only together with NEW_LISTENER
INSTRUCTION_SIZE = 8  # struct sock_filter

_FPROG = struct.Struct("=HxxxxxxQ")  # struct sock_fprog: len, padding, pointer
_SECCOMP = ctypes.c_long(NATIVE["seccomp"])
_SET_FILTER = ctypes.c_long(SECCOMP_SET_MODE_FILTER)
_ZERO = ctypes.c_ulong(0)
_ONE = ctypes.c_ulong(1)
_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_prctl = _libc.prctl
_prctl.restype = ctypes.c_int


class ConfineError(OSError):
    """The process could not be confined; it must not run anything."""


def confine(ruleset: Ruleset | None, blob: bytes, *, wait_killable: bool) -> int:
    """Confine the calling thread for good and return the listener's descriptor number (close-on-exec).

    ruleset: Landlock rules to put in force, or None for none. blob: the filter from `bpf.build`. wait_killable: a
    target whose notification was received waits for its answer through any signal that does not kill it.
    Raises ConfineError, or LandlockError from the ruleset; in both cases the caller ends the process.
    """
    if _prctl(PR_SET_NO_NEW_PRIVS, _ONE, _ZERO, _ZERO, _ZERO):
        raise _error("set no_new_privs")
    if ruleset is not None:
        ruleset.restrict_self()
    address = ctypes.cast(ctypes.c_char_p(blob), ctypes.c_void_p).value or 0
    prog = _FPROG.pack(len(blob) // INSTRUCTION_SIZE, address)
    flags = FLAG_NEW_LISTENER | (FLAG_WAIT_KILLABLE_RECV if wait_killable else 0)
    listener = _syscall(_SECCOMP, _SET_FILTER, ctypes.c_ulong(flags), prog)
    if listener < 0:
        raise _error("install the system call filter")
    return int(listener)


def _error(what: str) -> ConfineError:
    code = ctypes.get_errno()
    if code == errno.EBUSY:  # one listener for each chain of filters
        return ConfineError(
            code, f"cannot {what}: this process is already supervised by a seccomp listener"
        )
    return ConfineError(code, f"cannot {what}: {os.strerror(code)}")
