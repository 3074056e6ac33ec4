"""System calls that Python has no function for, as thin functions that raise OSError.

Numbers and structures: seccomp(2), seccomp_unotify(2), openat2(2), pidfd_getfd(2), process_vm_readv(2),
<linux/seccomp.h>, <linux/openat2.h>. Little endian, 64-bit, the same on x86_64 and aarch64 but for the numbers.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

from remit_daemon.kernel.syscalls import NATIVE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# use_errno costs a swap at each call and is what makes errno ours; PyDLL would keep the GIL while blocking.
_libc = ctypes.CDLL(None, use_errno=True)
_get_errno = ctypes.get_errno
_long, _pointer, _string = ctypes.c_long, ctypes.c_void_p, ctypes.c_char_p


def _prototype(*types: type) -> ctypes._FuncPointer:
    """Return syscall(2) with these argument types. Without them ctypes passes ints as 32 bits, and a seventh argument
    goes to the stack with whatever was there as its upper half."""
    function = _libc["syscall"]
    function.restype, function.argtypes = _long, types
    return function


_syscall = _libc["syscall"]
_syscall.restype = _long
_openat2 = _prototype(_long, _long, _string, _pointer, _long)
_readv = _prototype(_long, _long, _pointer, _long, _pointer, _long, _long)

PAGE = 4096
PATH_MAX = 4096

NOTIF = struct.Struct("QIIiIQ6Q")  # id, tid, flags, nr, arch, ip, args
RESP = struct.Struct("QqiI")  # id, val, error, flags
_ADDFD = struct.Struct("QIIII")  # id, flags, srcfd, newfd, newfd_flags
RECV, SEND, ID_VALID = 0xC0502100, 0xC0182101, 0x40082102
ADDFD, SET_FLAGS = 0x40182103, 0x40082104
CONTINUE = 1
ADDFD_SEND = 2
SYNC_WAKE_UP = 1

RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS = 1, 2, 4
RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_CACHED = 8, 16, 32
AT_FDCWD, AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, AT_SYMLINK_FOLLOW, AT_REMOVEDIR = (
    -100,
    0x1000,
    0x100,
    0x400,
    0x200,
)
O_TMPFILE = 0o20000000  # __O_TMPFILE without O_DIRECTORY, <asm-generic/fcntl.h>
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
PIDFD_THREAD = os.O_EXCL


def _check(result: int) -> int:
    if result < 0:
        code = _get_errno()
        raise OSError(code, os.strerror(code))
    return result


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_how = _OpenHow()
_how_ref = ctypes.byref(_how)
_NR_OPENAT2 = NATIVE["openat2"]


def openat2(dirfd: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
    """Open ``path`` below ``dirfd``; returns a descriptor, close-on-exec if ``flags`` say so.

    Not thread-safe: the structure is reused (the supervisor calls it under its lock).
    """
    _how.flags, _how.mode, _how.resolve = flags, mode, resolve
    fd: int = _openat2(_NR_OPENAT2, dirfd, path, _how_ref, 24)
    if fd < 0:
        code = _get_errno()
        raise OSError(code, "")
    return fd


def pidfd_open(pid: int, flags: int = 0) -> int:
    """Return a pidfd of ``pid`` (with PIDFD_THREAD: of that thread, Linux 6.9)."""
    return call("pidfd_open", pid, flags)


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """Return a duplicate of descriptor ``fd`` of the process behind ``pidfd``."""
    return call("pidfd_getfd", pidfd, fd, 0)


_NR_READV = NATIVE["process_vm_readv"]
_FIRST = 256  # most paths are shorter; a second read fetches the rest


def path_reader() -> Callable[[int, int], bytes]:
    """Return a function as ``read_path`` with a buffer of its own, for one thread at a time."""
    buffer = ctypes.create_string_buffer(_FIRST + 1)
    iov = (ctypes.c_uint64 * 4)(ctypes.addressof(buffer), _FIRST, 0, _FIRST)
    local = ctypes.c_void_p(ctypes.addressof(iov))
    remote = ctypes.c_void_p(ctypes.addressof(iov) + 16)
    readv, number, room = _readv, _NR_READV, PAGE - _FIRST

    def read(tid: int, address: int) -> bytes:
        if address & (PAGE - 1) <= room:
            iov[2] = address
            got: int = readv(number, tid, local, 1, remote, 1, 0)
            if got > 0:
                path = buffer.value  # up to the first NUL, which may be an older read's
                if len(path) < got:
                    return path
        return _read_long(tid, address)

    # The structure points into these, and must not outlive them.
    read.kept = buffer, iov  # type: ignore[attr-defined]
    return read


_read_path = path_reader()


def read_path(tid: int, address: int) -> bytes:
    """Return the NUL-terminated string at ``address`` of thread ``tid``, without its NUL.

    Not thread-safe: the buffer is reused (the supervisor calls it under its lock). Raises OSError: EFAULT (not mapped),
    ENAMETOOLONG (no NUL within PATH_MAX), EPERM, ESRCH.
    """
    return _read_path(tid, address)


def _read_long(tid: int, address: int) -> bytes:
    out = b""
    while len(out) <= PATH_MAX:
        room = PAGE - (address & (PAGE - 1))
        raw = read_memory(tid, address, room)
        end = raw.find(b"\0")
        if end >= 0:
            if len(out) + end >= PATH_MAX:
                break
            return out + raw[:end]
        out += raw
        address += len(raw)
    raise OSError(errno.ENAMETOOLONG, "path without an end")


def read_memory(tid: int, address: int, size: int) -> bytes:
    """Return ``size`` bytes at ``address`` of thread ``tid``; raises EFAULT when not all can be read."""
    local = ctypes.create_string_buffer(size)
    here = (ctypes.c_uint64 * 2)(ctypes.addressof(local), size)
    there = (ctypes.c_uint64 * 2)(address, size)
    got = _readv(_NR_READV, tid, here, 1, there, 1, 0)
    if got < 0:
        _check(got)
    if got != size:
        raise OSError(errno.EFAULT, "memory not mapped")
    return local.raw


_writev = _prototype(_long, _long, _pointer, _long, _pointer, _long, _long)
_NR_WRITEV = NATIVE["process_vm_writev"]


def write_memory(tid: int, address: int, data: bytes) -> None:
    """Put ``data`` at ``address`` of thread ``tid``; raises EFAULT when not all of it could be written."""
    local = ctypes.create_string_buffer(data, len(data))
    here = (ctypes.c_uint64 * 2)(ctypes.addressof(local), len(data))
    there = (ctypes.c_uint64 * 2)(address, len(data))
    if _writev(_NR_WRITEV, tid, here, 1, there, 1, 0) != len(data):
        raise OSError(errno.EFAULT, "memory not mapped")


_MSGHDR = struct.Struct(
    "QI4xQQQQi4x"
)  # struct user_msghdr of <linux/socket.h>: name, iov, control with their sizes, flags
_SOL_SOCKET, _SCM_RIGHTS = 1, 1


def send_message(fd: int, name: bytes, data: bytes, fds: list[int], flags: int) -> int:
    """Send ``data`` (to the address ``name``, if any, with descriptors ``fds``) on our own ``fd``; returns the bytes sent."""
    body = ctypes.create_string_buffer(data, len(data) or 1)
    iov = (ctypes.c_uint64 * 2)(ctypes.addressof(body), len(data))
    address = ctypes.create_string_buffer(name, len(name) or 1)
    control = b""
    if fds:
        rights = struct.pack(f"{len(fds)}i", *fds)
        # struct cmsghdr: length, level, type; then the data, padded to a word (cmsg(3))
        control = struct.pack("QII", 16 + len(rights), _SOL_SOCKET, _SCM_RIGHTS) + rights
        control += bytes(-len(control) % 8)
    extra = ctypes.create_string_buffer(control, len(control) or 1)
    header = _MSGHDR.pack(
        ctypes.addressof(address) if name else 0, len(name), ctypes.addressof(iov), 1,
        ctypes.addressof(extra) if control else 0, len(control), 0,
    )  # fmt: skip
    return call("sendmsg", fd, header, flags)


_readlink = _libc["readlink"]
_readlink.argtypes = (_string, _pointer, ctypes.c_size_t)
_little = ctypes.create_string_buffer(1)


def is_link(path: bytes) -> bool:
    """Say whether ``path`` is a symbolic link; False as well for what is not there. A third of the cost of lstat."""
    return bool(_readlink(path, _little, 1) >= 0)


def send(listener: int, notif: int, value: int, error: int, flags: int) -> bool:
    """Answer notification ``notif``; ``error`` is a positive errno or 0. False: the target is gone."""
    try:
        fcntl.ioctl(listener, SEND, RESP.pack(notif, value, -error, flags))
    except OSError as e:
        if e.errno == errno.ENOENT:
            return False
        raise
    return True


def id_valid(listener: int, notif: int) -> bool:
    """Say whether the target of ``notif`` still waits."""
    try:
        fcntl.ioctl(listener, ID_VALID, struct.pack("Q", notif))
    except OSError:
        return False
    return True


_sched_getcpu = _libc["sched_getcpu"]


def add_fd_here(listener: int, notif: int, tid: int, fd: int, cloexec: bool) -> None:
    """As ``add_fd``, with the target kept on our processor meanwhile.

    The kernel wakes the target for this with an ordinary wake-up, which looks for an idle processor: on a virtual machine that
    costs two interrupts between processors, 30 to 70 us. The target's affinity is as it was when it returns.
    """
    try:
        mask = os.sched_getaffinity(tid)
        if len(mask) > 1:
            os.sched_setaffinity(tid, (_sched_getcpu(),))
    except OSError:  # it has no right to this processor, or is gone
        add_fd(listener, notif, fd, cloexec)
        return
    try:
        add_fd(listener, notif, fd, cloexec)
    finally:
        if len(mask) > 1:
            try:
                os.sched_setaffinity(tid, mask)
            except OSError:
                pass


def add_fd(listener: int, notif: int, fd: int, cloexec: bool) -> None:
    """Give the target a duplicate of ``fd`` and return its number from the call. Raises OSError; the target
    then still waits and must be sent an errno."""
    fcntl.ioctl(listener, ADDFD, _ADDFD.pack(notif, ADDFD_SEND, fd, 0, os.O_CLOEXEC if cloexec else 0))


_getsockopt = _libc["getsockopt"]


def socket_option(fd: int, level: int, name: int) -> int:
    """Return an int socket option of ``fd``. Raises OSError (ENOTSOCK)."""
    value, size = ctypes.c_int(0), ctypes.c_uint(4)
    _check(_getsockopt(fd, level, name, ctypes.byref(value), ctypes.byref(size)))
    return value.value


def call(name: str, *args: int | bytes | None) -> int:
    """Make system call ``name``; ints are passed as longs. Returns its result or raises OSError."""
    return _check(_syscall(NATIVE[name], *(ctypes.c_long(a) if isinstance(a, int) else a for a in args)))
