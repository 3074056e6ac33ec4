"""The workloads: what is run in the scratch project, and how the project is laid out for them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FILES = 5000  # for tar
SOURCES = 50  # for gcc
OPENS = 20000  # opens in one timing of a single open

OPENS_C = r"""
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct timespec a, b;
    int n = atoi(argv[2]);
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int i = 0; i < n; i++) {
        int fd = open(argv[1], O_RDONLY | O_CLOEXEC);
        if (fd < 0) { perror(argv[1]); return 1; }
        close(fd);
    }
    clock_gettime(CLOCK_MONOTONIC, &b);
    printf("%.3f\n", ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / n);
    return 0;
}
"""

OPENS_PY = """\
import os, sys, time
path, n = sys.argv[1], int(sys.argv[2])
a = time.monotonic_ns()
for _ in range(n):
    os.close(os.open(path, os.O_RDONLY))
print((time.monotonic_ns() - a) / n)
"""


@dataclass
class Workload:
    """One row: ``argv`` in the project; ``needs`` are programs; ``before`` cleans up natively, untimed."""

    name: str
    argv: list[str]
    needs: tuple[str, ...] = ()
    before: Callable[[], None] | None = None
    per_open: bool = False  # its output is nanoseconds per open, and that is the figure
    promise: str = ""


def available(program: str) -> bool:
    return os.path.exists(program) if "/" in program else shutil.which(program) is not None


def sh(line: str) -> list[str]:
    return ["/bin/sh", "-c", line]


def _quiet(argv: list[str], cwd: Path, env: dict[str, str] | None = None) -> None:
    subprocess.run(argv, cwd=cwd, check=True, stdin=subprocess.DEVNULL, capture_output=True, env=env)


def lay_out(project: Path, python: str, env: dict[str, str]) -> list[str]:
    """Fill ``project`` for all workloads; return what could not be prepared, in words."""
    missing = []
    shutil.copy(Path(__file__).with_name("runner.py"), project)
    (project / "plain.txt").write_text("a file of the project\n")
    if shutil.which("gcc"):
        (project / "opens.c").write_text(OPENS_C)
        _quiet(["gcc", "-O2", "-o", "opens", "opens.c"], project)
        c = project / "c"
        c.mkdir()
        for i in range(SOURCES):
            (c / f"f{i}.c").write_text(
                f'#include <stdio.h>\n#include <stdlib.h>\nint f{i}(void) {{ return printf("{i}"); }}\n'
            )
        rules = "".join(f"f{i}.o: f{i}.c\n\tgcc -c -o $@ $<\n" for i in range(SOURCES))
        (c / "Makefile").write_text("all: " + " ".join(f"f{i}.o" for i in range(SOURCES)) + "\n" + rules)
    else:
        (project / "opens.py").write_text(OPENS_PY)
    many = project / "many"
    for i in range(FILES):
        path = many / f"d{i // 100}" / f"f{i}"
        if i % 100 == 0:
            path.parent.mkdir(parents=True)
        path.write_text(f"content of file {i}\n" * 10)
    _quiet(["tar", "-cf", "many.tar", "many"], project)
    if shutil.which("git"):
        repo = project / "repo"
        repo.mkdir()
        who = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"]
        _quiet(["git", "init", "-q"], repo, env)
        for commit in range(10):
            for i in range(20):
                (repo / f"file{commit}_{i}.txt").write_text(f"{commit} {i}\n" * 20)
            _quiet(["git", "add", "."], repo, env)
            _quiet(["git", *who, "commit", "-qm", f"commit {commit}"], repo, env)
    if shutil.which("npm"):
        node = project / "node"
        for i in range(30):
            package = node / "packages" / f"p{i}"
            package.mkdir(parents=True)
            (package / "package.json").write_text(f'{{"name": "p{i}", "version": "1.0.0", "main": "i.js"}}')
            (package / "i.js").write_text("module.exports = 1\n")
        (node / "package.json").write_text(
            '{"name": "bench", "version": "1.0.0", "workspaces": ["packages/*"]}'
        )
        try:
            _quiet(["npm", "install", "--offline", "--no-audit", "--no-fund"], node, env)
        except subprocess.CalledProcessError as e:
            missing.append("npm ls: " + e.stderr.decode(errors="replace").strip()[-200:])
    try:
        _quiet([python, "-m", "venv", "venv"], project)
    except subprocess.CalledProcessError as e:
        missing.append("pip list: " + e.stdout.decode(errors="replace").strip()[-200:])
    return missing


def all_workloads(project: Path, python: str) -> list[Workload]:
    """Return every workload, available or not."""

    def remover(*names: str) -> Callable[[], None]:
        def remove() -> None:
            for name in names:
                for path in project.glob(name):
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

        return remove

    def opens(path: str) -> list[str]:
        if (project / "opens").exists():
            return [str(project / "opens"), path, str(OPENS)]
        return [python, "-I", "-S", "opens.py", path, str(OPENS)]

    venv = str(project / "venv/bin/python")
    library = f"/usr/lib/python3.{sys.version_info.minor}"
    library = library if Path(library).exists() else "/usr/lib"
    return [
        Workload("one open, static zone (/usr)", opens("/usr/bin/env"), per_open=True, promise="<= 7 us"),
        Workload(
            "one open, project file", opens(str(project / "plain.txt")), per_open=True, promise="<= 14 us"
        ),
        Workload("git status + log", sh("cd repo && git status && git log --stat && git log -p"), ("git",)),
        Workload("npm ls", sh("cd node && npm ls --all"), ("npm",)),
        Workload(
            "npm install (local)",
            sh("cd node && npm install --offline --no-audit --no-fund"),
            ("npm",),
            before=remover("node/node_modules", "node/package-lock.json"),
        ),
        Workload("pip list", [venv, "-m", "pip", "--disable-pip-version-check", "list"], (venv,)),
        Workload(
            "python imports",
            [python, "-c", "import asyncio, json, email, sqlite3, unittest, xml.dom, http.server"],
        ),
        Workload("node start", ["node", "-e", "0"], ("node",)),
        Workload("gcc, 50 files, -j2", sh("make -s -j2 -C c"), ("gcc", "make"), before=remover("c/*.o")),
        Workload("grep -r", sh(f"grep -r remit_nothing {library}; true")),
        Workload("ripgrep", sh(f"rg -uuu -j2 remit_nothing {library}; true"), ("rg",)),
        Workload("tar c, 5,000 files", sh("tar -cf - many | cat >out.tar"), before=remover("out.tar")),
        Workload("tar x, 5,000 files", sh("mkdir out && tar -xf many.tar -C out"), before=remover("out")),
    ]
