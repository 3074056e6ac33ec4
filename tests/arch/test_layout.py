"""The layout is the threat model: what each part may load, and where files may lie."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [ROOT / "policy", ROOT / "daemon", ROOT / "tui"]

# What would make every `remit run` slower, or put a parser of foreign data into the enforcing process.
TOO_HEAVY = (
    "asyncio", "cryptography", "dataclasses", "dbus_next", "enum", "json", "psutil", "pydantic", "re", "socket",
    "sqlite3", "subprocess", "textual", "threading", "tomllib", "typing",
)  # fmt: skip

PROBE = """
import sys
sys.path[:0] = sys.argv[1].split(":")
__import__(sys.argv[2])
print(*sorted(sys.modules))
"""


def loaded_by(module: str) -> set[str]:
    """Return the names of all modules that a fresh interpreter without ``site`` holds after importing ``module``."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROBE, ":".join(map(str, SOURCES)), module],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module", ["remit_daemon.supervisor.run", "remit_daemon.supervisor.serve", "remit_policy.model"]
)
def test_the_supervisor_loads_nothing_heavy(module: str) -> None:
    loaded = loaded_by(module)
    assert module in loaded
    assert not loaded.intersection(TOO_HEAVY)


def test_the_supervisor_never_sees_the_other_processes_code() -> None:
    parts = {
        name.split(".")[1]
        for name in loaded_by("remit_daemon.supervisor.serve")
        if name.startswith("remit_daemon.")
    }
    assert parts <= {"kernel", "peers", "supervisor", "wire"}


def test_init_files_are_empty() -> None:
    # import-linter does not see imports made in them.
    full = [str(f.relative_to(ROOT)) for d in SOURCES for f in d.rglob("__init__.py") if f.stat().st_size]
    assert full == [
        "daemon/remit_client/__init__.py"
    ]  # what others import from; the next test looks at what it does


def test_the_client_is_standard_library_alone() -> None:
    loaded = loaded_by("remit_client") | loaded_by("remit_client.verify")
    ours = {name for name in loaded if name.startswith("remit_")}
    assert ours == {"remit_client", "remit_client.client", "remit_client.verify"}
    assert not loaded.intersection(("cryptography", "joserfc", "pydantic", "dbus_next", "asyncio"))


def test_packaging_is_no_python_package() -> None:
    # It would shadow the `packaging` library for everything started in this directory.
    assert list((ROOT / "packaging").rglob("*.py")) == []


def test_the_import_contracts_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        env=os.environ | {"PYTHONPATH": ":".join(map(str, SOURCES))},
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_cancellation_can_be_lost() -> None:
    """On Python 3.11 ``asyncio.wait_for`` forgets that it was cancelled when what it waits for is done in that very moment."""
    users = [p.name for top in SOURCES for p in top.rglob("*.py") if "wait_for(" in p.read_text()]
    assert users == [], "use asyncio.timeout"
