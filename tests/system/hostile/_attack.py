"""What every probe shares: the arena, raw system calls, and the one line of verdict.

A probe is a program that attempts one kind of escape, in several ways. ``run`` makes each attempt in a
child of its own, so that a killed, stuck or confused attempt spoils no other, and prints one line:

    ESCAPED {"escaped": {way: evidence}, "held": {way: how}, "stalled": [way], "native": {way: reason}}
    HELD    {the same, with nothing escaped}

An attempt returns evidence (true) when it got through, raises OSError or returns nothing when it was
held. ``native`` names the ways that cannot succeed without remit either, and why.
A probe never knows the secrets; it knows their shape. What it printed is compared with them outside.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import re
import select
import signal
import socket
import sys
import time

ARENA = json.loads(os.environ["ARENA"])
TOKEN = re.compile(rb"TOKEN-[a-z]+-[0-9a-f]{24}")
X86 = platform.machine() == "x86_64"
AT_FDCWD = -100
AT_EMPTY_PATH, AT_SYMLINK_FOLLOW, AT_SYMLINK_NOFOLLOW, AT_REMOVEDIR = 0x1000, 0x400, 0x100, 0x200
O_PATH = os.O_PATH
O_TMPFILE = os.O_TMPFILE

# (x86_64, aarch64); None: the architecture has no such call.
_NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "open": (2, None), "creat": (85, None), "openat": (257, 56), "openat2": (437, 437),
    "link": (86, None), "linkat": (265, 37), "rename": (82, None), "renameat": (264, 38),
    "renameat2": (316, 276), "unlink": (87, None), "unlinkat": (263, 35), "rmdir": (84, None),
    "mkdir": (83, None), "mkdirat": (258, 34), "symlink": (88, None), "symlinkat": (266, 36),
    "mknod": (133, None), "mknodat": (259, 33), "truncate": (76, 45), "ftruncate": (77, 46),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16), "setxattrat": (463, 463),
    "removexattrat": (466, 466), "file_setattr": (469, 469),
    "execveat": (322, 281), "memfd_create": (319, 279), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "process_madvise": (440, 440),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "kcmp": (312, 272),
    "prlimit64": (302, 261), "sched_setaffinity": (203, 122), "setpriority": (141, 140),
    "sched_setscheduler": (144, 119), "sched_setattr": (314, 274), "sched_setparam": (142, 118),
    "ioprio_set": (251, 30), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "process_mrelease": (448, 448),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
    "chroot": (161, 51), "pivot_root": (155, 41), "open_tree": (428, 428), "fsopen": (430, 430),
    "clone": (56, 220), "clone3": (435, 435),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "shmget": (29, 194), "shmat": (30, 196), "msgget": (68, 186), "msgrcv": (70, 188),
    "semget": (64, 190), "semctl": (66, 191), "mq_open": (240, 180), "mq_timedreceive": (243, 183),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "fanotify_init": (300, 262),
    "personality": (135, 92), "seccomp": (317, 277), "prctl": (157, 167),
    "landlock_create_ruleset": (444, 444), "landlock_restrict_self": (446, 446),
    "socket": (41, 198), "sendto": (44, 206), "ioctl": (16, 29), "fcntl": (72, 25),
    "io_uring_setup": (425, 425),
}  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def call(name: str | int, *args: object) -> int:
    """Make one raw system call. Raises OSError, with ENOSYS where the architecture has none such."""
    number = name if isinstance(name, int) else _NUMBERS[name][0 if X86 else 1]
    if number is None:
        raise OSError(errno.ENOSYS, "no such call on this architecture")
    raw = []
    for a in args:
        if isinstance(a, str):
            a = os.fsencode(a)
        if a is None:
            raw.append(ctypes.c_void_p(None))
        elif isinstance(a, bytes):
            raw.append(ctypes.c_char_p(a))
        elif isinstance(a, int):
            raw.append(ctypes.c_long(a))
        else:
            raw.append(a)
    got = _libc.syscall(ctypes.c_long(number), *raw)
    if got == -1:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))
    return got


def leak(data: bytes | str | None) -> str:
    """Return the token in ``data``, or nothing."""
    if isinstance(data, str):
        data = os.fsencode(data)
    found = TOKEN.search(data or b"")
    return found.group().decode() if found else ""


def read(path: str | bytes, flags: int = os.O_RDONLY, dir_fd: int | None = None) -> str:
    """Open, read and return the token found. Raises OSError."""
    fd = os.open(path, flags | os.O_NONBLOCK, dir_fd=dir_fd)
    try:
        return leak(os.read(fd, 1 << 16))
    finally:
        os.close(fd)


def read_fd(fd: int) -> str:
    return leak(os.pread(fd, 1 << 16, 0))


def output(argv: list[str], **kw: object) -> str:
    """Run a program and return the token that it printed."""
    import subprocess

    done = subprocess.run(argv, capture_output=True, timeout=2, stdin=subprocess.DEVNULL, **kw)  # type: ignore[call-overload]
    return leak(done.stdout + done.stderr)


def changed(path: str, act: object) -> str:
    """Do ``act`` and return what of ``path`` differs afterwards; an error of ``act`` is raised if nothing does."""
    before = _look(path)
    error = None
    try:
        act()  # type: ignore[operator]
    except OSError as e:
        error = e
    after = _look(path)
    if before != after:
        return f"{os.path.basename(path)}: {before} became {after}"
    if error:
        raise error
    return ""


def _look(path: str) -> tuple[object, ...]:
    try:
        st = os.lstat(path)
    except OSError as e:
        return (errno.errorcode[e.errno or 0],)
    try:
        attributes = tuple(sorted(os.listxattr(path, follow_symlinks=False)))
    except OSError:
        attributes = ()
    return (st.st_ino, oct(st.st_mode), st.st_uid, st.st_gid, st.st_nlink, st.st_size, st.st_mtime_ns,
            st.st_ctime_ns, attributes)  # fmt: skip


def _errno_name(e: OSError) -> str:
    return errno.errorcode.get(e.errno or 0, str(e))


def _child(act: object, w: int) -> None:
    try:
        got = act()  # type: ignore[operator]
        said = ("escaped", str(got)) if got else ("held", "no effect")
    except OSError as e:
        said = ("held", _errno_name(e))
    except BaseException as e:
        said = ("held", f"{type(e).__name__}: {e}")
    with contextlib.suppress(OSError):
        os.write(w, json.dumps(said).encode())
    os._exit(0)


def attempt(act: object, seconds: float = 2.0) -> tuple[str, str]:
    """Make one attempt in a child: ("escaped" | "held" | "stalled", evidence)."""
    sys.stdout.flush()
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(r)
        _child(act, w)
    os.close(w)
    raw = b""
    if select.select([r], [], [], seconds)[0]:
        raw = os.read(r, 1 << 16)
    else:
        os.kill(pid, signal.SIGKILL)
        os.close(r)
        os.waitpid(pid, 0)
        return "stalled", f"after {seconds} s"
    os.close(r)
    _, status = os.waitpid(pid, 0)
    if raw:
        kind, evidence = json.loads(raw)
        return kind, evidence
    if os.WIFSIGNALED(status):
        return "held", signal.Signals(os.WTERMSIG(status)).name
    return "held", f"left with status {status}"


def verdict(
    escaped: dict[str, str], held: dict[str, str], stalled: list[str], native: dict[str, str]
) -> None:
    word = "ESCAPED" if escaped else "HELD"
    body = {"escaped": escaped, "held": held, "stalled": stalled, "native": native}
    sys.stdout.write(f"{word} {json.dumps(body)}\n")
    sys.stdout.flush()


def run(
    ways: dict[str, object], native: dict[str, str] | None = None, seconds: float = 2.0, total: float = 8.0
) -> None:
    """Try each way, print the verdict and exit 0. ``native``: ways that fail without remit too, and why."""
    escaped: dict[str, str] = {}
    held: dict[str, str] = {}
    stalled: list[str] = []
    end = time.monotonic() + total
    for name, act in ways.items():
        left = end - time.monotonic()
        if left <= 0:
            stalled.append(name)
            continue
        kind, evidence = attempt(act, min(seconds, left))
        if kind == "escaped":
            escaped[name] = evidence
        elif kind == "held":
            held[name] = evidence
        else:
            stalled.append(name)
    verdict(escaped, held, stalled, native or {})
    sys.exit(0)


def ask_socket(address: str | bytes, kind: int = socket.SOCK_STREAM) -> str:
    """Connect to a Unix socket that tells a token to whoever calls, and return it."""
    with socket.socket(socket.AF_UNIX, kind) as s:
        s.settimeout(1)
        s.connect(address)
        return leak(s.recv(4096))
