"""A role whose network is open to it still does not reach what would act for it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from system.harness import GID, PYTHON, UID, Arena

CONNECTS = """
import socket, sys
for path in sys.argv[1:]:
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.connect(path)
            print("reached", path.rpartition("/")[2])
        except OSError as e:
            print(e.errno, path.rpartition("/")[2])
"""


@pytest.fixture
def arena() -> Iterator[Arena]:
    a = Arena()
    try:
        a.write_policy(more="\n[role.probe.net]\nall = true\n")
        a.start_daemon()
        yield a
    finally:
        a.close()


def test_helpers_elsewhere_are_helpers_too(arena: Arena) -> None:
    place = arena.home + "/.colima"
    os.mkdir(place)
    kept, paths = [], []
    for name in ("docker.sock", "database"):
        s = socket.socket(socket.AF_UNIX)
        kept.append(s)
        paths.append(f"{place}/{name}")
        s.bind(paths[-1])
        s.listen()
    for path in (place, *paths):
        os.chown(path, UID, GID)
    code, out, err = arena.communicate(arena.remit_run(PYTHON, "-c", CONNECTS, *paths))
    assert code == 0, err
    assert out.splitlines() == ["13 docker.sock", "reached database"]
    for s in kept:
        s.close()
