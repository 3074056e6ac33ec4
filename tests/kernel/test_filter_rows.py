"""Every row of the filter, on both machines, in an independent BPF interpreter."""

from __future__ import annotations

import errno

import pytest

from fakes.bpf_vm import Machine, disassemble
from remit_daemon.kernel import bpf, filter_table, syscalls

ARCHES = ("x86_64", "aarch64")
ALLOW, NOTIFY, KILL = 0x7FFF0000, 0x7FC00000, 0x80000000
HIGH = 0xDEADBEEF00000000  # the kernel ignores the high half of an int argument; so must the filter


def no(code: int) -> int:
    return 0x00050000 | code


EPERM, ENOSYS = no(errno.EPERM), no(errno.ENOSYS)
EAFNOSUPPORT, EPROTONOSUPPORT, EOPNOTSUPP = (
    no(errno.EAFNOSUPPORT),
    no(errno.EPROTONOSUPPORT),
    no(errno.EOPNOTSUPP),
)


class Filter:
    def __init__(self, arch: str, **options: object) -> None:
        options = {"reads_fixed": False, "net_all": False} | options
        self.arch = arch
        self.machine = Machine(bpf.build(arch, **options))  # type: ignore[arg-type]
        self.table = syscalls.table(arch)

    def __call__(self, name: str, *arguments: int) -> int | None:
        if name not in self.table:
            return None
        return self.machine.run(syscalls.audit_arch(self.arch), self.table[name], *arguments)


@pytest.fixture(params=ARCHES)
def closed(request: pytest.FixtureRequest) -> Filter:
    return Filter(request.param)


@pytest.fixture(params=ARCHES)
def fixed(request: pytest.FixtureRequest) -> Filter:
    return Filter(request.param, reads_fixed=True)


@pytest.fixture(params=ARCHES)
def net(request: pytest.FixtureRequest) -> Filter:
    return Filter(request.param, net_all=True)


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("reads_fixed", [False, True])
@pytest.mark.parametrize("net_all", [False, True])
def test_constant_answers(arch: str, reads_fixed: bool, net_all: bool) -> None:
    run = Filter(arch, reads_fixed=reads_fixed, net_all=net_all)
    groups = (
        (filter_table.ALLOWED, ALLOW),
        (filter_table.NOTIFY_CALLS, NOTIFY),
        (filter_table.EPERM_CALLS, EPERM),
        (filter_table.ENOSYS_CALLS, ENOSYS),
    )
    for names, action in groups:
        for name in names:
            assert run(name) in (action, None), name
            assert run(name, *([0xFFFFFFFFFFFFFFFF] * 6)) in (action, None), name


@pytest.mark.parametrize("arch", ARCHES)
def test_every_number_is_answered_and_unknown_ones_are_refused(arch: str) -> None:
    run = Filter(arch)
    named = set(run.table.values())
    for number in [*range(1100), 0x3FFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]:
        if number not in named:
            assert run.machine.run(syscalls.audit_arch(arch), number) == ENOSYS, number


@pytest.mark.parametrize("arch", ARCHES)
def test_another_entry_is_killed(arch: str) -> None:
    run = Filter(arch)
    foreign = (0x40000003, 0x40000028, 0, syscalls.audit_arch("aarch64" if arch == "x86_64" else "x86_64"))
    for word in foreign:  # i386, ARM
        assert all(run.machine.run(word, number) == KILL for number in range(500))


def test_x32_is_refused_for_every_call() -> None:
    run = Filter("x86_64")
    for number in range(1100):
        assert run.machine.run(syscalls.AUDIT_ARCH_X86_64, 0x40000000 | number) == ENOSYS


def test_notified_names_are_those_of_all_variants() -> None:
    seen = set()
    for net_all in (False, True):
        found = bpf.answers("x86_64", reads_fixed=False, net_all=net_all)
        for name, number in syscalls.table("x86_64").items():
            answer = found[number]
            rows = answer if isinstance(answer, tuple) else ((answer,),)
            if any(row[0] == NOTIFY for row in rows):
                seen.add(name)
    assert seen == set(bpf.NOTIFIED)


READ_ONLY = [
    0,
    0x80000,
    0x800,
    0x20000,
    0x40000,
]  # CLOEXEC NONBLOCK NOFOLLOW NOATIME
DIRECTORY = [0x10000, 0x4000, 0x90800]  # of either architecture; as opendir has it
CHANGING = [1, 2, 3, 0x40, 0x41, 0x200, 0x242, 0x400000 | 2, 0x400000, 0x80000 | 1, 0x440]
O_PATH = 0x200000


