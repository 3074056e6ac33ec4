"""Try, in a child that is thrown away, each mechanism that remit stands on.

By behaviour and not by version: distributions carry features back, and leave parts of them out (one reports Landlock
ABI 6 without its signal scope). Each trial returns name -> "" where it worked, or what went wrong. Nothing here
outlives the call, and no wait in it is longer than `PATIENCE_MS`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

from . import bpf, landlock
from . import filter_table as table
from .confine import confine
from .syscalls import AUDIT_ARCH, NATIVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_MS = 3000  # a healthy trial takes about 20 ms in all; a stuck kernel must not hang `remit run`
STORM = 300  # calls answered while signals arrive; the races that this finds showed at 2 % and more
SETTLE_MS = 10  # an interruptible wait is left within this time after a signal
_PATH = b"/remit-probe/path that is not made"
_SIGUSR1 = 10
_O_EXCL = os.O_EXCL  # PIDFD_THREAD, <linux/pidfd.h>

# <linux/seccomp.h>
RECV = 0xC0502100
SEND = 0xC0182101
ID_VALID = 0x40082102
ADDFD = 0x40182103
SET_FLAGS = 0x40082104
SYNC_WAKE_UP = 1
ADDFD_FLAG_SEND = 2
_NOTIF = struct.Struct("=QIIiIQ6Q")
_RESP = struct.Struct("=QqiI")
_ADDFD = struct.Struct("=QIIII")
_POLLFD = struct.Struct("=ihh")
_POLLIN, _POLLHUP = 1, 16

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_libc.signal.restype = ctypes.c_void_p
_libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
_DO_NOTHING = ctypes.cast(_libc.getpid, ctypes.c_void_p)  # a signal handler without Python in it


class TrialError(Exception):
    """A step of a trial did not do what it must."""


def call(name: str, *arguments: int | bytes | None) -> int:
    """Make system call `name`; return its result, or the negative error number."""
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = _syscall(ctypes.c_long(NATIVE[name]), *words)
    return int(result) if result >= 0 else -ctypes.get_errno()


def _poll(fd: int, timeout_ms: int) -> int:
    entry = ctypes.create_string_buffer(_POLLFD.pack(fd, _POLLIN, 0), _POLLFD.size)
    _libc.poll(entry, ctypes.c_ulong(1), ctypes.c_int(timeout_ms))
    return int(_POLLFD.unpack(entry.raw)[2])


def _read(fd: int, what: str) -> bytes:
    if not _poll(fd, PATIENCE_MS):
        raise TrialError(f"{what} did not come within {PATIENCE_MS // 1000} s")
    return os.read(fd, 4096)


def _spawn(body: Callable[[int, int], None]) -> tuple[int, int, int]:
    """Fork; the child runs body(read, write) and ends. Return (pid, read, write) of the parent's side."""
    child_in, to_child = os.pipe()
    from_child, child_out = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(to_child)
            os.close(from_child)
            _libc.prctl(
                1, ctypes.c_ulong(9), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)
            )  # PDEATHSIG
            if os.getppid() == parent:
                body(child_in, child_out)
        except BaseException as error:
            os.write(child_out, b"!" + str(error).encode("utf-8", "replace"))
        finally:
            os._exit(0)
    os.close(child_in)
    os.close(child_out)
    return pid, from_child, to_child


def _end(pid: int, *fds: int) -> int:
    """Kill what is left of the child and close the descriptors; return its wait status."""
    done, status = os.waitpid(pid, os.WNOHANG)
    if not done:
        os.kill(pid, 9)
        status = os.waitpid(pid, 0)[1]
    for fd in fds:
        if fd >= 0:
            os.close(fd)
    return status


# --- seccomp notification ---------------------------------------------------------------------------------------


def _probe_filter() -> bytes:
    code = [
        (bpf.LD_ABS, 0, 0, bpf.NR),
        (bpf.JEQ, 0, 1, NATIVE["mkdirat"]),
        (bpf.RET, 0, 0, table.NOTIFY),
        (bpf.RET, 0, 0, table.ALLOW),
    ]
    return b"".join([bpf.INSTRUCTION.pack(*instruction) for instruction in code])


def _target(wait_killable: bool) -> Callable[[int, int], None]:
    """Return the child's part: be supervised, and report what the answers looked like from inside."""

    def body(read: int, write: int) -> None:
        _libc.signal(_SIGUSR1, _DO_NOTHING)
        os.write(write, b"%d" % confine(None, _probe_filter(), wait_killable=wait_killable))
        os.read(read, 1)
        value = call("mkdirat", -100, _PATH, 0o700)
        os.write(write, b"%d" % value)
        injected = call("mkdirat", -100, _PATH, 0o700)
        same = injected >= 0 and os.fstat(injected).st_rdev == os.stat("/dev/null").st_rdev
        os.write(write, b"1" if same else b"0")
        if wait_killable:
            wrong = sum(call("mkdirat", -100, _PATH, number) != number for number in range(1 + STORM))
            os.write(write, b"%d" % wrong)

    return body


