"""Rows of the refusal table on the running kernel, made by an ordinary user under the real filter.

Where it can be told apart, the same call is made without the filter too, so that a refusal is ours and not the
kernel's own.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pathlib
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable

import pytest

from kernel.harness import NATIVE, NOTIFIED, as_user, call, supervised
from remit_daemon.kernel import bpf, syscalls

HERE = -100  # AT_FDCWD
RLIMIT_NOFILE, RLIMIT_RTTIME = 7, 15
EINVAL, EFAULT, EBADF = -errno.EINVAL, -errno.EFAULT, -errno.EBADF
X86 = os.uname().machine == "x86_64"


def _limits() -> bytes:
    return struct.pack("=QQ", 64, 64)


def _raw(number: int, *arguments: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in arguments])
    return int(result) if result >= 0 else -ctypes.get_errno()


# name, call, the answer under the filter, the answer without it (None: not compared)
REFUSED: list[tuple[str, Callable[[], int], int, int | None]] = [
    ("io_uring_setup", lambda: call("io_uring_setup", 1, None), -errno.ENOSYS, None),
    ("io_uring_enter", lambda: call("io_uring_enter", -1, 0, 0, 0, 0, 0), -errno.ENOSYS, None),
    ("io_uring_register", lambda: call("io_uring_register", -1, 0, 0, 0), -errno.ENOSYS, None),
    ("clone3", lambda: call("clone3", None, 0), -errno.ENOSYS, EINVAL),
    ("unshare user", lambda: call("unshare", 0x10000000), -errno.EPERM, None),
    ("unshare time", lambda: call("unshare", 0x80), -errno.EPERM, None),
    ("unshare files", lambda: call("unshare", 0x400), 0, 0),
    ("clone newuser", lambda: call("clone", 0x10000000 | 17, 0, 0, 0, 0), -errno.EPERM, None),
    ("setns", lambda: call("setns", -1, 0), -errno.EPERM, EBADF),
    ("mount", lambda: call("mount", None, None, None, 0, 0), -errno.EPERM, None),
    ("open_tree", lambda: call("open_tree", HERE, b"/", 0), -errno.EPERM, None),
    ("fsopen", lambda: call("fsopen", None, 0), -errno.EPERM, None),
    ("mount_setattr", lambda: call("mount_setattr", -1, b"", 0, None, 0), -errno.EPERM, None),
    ("chroot", lambda: call("chroot", b"/nonexistent"), -errno.EPERM, -errno.ENOENT),
    ("ptrace", lambda: call("ptrace", 16, 0x7FFFFFF0, 0, 0), -errno.EPERM, -errno.ESRCH),
    (
        "process_vm_readv",
        lambda: call("process_vm_readv", 0x7FFFFFF0, None, 0, None, 0, 0),
        -errno.EPERM,
        None,
    ),
    ("pidfd_getfd", lambda: call("pidfd_getfd", -1, 0, 0), -errno.EPERM, EBADF),
    ("process_madvise", lambda: call("process_madvise", -1, None, 0, 0, 0), -errno.EPERM, None),
    ("kcmp", lambda: call("kcmp", 0x7FFFFFF0, 0x7FFFFFF0, 0, 0, 0), -errno.EPERM, None),
    ("bpf", lambda: call("bpf", 0, None, 0), -errno.ENOSYS, None),
    ("perf_event_open", lambda: call("perf_event_open", None, 0, 0, 0, 0), -errno.ENOSYS, None),
    ("userfaultfd", lambda: call("userfaultfd", 0xFFFF), -errno.ENOSYS, None),
    ("keyctl", lambda: call("keyctl", 0, -3, 0, 0, 0), -errno.ENOSYS, None),
    ("add_key", lambda: call("add_key", None, None, None, 0, 0), -errno.ENOSYS, None),
    ("shmget", lambda: call("shmget", 0, 0, 0), -errno.ENOSYS, EINVAL),
    ("shmat by id", lambda: call("shmat", -1, 0, 0), -errno.ENOSYS, EINVAL),
    ("msgsnd by id", lambda: call("msgsnd", -1, 0, 0, 0), -errno.ENOSYS, None),
    ("semop by id", lambda: call("semop", -1, None, 0), -errno.ENOSYS, EINVAL),
    ("mq_unlink", lambda: call("mq_unlink", b"remit-none"), -errno.ENOSYS, -errno.ENOENT),
    (
        "name_to_handle_at",
        lambda: call("name_to_handle_at", HERE, b"/", None, None, 0),
        -errno.ENOSYS,
        None,
    ),
    ("open_by_handle_at", lambda: call("open_by_handle_at", -1, None, 0), -errno.ENOSYS, None),
    ("fanotify_init", lambda: call("fanotify_init", 0x200, 0), -errno.ENOSYS, None),
    ("memfd_secret", lambda: call("memfd_secret", 0xFFFF), -errno.ENOSYS, None),
    ("personality", lambda: call("personality", 0x400000), -errno.EPERM, 0),
    ("personality asked", lambda: call("personality", 0xFFFFFFFF), 0, 0),
    ("TIOCSTI", lambda: call("ioctl", 0, 0x5412, b"x"), -errno.EPERM, None),
    ("TIOCSTI, high bits", lambda: call("ioctl", 0, 0x7F00000000005412, b"x"), -errno.EPERM, None),
    ("TIOCLINUX", lambda: call("ioctl", 0, 0x541C, b"\x02"), -errno.EPERM, None),
    ("FS_IOC_SETFLAGS", lambda: call("ioctl", -1, 0x40086602, 0), -errno.EPERM, EBADF),
    ("FS_IOC_FSSETXATTR", lambda: call("ioctl", -1, 0x401C5820, 0), -errno.EPERM, EBADF),
    ("BTRFS_IOC_SUBVOL_CREATE", lambda: call("ioctl", -1, 0x5000940E, 0), -errno.EPERM, EBADF),
    ("prctl PR_SET_MM", lambda: call("prctl", 35, 99, 0, 0, 0), -errno.EPERM, None),
    ("setrlimit RTTIME", lambda: call("setrlimit", RLIMIT_RTTIME, _limits()), -errno.EPERM, 0),
    ("prlimit RTTIME", lambda: call("prlimit64", 0, RLIMIT_RTTIME, _limits(), None), -errno.EPERM, 0),
    ("prlimit RTTIME read", lambda: call("prlimit64", 0, RLIMIT_RTTIME, None, bytes(16)), 0, 0),
    ("prlimit own", lambda: call("prlimit64", 0, RLIMIT_NOFILE, _limits(), None), 0, 0),
    ("setpriority user", lambda: call("setpriority", 2, 0, 19), -errno.EPERM, 0),
    ("ioprio_set user", lambda: call("ioprio_set", 3, 0, 0), -errno.EPERM, None),
    (
        "move_pages other",
        lambda: call("move_pages", 0x7FFFFFF0, 0, None, None, None, 0),
        -errno.EPERM,
        None,
    ),
    ("AF_VSOCK", lambda: call("socket", 40, 1, 0), -errno.EAFNOSUPPORT, None),
    ("AF_ALG", lambda: call("socket", 38, 5, 0), -errno.EAFNOSUPPORT, None),
    ("AF_PACKET", lambda: call("socket", 17, 3, 0), -errno.EAFNOSUPPORT, None),
    ("MPTCP", lambda: call("socket", 2, 1, 262), -errno.EPROTONOSUPPORT, None),
    ("SMC", lambda: call("socket", 2, 1, 256), -errno.EPROTONOSUPPORT, None),
    ("SCTP", lambda: call("socket", 2, 1, 132), -errno.EPROTONOSUPPORT, None),
    ("NETLINK_KOBJECT_UEVENT", lambda: call("socket", 16, 3, 15), -errno.EPROTONOSUPPORT, None),
    ("FASTOPEN sendto", lambda: call("sendto", -1, b"x", 1, 0x20000000, None, 0), -errno.EOPNOTSUPP, EBADF),
    ("FASTOPEN sendmsg", lambda: call("sendmsg", -1, None, 0x20000000), -errno.EOPNOTSUPP, EBADF),
    ("FASTOPEN sendmmsg", lambda: call("sendmmsg", -1, None, 0, 0x20000000), -errno.EOPNOTSUPP, EBADF),
    ("a number too new", lambda: _raw(syscalls.HIGHEST + 1), -errno.ENOSYS, None),
    ("a number never given", lambda: _raw(400), -errno.ENOSYS, None),
    ("a negative number", lambda: _raw(-7), -errno.ENOSYS, None),
]


@pytest.mark.parametrize(
    ("attempt", "expected", "native"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_refused(attempt: Callable[[], int], expected: int, native: int | None) -> None:
    outcome = supervised(attempt)
    assert outcome.value == expected
    assert outcome.seen == []
    if native is not None:
        assert as_user(attempt) == native


# name, call; each must reach the supervisor, and its refusal must reach the caller
ASKED: list[tuple[str, Callable[[], int]]] = [
    ("openat", lambda: call("openat", HERE, b"/etc/hostname", 0, 0)),
    ("openat2", lambda: call("openat2", HERE, b"/etc/hostname", bytes(24), 24)),
    ("execve", lambda: call("execve", b"/bin/true", None, None)),
    ("execveat", lambda: call("execveat", HERE, b"/bin/true", None, None, 0)),
    ("renameat2", lambda: call("renameat2", HERE, b"a", HERE, b"b", 0)),
    ("unlinkat", lambda: call("unlinkat", HERE, b"a", 0)),
    ("mkdirat", lambda: call("mkdirat", HERE, b"a", 0)),
    ("linkat", lambda: call("linkat", HERE, b"a", HERE, b"b", 0)),
    ("symlinkat", lambda: call("symlinkat", b"a", HERE, b"b")),
    ("mknodat", lambda: call("mknodat", HERE, b"a", 0, 0)),
    ("truncate", lambda: call("truncate", b"a", 0)),
    ("fchmod", lambda: call("fchmod", 0, 0)),
    ("fchmodat", lambda: call("fchmodat", HERE, b"a", 0)),
    ("fchmodat2", lambda: call("fchmodat2", HERE, b"a", 0, 0)),
    ("fchown", lambda: call("fchown", 0, -1, -1)),
    ("fchownat", lambda: call("fchownat", HERE, b"a", -1, -1, 0)),
    ("utimensat", lambda: call("utimensat", HERE, b"a", None, 0)),
    ("setxattr", lambda: call("setxattr", b"a", b"user.x", b"", 0, 0)),
    ("lsetxattr", lambda: call("lsetxattr", b"a", b"user.x", b"", 0, 0)),
    ("fsetxattr", lambda: call("fsetxattr", 0, b"user.x", b"", 0, 0)),
    ("removexattr", lambda: call("removexattr", b"a", b"user.x")),
    ("setxattrat", lambda: call("setxattrat", HERE, b"a", 0, b"user.x", None, 0)),
    ("removexattrat", lambda: call("removexattrat", HERE, b"a", 0, b"user.x")),
    ("file_setattr", lambda: call("file_setattr", HERE, b"a", None, 0, 0)),
    ("connect", lambda: call("connect", 0, bytes(16), 16)),
    ("bind", lambda: call("bind", 0, bytes(16), 16)),
    ("socket", lambda: call("socket", 2, 2, 1)),
    ("socket", lambda: call("socket", 1, 3 | 0x80000, 0)),
    ("socketpair", lambda: call("socketpair", 1, 3, 0, bytes(8))),
    ("sendto", lambda: call("sendto", -1, b"x", 1, 0, bytes(16), 16)),
    ("prlimit64", lambda: call("prlimit64", os.getpid(), RLIMIT_NOFILE, _limits(), None)),
    ("sched_setaffinity", lambda: call("sched_setaffinity", os.getpid(), 8, bytes(8))),
    ("sched_setscheduler", lambda: call("sched_setscheduler", os.getpid(), 0, bytes(4))),
    ("sched_setparam", lambda: call("sched_setparam", os.getpid(), bytes(4))),
    ("sched_setattr", lambda: call("sched_setattr", os.getpid(), bytes(56), 0)),
    ("setpriority", lambda: call("setpriority", 0, os.getpid(), 19)),
    ("setpriority", lambda: call("setpriority", 1, 0, 19)),
    ("ioprio_set", lambda: call("ioprio_set", 1, os.getpid(), 0)),
]
LEGACY = "open creat rename unlink rmdir mkdir link symlink mknod chmod chown lchown utime utimes futimesat"


@pytest.mark.parametrize(("name", "attempt"), ASKED, ids=[f"{r[0]}-{n}" for n, r in enumerate(ASKED)])
def test_asked(name: str, attempt: Callable[[], int]) -> None:
    outcome = supervised(attempt)
    assert outcome.value == NOTIFIED
    assert outcome.names == [name]


def test_asked_legacy_calls() -> None:
    present = [name for name in LEGACY.split() if name in NATIVE]
    assert bool(present) == X86
    outcome = supervised(lambda: [call(name, b"a", 0, 0, 0) for name in present])
    assert outcome.value == [NOTIFIED] * len(present)
    assert outcome.names == present


def test_dumpable_is_faked() -> None:
    def child() -> tuple[int, int]:
        before = call("prctl", 3, 0, 0, 0, 0)
        return before, call("prctl", 4, 1 - before, 0, 0, 0) or call("prctl", 3, 0, 0, 0, 0)

    before, after = supervised(child).value
    assert before == after == 1
    assert as_user(lambda: call("prctl", 4, 0, 0, 0, 0) or call("prctl", 3, 0, 0, 0, 0)) == 0


def test_fixed_reads_are_not_notified_and_writes_are() -> None:
    def child() -> list[int]:
        made = [call("openat", HERE, b"/etc/passwd", flags, 0) for flags in (0, 0x200000, 1, 0x200, 0x41)]
        return [min(one, 0) for one in made]

    outcome = supervised(child, reads_fixed=True)
    assert outcome.value == [0, 0, NOTIFIED, NOTIFIED, NOTIFIED]
    assert outcome.names == ["openat"] * 3


def test_continue_really_continues() -> None:
    outcome = supervised(lambda: os.listdir("/proc/self/task") != [], refuse=lambda _n, _a: False)
    assert outcome.value is True
    assert set(outcome.names) == {"openat"}


def test_also_names_are_notified() -> None:
    outcome = supervised(lambda: call("listen", 0, 1), also=frozenset({"listen"}))
    assert (outcome.value, outcome.names) == (NOTIFIED, ["listen"])


def test_a_second_listener_is_refused_and_a_plain_filter_is_not() -> None:
    allow = bpf.INSTRUCTION.pack(6, 0, 0, 0x7FFF0000)

    def child() -> tuple[int, int]:
        buffer = ctypes.create_string_buffer(allow, len(allow))
        prog = struct.pack("=HxxxxxxQ", 1, ctypes.addressof(buffer))
        return call("seccomp", 1, 8, prog), call("seccomp", 1, 0, prog)

    assert supervised(child).value == (-errno.EBUSY, 0)


def test_threads_and_programs_still_start() -> None:
    def child() -> tuple[int, list[int]]:
        import threading

        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(1))
        thread.start()
        thread.join()
        return subprocess.run(["/bin/true"], check=False).returncode, seen

    assert supervised(child, refuse=lambda _n, _a: False).value == (0, [1])


@pytest.mark.skipif(not X86, reason="x32 exists on x86_64 alone: not tried")
def test_x32_numbers_are_refused() -> None:
    outcome = supervised(lambda: [_raw(0x40000000 | number) for number in (2, 39, 257, 520)])
    assert outcome.value == [-errno.ENOSYS] * 4


@pytest.fixture(scope="module")
def int80(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    if not X86:
        pytest.skip("int 0x80 exists on x86_64 alone: not tried")
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("gcc is not installed: the i386 entry was not tried")
    place = tmp_path_factory.mktemp("int80")
    source = place / "int80.c"
    source.write_text(
        'int main(void){long r;__asm__ volatile("int $0x80":"=a"(r):"a"(20):"memory");return r>0?42:43;}\n'
    )
    program = place / "int80"
    subprocess.run([gcc, "-o", str(program), str(source)], check=True)
    for up in (place, *place.parents):
        if up == pathlib.Path("/tmp"):
            break
        up.chmod(up.stat().st_mode | 0o055)
    return program


def test_the_i386_entry_is_killed(int80: pathlib.Path) -> None:
    native = as_user(lambda: subprocess.run([str(int80)], check=False).returncode)
    if native != 42:
        pytest.skip("this kernel has no i386 entry (IA32_EMULATION): the kill was not tried")
    outcome = supervised(lambda: os.execv(str(int80), ["int80"]), refuse=lambda _n, _a: False)
    assert outcome.signal == signal.SIGSYS