def test_opens(closed: Filter, fixed: Filter) -> None:
    for name, before in (("open", (7,)), ("openat", (7, 7))):
        for flags in READ_ONLY:
            assert closed(name, *before, flags) in (NOTIFY, None)
            assert fixed(name, *before, flags | HIGH) in (ALLOW, None)
        for flags in (*CHANGING, *DIRECTORY):
            assert closed(name, *before, flags) in (NOTIFY, None)
            assert fixed(name, *before, flags) in (NOTIFY, None)
        for flags in (O_PATH, O_PATH | 0x80000, O_PATH | 0x40 | 2):  # the kernel drops what is not O_PATH's
            assert closed(name, *before, flags) in (ALLOW, None)
            assert fixed(name, *before, flags) in (ALLOW, None)
    assert fixed("openat2") == NOTIFY
    assert fixed("creat") in (NOTIFY, None)


def test_clone_and_unshare(closed: Filter) -> None:
    for bit in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert closed("clone", bit | 17) == EPERM
        assert closed("unshare", bit) == EPERM
    assert closed("unshare", 0x80) == EPERM  # CLONE_NEWTIME
    assert closed("clone", 0x3D0F00) == ALLOW  # a thread
    assert closed("clone", 0x80 | 17) == ALLOW  # a signal number there
    assert closed("unshare", 0x200 | 0x400) == ALLOW  # CLONE_FS, CLONE_FILES
    assert closed("clone3") == ENOSYS


CLOEXEC_NONBLOCK = 0x80800


@pytest.mark.parametrize("extra", [0, CLOEXEC_NONBLOCK, HIGH])
def test_sockets(closed: Filter, net: Filter, extra: int) -> None:
    for run in (closed, net):
        assert run("socket", 1 | (extra & HIGH), 1 | extra, 0) == ALLOW
        assert run("socket", 1, 5 | extra, 0) == ALLOW
        assert run("socket", 1, 2 | extra, 0) == ALLOW  # where a datagram goes is decided as it is sent
        assert run("socket", 1, 3 | extra, 0) == NOTIFY  # AF_UNIX SOCK_RAW is a datagram socket
        assert run("socket", 16, 3 | extra, 0) == ALLOW
        assert [run("socket", 16, 3 | extra, protocol) for protocol in (2, 4, 9, 12, 15, 16)] == [
            EPROTONOSUPPORT
        ] * 6
        for family in (
            0,
            3,
            4,
            9,
            17,
            29,
            31,
            38,
            40,
            42,
            44,
            45,
            255,
        ):  # AX25 … PACKET CAN BT ALG VSOCK QIPCRTR XDP
            assert run("socket", family, 1 | extra, 0) == EAFNOSUPPORT
        for family in (2, 10):
            assert run("socket", family, 1 | extra, 0) == ALLOW
            assert run("socket", family, 1 | extra, 6) == ALLOW
            for protocol in (132, 136, 255, 256, 262):  # SCTP UDPLITE RAW SMC MPTCP
                assert run("socket", family, 1 | extra, protocol) == EPROTONOSUPPORT
            assert run("socket", family, 5 | extra, 132) == EPROTONOSUPPORT
            assert run("socket", family, 3 | extra, 255) == EPROTONOSUPPORT
            assert run("socket", family, 3 | extra, 1) == NOTIFY
    for family in (2, 10):
        assert closed("socket", family, 2 | extra, 0) == ALLOW
        assert closed("socket", family, 2 | extra, 17) == ALLOW
        assert closed("socket", family, 2 | extra, 58 if family == 10 else 1) == NOTIFY  # ping
        assert net("socket", family, 2 | extra, 58 if family == 10 else 1) == ALLOW
        assert net("socket", family, 2 | extra, 0) == ALLOW
        assert net("socket", family, 2 | extra, 17) == ALLOW
    for run in (closed, net):
        assert run("socketpair", 1, 1 | extra, 0) == ALLOW
        assert run("socketpair", 1, 5 | extra, 0) == ALLOW
        assert run("socketpair", 1, 2 | extra, 0) == ALLOW
        assert run("socketpair", 1, 3 | extra, 0) == NOTIFY
        assert run("socketpair", 30, 1 | extra, 0) == EAFNOSUPPORT


