"""Datagrams to where policy allows them: they arrive, and the ledger has them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from system.harness import PYTHON, Arena

SENDS = """
import os, socket, sys
port = int(sys.argv[1])
for how in ("sendto", "sendmsg", "sendto"):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(2)
        if how == "sendto":
            s.sendto(b"x", ("127.0.0.1", port))
        else:
            s.sendmsg([b"x"], [], 0, ("127.0.0.1", port))
        print(s.recv(99).decode().strip())
"""


@pytest.fixture
def arena() -> Iterator[Arena]:
    a = Arena()
    try:
        port = a.info["udp"]
        a.write_policy(more=f'\n[role.probe.net]\nconnect = {{ allow = ["localhost:{port}"] }}\n')
        a.start_daemon()
        yield a
    finally:
        a.close()


def test_an_allowed_datagram_is_recorded_once_for_each_place(arena: Arena) -> None:
    port = arena.info["udp"]
    code, out, err = arena.communicate(arena.remit_run(PYTHON, "-c", SENDS, str(port)))
    assert code == 0, err
    assert out.split() == [arena.tokens["remote"]] * 3
    _, log, _ = arena.communicate(arena.remit("log", "--json"))
    rows = [r for r in json.loads(log) if "datagram" in json.dumps(r)]
    assert len(rows) == 1
    assert f"localhost:{port}" in json.dumps(rows[0])