class _Listener:
    """The parent's part of the trial: receive and answer."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def receive(self) -> tuple[int, int, tuple[int, ...]]:
        """Return (id, thread, arguments) of the next notification."""
        if not _poll(self.fd, PATIENCE_MS) & _POLLIN:
            raise TrialError("no notification arrived")
        buffer = bytearray(_NOTIF.size)
        fcntl.ioctl(self.fd, RECV, buffer)
        ident, thread, _flags, number, arch, _ip, *arguments = _NOTIF.unpack(buffer)
        if number != NATIVE["mkdirat"] or arch != AUDIT_ARCH:
            raise TrialError("a notification names another call than the one made")
        return ident, thread, tuple(arguments)

    def answer(self, ident: int, value: int) -> None:
        fcntl.ioctl(self.fd, SEND, _RESP.pack(ident, value, 0, 0))

    def inject(self, ident: int, fd: int) -> None:
        fcntl.ioctl(self.fd, ADDFD, _ADDFD.pack(ident, ADDFD_FLAG_SEND, fd, 0, os.O_CLOEXEC))


def _remote_read(pid: int, address: int, size: int) -> bytes:
    buffer = ctypes.create_string_buffer(size)
    local = struct.pack("=QQ", ctypes.addressof(buffer), size)
    got = call("process_vm_readv", pid, local, 1, struct.pack("=QQ", address, size), 1, 0)
    if got < 0:
        raise OSError(-got, os.strerror(-got))
    return buffer.raw[:got]


def _step(found: dict[str, str], name: str, action: Callable[[], object]) -> bool:
    try:
        action()
    except (OSError, TrialError) as error:
        found[name] = str(error)
        return False
    found[name] = ""
    return True


def notification(wait_killable: bool) -> dict[str, str]:
    """Supervise a child once through. Keys: listener, handover, memory, answer, inject, wake, storm, hangup."""
    found: dict[str, str] = {}
    pid, read, write = _spawn(_target(wait_killable))
    pidfd = listener_fd = -1
    try:
        word = _read(read, "the listener")
        if not word.isdigit():
            return {"listener": word[1:].decode("utf-8", "replace") or "the child ended"}
        found["listener"] = ""
        pidfd = call("pidfd_open", pid, 0)
        listener_fd = call("pidfd_getfd", pidfd, int(word), 0) if pidfd >= 0 else pidfd
        if listener_fd < 0:
            found["handover"] = os.strerror(-listener_fd)
            return found
        found["handover"] = ""
        _converse(found, _Listener(listener_fd), pid, read, write, wait_killable)
    except (OSError, TrialError) as error:
        found["broken"] = str(error)
    finally:
        _end(pid, read, write, pidfd, listener_fd)
    return found


def _converse(
    found: dict[str, str], ear: _Listener, pid: int, read: int, write: int, wait_killable: bool
) -> None:
    _step(found, "wake", lambda: fcntl.ioctl(ear.fd, SET_FLAGS, SYNC_WAKE_UP))
    os.write(write, b"g")

    ident, thread, arguments = ear.receive()

    def memory() -> None:
        if _remote_read(thread, arguments[1], len(_PATH)) != _PATH:
            raise TrialError("the target's memory reads differently")

    def answer() -> None:
        fcntl.ioctl(ear.fd, ID_VALID, struct.pack("=Q", ident))
        ear.answer(ident, 4711)
        if _read(read, "the answered call") != b"4711":
            raise TrialError("the target saw another answer than the one sent")

    _step(found, "memory", memory)
    if not _step(found, "answer", answer):
        return

    ident = ear.receive()[0]
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def inject() -> None:
        ear.inject(ident, null)
        if _read(read, "the injected descriptor") != b"1":
            raise TrialError("the target got another descriptor than the one sent")

    try:
        if not _step(found, "inject", inject):
            return
    finally:
        os.close(null)
    if wait_killable:
        _step(found, "storm", lambda: _storm(ear, pid, read))
    _step(found, "hangup", lambda: _hangup(ear))


def _storm(ear: _Listener, pid: int, read: int) -> None:
    """One signal while an answer is pending, long enough to be seen; then many, as fast as they go."""
    ident = ear.receive()[0]
    os.kill(pid, _SIGUSR1)
    _poll(ear.fd, SETTLE_MS)  # a restarted call would notify again here
    try:
        ear.answer(ident, 0)
    except OSError as error:
        raise TrialError("a signal interrupts a call that is being answered") from error
    for number in range(1, 1 + STORM):
        ident, _thread, arguments = ear.receive()
        if arguments[2] != number:
            raise TrialError(f"call {number} was made twice because a signal arrived")
        os.kill(pid, _SIGUSR1)
        ear.answer(ident, number)
    if _read(read, "the end of the signals") != b"0":
        raise TrialError("answers were lost while signals arrived")


def _hangup(ear: _Listener) -> None:
    if not _poll(ear.fd, PATIENCE_MS) & _POLLHUP:
        raise TrialError("the listener does not tell that its last process has ended")


# --- Landlock ---------------------------------------------------------------------------------------------------


def _errno_of(action: Callable[[], object]) -> int:
    try:
        action()
    except OSError as error:
        return error.errno or 0
    return 0


def _connect(family: int, address: bytes) -> int:
    """Return the error number of connecting a new stream socket; 0 when it connected."""
    fd = call("socket", family, 1 | os.O_CLOEXEC, 0)
    if fd < 0:
        return -fd
    try:
        return -min(call("connect", fd, address, len(address)), 0)
    finally:
        os.close(fd)


def landlock_floor(place: str) -> dict[str, str]:
    """Confine a child by Landlock and let it try what must fail. `place`: a directory made for this, emptied by the caller.

    Keys: files, moves, truncation, devices, tcp, signals, abstract; only those that this kernel's ABI claims are tried.
    """
    version = landlock.abi()
    if not version:
        return {"files": "Landlock is not built into this kernel, or not in its lsm= list"}
    fs, net, scoped = landlock.supported(version)
    os.mkdir(place + "/closed")
    for name in ("a", "b"):
        os.mkdir(place + "/" + name)
    os.close(os.open(place + "/a/file", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    address = b"\0remit-probe-" + os.urandom(8).hex().encode()
    outside = call("socket", 1, 1 | os.O_CLOEXEC, 0)
    call("bind", outside, struct.pack("=H", 1) + address, 2 + len(address))
    call("listen", outside, 1)

    def body(_read: int, write: int) -> None:
        rules = landlock.Ruleset(fs, net, scoped)
        changes = landlock.WRITE & ~(landlock.TRUNCATE | landlock.REFER)
        for name in ("/a", "/b"):
            rules.allow(place + name, landlock.READ | changes)
        rules.allow("/dev/null", landlock.READ_FILE | landlock.WRITE_FILE)
        _libc.prctl(38, ctypes.c_ulong(1), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
        rules.restrict_self()
        null = os.open("/dev/null", os.O_RDONLY)
        seen = {
            "files": _errno_of(lambda: os.listdir(place + "/closed")),
            "kept": _errno_of(lambda: os.close(os.open(place + "/a/file", os.O_RDWR))),
            "moves": _errno_of(lambda: os.rename(place + "/a/file", place + "/b/file")),
            "truncation": _errno_of(lambda: os.truncate(place + "/a/file", 0)),
            "devices": -call("ioctl", null, 0x5401, 0),  # TCGETS; ENOTTY where Landlock does not look
            "tcp": _connect(
                2, struct.pack("=H", 2) + struct.pack(">H", 9) + bytes((127, 0, 0, 1)) + bytes(8)
            ),
            "signals": _errno_of(lambda: os.kill(os.getppid(), 0)),
            "abstract": _connect(1, struct.pack("=H", 1) + address),
        }
        os.write(write, ",".join([f"{name}={code}" for name, code in seen.items()]).encode())

    pid, read, write = _spawn(body)
    try:
        word = _read(read, "the confined child's report").decode("utf-8", "replace")
    except TrialError as error:
        word = "!" + str(error)
    finally:
        _end(pid, read, write, outside)
    if word.startswith("!") or not word:
        return {"files": word[1:] or "the confined child ended"}
    seen = {name: int(code) for name, code in (pair.split("=") for pair in word.split(","))}
    found = {"files": "" if seen.pop("kept") == 0 else "an allowed file cannot be opened"}
    expected = {"moves": errno.EXDEV, "signals": errno.EPERM, "abstract": errno.EPERM}
    claimed = {
        "files": True,
        "moves": bool(fs & landlock.REFER),
        "truncation": bool(fs & landlock.TRUNCATE),
        "devices": bool(fs & landlock.IOCTL_DEV),
        "tcp": bool(net & landlock.CONNECT_TCP),
        "signals": bool(scoped & landlock.SCOPE_SIGNAL),
        "abstract": bool(scoped & landlock.SCOPE_ABSTRACT_UNIX),
    }
    for name, code in seen.items():
        wanted = expected.get(name, errno.EACCES)
        if not claimed[name]:
            found[name] = f"this kernel's Landlock (ABI {version}) does not cover it"
        elif code != wanted:
            found[name] = (
                f"what must be refused was answered {os.strerror(code) if code else 'with success'}"
            )
        else:
            found.setdefault(name, "")
    return found


# --- single calls -----------------------------------------------------------------------------------------------


def single_calls() -> dict[str, str]:
    """Keys: openat2 (refuses links when told to), threads (a pidfd of one thread)."""
    found: dict[str, str] = {}
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, 4)  # RESOLVE_NO_SYMLINKS
    result = call("openat2", -100, b"/proc/self", how, len(how))
    if result >= 0:
        os.close(result)
    found["openat2"] = "" if result == -errno.ELOOP else f"openat2 answered {os.strerror(max(-result, 0))}"
    result = call("pidfd_open", call("gettid"), _O_EXCL)
    if result >= 0:
        os.close(result)
    found["threads"] = "" if result >= 0 else os.strerror(-result)
    return found