def test_sends(closed: Filter, net: Filter) -> None:
    fast = 0x20000000
    assert closed("sendto", 3, 1, 1, 0, 0, 0) == ALLOW
    assert closed("sendto", 3, 1, 1, 0, 0x7F0000000000, 16) == NOTIFY
    assert closed("sendto", 3, 1, 1, 0, 0x1000, 16) == NOTIFY
    assert closed("sendto", 3, 1, 1, 0, 0x100000000, 16) == NOTIFY  # only the high half is set
    assert closed("sendto", 3, 1, 1, fast, 0, 0) == EOPNOTSUPP
    assert closed("sendto", 3, 1, 1, fast | 0x4000, 0x1000, 16) == EOPNOTSUPP
    assert closed("sendmsg", 3, 1, fast) == EOPNOTSUPP
    assert closed("sendmmsg", 3, 1, 1, fast) == EOPNOTSUPP
    assert closed("sendmsg", 3, 1, 0x4000) == NOTIFY
    assert closed("sendmmsg", 3, 1, 1, 0) == NOTIFY
    for option in (23, 30):  # TCP_FASTOPEN, TCP_FASTOPEN_CONNECT
        assert closed("setsockopt", 3, 6, option, 0x1000, 4) == EOPNOTSUPP
        assert closed("setsockopt", 3, 6 | HIGH, option | HIGH, 0x1000, 4) == EOPNOTSUPP
        assert net("setsockopt", 3, 6, option, 0x1000, 4) == ALLOW
    for level, option in (
        (0, 4),
        (0, 50),
        (1, 25),
        (1, 62),
        (41, 6),
        (41, 32),
        (41, 50),
        (41, 57),
        (41, 76),
    ):
        assert closed("setsockopt", 3, level | HIGH, option | HIGH, 0x1000, 4) == EPERM
        assert net("setsockopt", 3, level, option, 0x1000, 4) == ALLOW
    assert closed("setsockopt", 3, 6, 1, 0x1000, 4) == ALLOW  # TCP_NODELAY
    assert closed("setsockopt", 3, 1, 23, 0x1000, 4) == ALLOW
    for name in ("sendto", "sendmsg", "sendmmsg"):
        assert net(name, 3, 1, fast, fast, 0x1000, 16) == ALLOW


def test_other_processes(closed: Filter) -> None:
    pointer = 0x7F0000001000
    assert closed("prlimit64", 0, 7, pointer, 0) == ALLOW
    assert closed("prlimit64", 99, 7, 0, pointer) == ALLOW
    assert closed("prlimit64", 99, 7, pointer, 0) == NOTIFY
    assert closed("prlimit64", 99, 7, 0x100000000, 0) == NOTIFY
    assert closed("prlimit64", 0, 15, pointer, 0) == EPERM
    assert closed("prlimit64", 0, 15 | HIGH, pointer, 0) == EPERM
    assert closed("prlimit64", 99, 15, pointer, 0) == EPERM
    assert closed("prlimit64", 0, 15, 0, pointer) == ALLOW
    assert closed("setrlimit", 15, pointer) == EPERM
    assert closed("setrlimit", 7, pointer) == ALLOW
    for name in ("sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr"):
        assert closed(name, 0) == ALLOW
        assert closed(name, 99) == NOTIFY
        assert closed(name, HIGH) == ALLOW
    assert closed("setpriority", 0, 0, 5) == ALLOW
    assert closed("setpriority", 0, 99, 5) == NOTIFY
    assert closed("setpriority", 1, 0, 5) == NOTIFY
    assert closed("setpriority", 2, 0, 5) == EPERM
    assert closed("ioprio_set", 1, 0, 5) == ALLOW
    assert closed("ioprio_set", 1, 9, 5) == NOTIFY
    assert closed("ioprio_set", 2, 0, 5) == NOTIFY
    assert closed("ioprio_set", 3, 0, 5) == EPERM
    for name in ("migrate_pages", "move_pages"):
        assert closed(name, 0) == ALLOW
        assert closed(name, 9) == EPERM


def test_ioctls_and_prctls(closed: Filter) -> None:
    for command in filter_table.IOCTLS:
        assert closed("ioctl", 0, command) == EPERM
        assert closed("ioctl", 0, command | HIGH) == EPERM
    for command in (0x5401, 0x5402, 0x5413, 0x540F, 0x5410, 0x541B, 0x5421, 0x40049409):  # TCGETS… FICLONE
        assert closed("ioctl", 0, command) == ALLOW
    assert closed("prctl", 4, 0) == no(0)
    assert closed("prctl", 4 | HIGH, 0) == no(0)
    assert closed("prctl", 35, 8) == EPERM
    for option in (1, 3, 15, 22, 36, 38, 0x59616D61):
        assert closed("prctl", option) == ALLOW
    assert closed("personality", 0xFFFFFFFF) == ALLOW
    assert closed("personality", 0) == ALLOW
    assert closed("personality", 0x400000) == EPERM


@pytest.mark.parametrize("arch", ARCHES)
def test_also_turns_allow_into_notify_and_keeps_refusals(arch: str) -> None:
    more = frozenset({"sendmsg", "listen", "kill", "mount", "prctl"})
    run = Filter(arch, also=more)
    assert run("listen") == run("kill") == run("sendmsg", 3, 1, 0) == NOTIFY
    assert run("sendmsg", 3, 1, 0x20000000) == EOPNOTSUPP
    assert run("mount") == EPERM
    assert run("prctl", 4) == no(0)
    assert run("read") == ALLOW


@pytest.mark.parametrize("arch", ARCHES)
def test_the_search_is_short(arch: str) -> None:
    run = Filter(arch)
    for name in ("read", "write", "close", "mmap", "futex", "fstat"):
        run(name)
        assert run.machine.steps <= 20, name


def test_disassembly_names_every_target() -> None:
    blob = bpf.build("x86_64", reads_fixed=True, net_all=False)
    lines = disassemble(blob)
    assert len(lines) == len(blob) // 8
    assert lines[2].split() == ["2", "ret", "0x80000000"]
