"""Files that are no policy: each is reported where it is wrong, with what was expected, and allows nothing."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from remit_policy.layers import PolicyDirs, PolicyError, PolicySet, check_file, load, packs

CASES: list[dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("broken.toml").read_text(encoding="utf-8")
)["case"]
ANYBODY = 65534  # whom permissions bind, should root run the tests

all_cases = pytest.mark.parametrize("case", CASES, ids=[c["name"] for c in CASES])


def make(case: dict[str, Any], folder: Path) -> Path:
    """Put what ``case`` describes into ``folder`` and return its path."""
    path = folder / "broken.toml"
    if "policy" in case:
        path.write_bytes(case["policy"].encode())
    elif "latin1" in case:
        path.write_bytes(case["latin1"].encode("latin1"))
    elif "repeat" in case:
        out: list[str] = []
        for part in case["repeat"]:
            if isinstance(part, int):
                out[-1] *= part
            else:
                out.append(part)
        path.write_text("".join(out), encoding="utf-8")
    else:
        return _PLACES[case["place"]](path)
    return path


def _directory(path: Path) -> Path:
    path.mkdir()
    return path


def _link(path: Path, target: str) -> Path:
    path.symlink_to(target)
    return path


def _below(path: Path) -> Path:
    path.write_text("")
    return path / "broken.toml"


def _fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def _huge(path: Path) -> Path:
    with path.open("wb") as f:
        f.truncate(1 << 31)
    return path


def _unreadable(path: Path) -> Path:
    path.write_text("version = 1\n")
    path.chmod(0)
    return path


_PLACES = {
    "directory": _directory,
    "loop": lambda p: _link(p, str(p)),
    "dangling": lambda p: _link(p, "/nonexistent/file"),
    "nothing": lambda p: p,
    "below": _below,
    "fifo": _fifo,
    "zero": lambda p: _link(p, "/dev/zero"),
    "huge": _huge,
    "unreadable": _unreadable,
}


@all_cases
def test_it_is_reported_where_it_is_wrong(case: dict[str, Any], tmp_path: Path) -> None:
    if case.get("place") == "unreadable":
        return  # root may read everything: a test below asks an ordinary account
    path = make(case, tmp_path)
    found = check_file(str(path), PolicySet(packs()))
    said = [str(p).removeprefix(f"{path}:") for p in found]
    assert len(said) == len(case["problems"])
    for got, wanted in zip(said, case["problems"], strict=True):
        # the parser's own words change with Python's versions: for these only the place is written down
        assert got == wanted if "expected" in wanted else got.startswith(wanted)
    assert all(p.file == str(path) and p.line >= 1 and p.column >= 1 and p.expected for p in found)


@all_cases
def test_no_session_starts_by_it(case: dict[str, Any], tmp_path: Path) -> None:
    if case.get("place") in ("nothing", "below", "unreadable"):
        return
    path = make(case, tmp_path)
    found = load(PolicyDirs(admin="", user=str(path.parent)))
    assert found.problems
    with pytest.raises(PolicyError):
        found.snapshot("x", "", "", {"HOME": "/h", "PROJECT": "/h/p", "TMPDIR": "/t"})


def test_an_unreadable_file_is_reported_to_an_ordinary_account(tmp_path: Path) -> None:
    path = _unreadable(tmp_path / "broken.toml")
    code = (
        "import os, sys; from remit_policy.layers import PolicySet, check_file, packs; some = PolicySet(packs());"
        f"os.geteuid() or os.setuid({ANYBODY}); print(*check_file(sys.argv[1], some))"
    )
    for folder in (tmp_path, *tmp_path.parents):
        if os.geteuid() == 0 and str(folder).startswith("/tmp/"):
            folder.chmod(folder.stat().st_mode | stat.S_IXOTH)
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{path}:1:1: cannot be opened: permission denied; expected a readable file\n"


@pytest.mark.parametrize(
    "name", ["not toml", "relative pattern", "not UTF-8", "a directory", "a member that is none"]
)
def test_the_command_says_so_and_ends_with_2(name: str, tmp_path: Path) -> None:
    case = next(c for c in CASES if c["name"] == name)
    path = make(case, tmp_path)
    for words in (["check", str(path)], ["why", "x", "read", "/etc", "--policy", str(path)]):
        done = subprocess.run(
            [sys.executable, "-m", "remit_daemon.cli.main", "policy", *words],
            capture_output=True,
            text=True,
            env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "none")},
        )
        assert (done.returncode, done.stdout) == (2, "")
        where = case["problems"][0].split(": ")[0]
        assert done.stderr.startswith(f"{path}:{where}: error: ")
        assert "Traceback" not in done.stderr
