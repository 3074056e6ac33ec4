"""The seccomp filter: classic BPF made from `filter_table.py` for one machine.

    arch is not the native one (int 0x80, a 32-bit binary)   KILL_PROCESS
    x86_64: x32 bit set                                      ENOSYS
    binary search on the number                              the table's answer, or its rows
    a number that the table does not name                    ENOSYS

Jumps reach 255 instructions (<linux/filter.h>, u8), so everything here is a self-contained fragment that ends in
RET, and the search tree steps over its left half with an unconditional jump where that is longer. Comparing the
number alone also lets the kernel (5.11+) remember the calls that are always allowed in a bitmap and not run the
filter for them at all.
"""

from __future__ import annotations

import struct

from . import filter_table as table
from . import syscalls

# Classic BPF, <linux/bpf_common.h>
LD_ABS = 0x20
AND_K = 0x54
JA = 0x05
JEQ = 0x15
JGE = 0x35
JSET = 0x45
RET = 0x06
INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS

# struct seccomp_data, <linux/seccomp.h>; both machines are little-endian
NR = 0
ARCH = 4
ARGS = 16

Instruction = tuple[int, int, int, int]

NOTIFIED: frozenset[str] = table.NOTIFY_CALLS | frozenset(
    name
    for net_all in (False, True)
    for name, rows in table.rules(reads_fixed=False, net_all=net_all).items()
    if any(row[0] == table.NOTIFY for row in rows)
)


class FilterError(Exception):
    """The table cannot be made into a filter: a mistake in remit, not of the user."""


def _condition(condition: table.Condition, escape: int) -> list[Instruction]:
    """Return the test of one condition; when it fails, step over `escape` more instructions."""
    kind, arg, mask, value = condition
    low = ARGS + 8 * arg
    if kind == "pointer":
        return [
            (LD_ABS, 0, 0, low),
            (JEQ, 0, 2, 0),  # a set bit in the low half decides at once
            (LD_ABS, 0, 0, low + 4),
            (JEQ, escape, 0, 0),
        ]
    if kind == "bits":
        return [(LD_ABS, 0, 0, low), (JSET, 0, escape, mask)]
    if kind != "masked":
        raise FilterError(f"unknown condition {kind}")
    test = (JEQ, 0, escape, value)
    if mask == 0xFFFFFFFF:
        return [(LD_ABS, 0, 0, low), test]
    return [(LD_ABS, 0, 0, low), (AND_K, 0, 0, mask), test]


def _row(row: table.Row) -> list[Instruction]:
    action = row[0]
    if not isinstance(action, int):
        raise FilterError("a row starts with its action")
    code: list[Instruction] = [(RET, 0, 0, action)]
    for condition in row[:0:-1]:
        code = _condition(condition, len(code)) + code  # type: ignore[arg-type]
    return code


def _rows(rows: tuple[table.Row, ...]) -> list[Instruction]:
    if len(rows[-1]) != 1:
        raise FilterError("the last row must be without conditions")
    return [instruction for row in rows for instruction in _row(row)]


def _search(leaves: list[tuple[int, list[Instruction]]]) -> list[Instruction]:
    """Return a binary search over `leaves`, (first number, code) ascending."""
    if len(leaves) == 1:
        return leaves[0][1]
    middle = len(leaves) // 2
    left, right = _search(leaves[:middle]), _search(leaves[middle:])
    first = leaves[middle][0]
    if len(left) <= 255:
        return [(JGE, len(left), 0, first), *left, *right]
    return [(JGE, 0, 1, first), (JA, 0, 0, len(left)), *left, *right]


def answers(
    arch: str, *, reads_fixed: bool, net_all: bool, also: frozenset[str] = frozenset()
) -> dict[int, object]:
    """Return number -> action or rows, for every number that `arch` names; see `build`."""
    ruled = table.rules(reads_fixed=reads_fixed, net_all=net_all)
    found: dict[int, object] = {}
    for name, number in syscalls.table(arch).items():
        answer: object = ruled.get(name)
        if answer is None:
            if name in table.ALLOWED:
                answer = table.ALLOW
            elif name in table.NOTIFY_CALLS:
                answer = table.NOTIFY
            elif name in table.EPERM_CALLS:
                answer = table.EPERM
            else:
                answer = table.ENOSYS
        if name in also:
            if isinstance(answer, tuple) and answer[-1] == (table.ALLOW,):
                answer = (*answer[:-1], (table.NOTIFY,))
            elif answer == table.ALLOW:
                answer = table.NOTIFY
        found[number] = answer
    return found


def program(
    arch: str, *, reads_fixed: bool, net_all: bool, also: frozenset[str] = frozenset()
) -> list[Instruction]:
    """Return the instructions of the filter; see `build`."""
    known = answers(arch, reads_fixed=reads_fixed, net_all=net_all, also=also)
    leaves: list[tuple[int, list[Instruction]]] = []
    previous: object = None
    for number in range(syscalls.HIGHEST + 2):
        answer = known.get(number, table.ENOSYS)
        if answer == previous:
            continue
        previous = answer
        leaves.append((number, _rows(answer) if isinstance(answer, tuple) else _row((answer,))))
    head: list[Instruction] = [
        (LD_ABS, 0, 0, ARCH),
        (JEQ, 1, 0, syscalls.audit_arch(arch)),
        (RET, 0, 0, table.KILL_PROCESS),
        (LD_ABS, 0, 0, NR),
    ]
    if arch == "x86_64":
        head += [(JSET, 0, 1, syscalls.X32_BIT), (RET, 0, 0, table.ENOSYS)]
    return head + _search(leaves)


def build(
    arch: str = "native", *, reads_fixed: bool, net_all: bool, also: frozenset[str] = frozenset()
) -> bytes:
    """Return the filter of `arch` ("native", "x86_64" or "aarch64") as an array of struct sock_filter.

    reads_fixed: open and openat that can only read are allowed (Landlock enforces reads; none is asked or recorded).
    net_all: IP sockets of both kinds and addressed sends are allowed; connect and bind still notify.
    also: names whose ALLOW is turned into a notification, for a session that needs more ("sendmsg" and "sendmmsg"
    where it may hold an IP datagram socket, "listen" where listening is decided, "kill" where Landlock scopes no signals).
    """
    code = program(
        syscalls.ARCH if arch == "native" else arch, reads_fixed=reads_fixed, net_all=net_all, also=also
    )
    if len(code) > MAX_INSTRUCTIONS:
        raise FilterError(f"the filter has {len(code)} instructions; the kernel takes {MAX_INSTRUCTIONS}")
    return b"".join([INSTRUCTION.pack(*instruction) for instruction in code])
