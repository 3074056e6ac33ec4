"""The number tables against the kernel's own headers, the classification, and what kernel/ may import."""

from __future__ import annotations

import ast
import os
import pathlib
import re
import subprocess
import sys

import pytest

from remit_daemon.kernel import bpf, confine, filter_table, syscalls, trials

X86_HEADER = pathlib.Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
GENERIC_HEADER = pathlib.Path("/usr/include/asm-generic/unistd.h")
KERNEL = pathlib.Path(syscalls.__file__).parent
NOT_YET = {"uretprobe": 335, "uprobe": 336}  # Linux 6.11 and 6.18, x86_64 alone


def _header(path: pathlib.Path) -> str:
    if path.exists():
        return path.read_text()
    pytest.skip(f"{path} is not installed: these numbers were not checked")


def _numbers(text: str) -> dict[str, int]:
    found = {m[2]: int(m[3]) for m in re.finditer(r"#define __NR(3264)?_(\w+)\s+(\d+)\b", text)}
    if "__NR3264_fstatat" in text:
        found["newfstatat"] = found.pop("fstatat")
        for gone in ("arch_specific_syscall", "syscalls", "sync_file_range2"):
            found.pop(gone, None)
        # 64-bit machines have no *_time64 calls (__BITS_PER_LONG == 32 in the header)
        found = {name: number for name, number in found.items() if not 403 <= number <= 423}
    return found


@pytest.mark.parametrize(
    ("arch", "header"), [("x86_64", X86_HEADER), ("aarch64", GENERIC_HEADER)], ids=["x86_64", "aarch64"]
)
def test_numbers_are_the_headers(arch: str, header: pathlib.Path) -> None:
    said = _numbers(_header(header))
    ours = syscalls.table(arch)
    assert len(said) > 300
    assert {name: ours.get(name) for name in said} == said
    newest = max(said.values())
    invented = {n: v for n, v in ours.items() if v <= newest and n not in said and NOT_YET.get(n) != v}
    assert invented == {}


def test_later_numbers_agree_on_both_machines() -> None:
    late = [{n: v for n, v in syscalls.table(arch).items() if v >= 424} for arch in ("x86_64", "aarch64")]
    assert late[0] == late[1]
    assert sorted(late[0].values()) == list(range(424, syscalls.HIGHEST + 1))
    known = {
        "fchmodat2": 452,
        "setxattrat": 463,
        "removexattrat": 466,
        "open_tree_attr": 467,
        "file_setattr": 469,
    }
    assert {name: late[0][name] for name in known} == known


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_no_number_twice(arch: str) -> None:
    numbers = list(syscalls.table(arch).values())
    assert len(numbers) == len(set(numbers))


def test_every_name_has_exactly_one_answer() -> None:
    names = set(syscalls.table("x86_64")) | set(syscalls.table("aarch64"))
    groups = [
        filter_table.ALLOWED,
        filter_table.NOTIFY_CALLS,
        filter_table.EPERM_CALLS,
        filter_table.ENOSYS_CALLS,
        frozenset(filter_table.rules(reads_fixed=False, net_all=False)),
    ]
    assert sum(len(group) for group in groups) == len(names)
    assert frozenset().union(*groups) == names


def test_rules_are_the_same_names_in_every_variant() -> None:
    names = {
        frozenset(filter_table.rules(reads_fixed=reads, net_all=net))
        for reads in (False, True)
        for net in (False, True)
    }
    assert len(names) == 1


def test_an_unknown_machine_is_named() -> None:
    with pytest.raises(syscalls.UnsupportedMachine, match="riscv64"):
        syscalls.table("riscv64")
    with pytest.raises(syscalls.UnsupportedMachine, match="riscv64"):
        bpf.build("riscv64", reads_fixed=False, net_all=False)


def test_structures_have_the_kernels_sizes() -> None:
    """SECCOMP_GET_NOTIF_SIZES is (80, 24, 64); struct sock_fprog is 16, struct sock_filter 8."""
    assert trials._NOTIF.size == 80
    assert trials._RESP.size == 24
    assert trials._ADDFD.size == 24
    assert confine._FPROG.size == 16
    assert bpf.INSTRUCTION.size == confine.INSTRUCTION_SIZE == 8


def test_modules_import_only_what_starts_fast() -> None:
    permitted = {"__future__", "ctypes", "struct", "os", "errno", "fcntl", "stat"}
    for path in KERNEL.glob("*.py"):
        if path.name == "calls.py":
            continue
        guarded: set[ast.AST] = set()
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.If)
                and isinstance(node.test, ast.Name)
                and node.test.id == "TYPE_CHECKING"
            ):
                guarded.update(ast.walk(node))
        for node in ast.walk(tree):
            if node in guarded:
                continue
            if isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= permitted, path.name
            elif isinstance(node, ast.ImportFrom) and not node.level:
                assert node.module in permitted, path.name


def test_confine_and_cached_require_load_nothing_heavy() -> None:
    script = (
        "import sys; from remit_daemon.kernel import bpf, confine, landlock, probe\n"
        "bad = {'enum', 'dataclasses', 'typing', 're', 'json', 'collections', 'platform', 'socket',"
        " 'remit_daemon.kernel.trials'} & set(sys.modules)\n"
        "print(sorted(bad))"
    )
    here = os.pathsep.join(str(KERNEL.parents[index]) for index in (1,))
    outcome = subprocess.run(
        [sys.executable, "-S", "-c", script],
        env={"PYTHONPATH": here},
        capture_output=True,
        text=True,
        check=True,
    )
    assert outcome.stdout.strip() == "[]"
