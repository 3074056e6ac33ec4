"""For whom a process acts, where its session has parts that may do less than the whole."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from typing import Any, cast

import pytest

from fakes.desk import Desk
from remit_daemon.broker.records import OF, Session
from remit_daemon.runtime.actors import may_speak, session_of


class Remitd:
    """As much of the daemon as is asked: sessions of which we are the supervisor, and the gateways that have come."""

    def __init__(self) -> None:
        desk = Desk()
        self.broker = desk.broker
        desk.start("root")
        self._ours("root")
        desk.start("sub", "helper" + OF + "claude", parent="root")
        self._ours("sub")
        self.gateway_of: dict[int, str] = {}

    def _ours(self, ident: str) -> None:
        sessions = self.broker.state.sessions
        sessions[ident] = Session(
            **{n: getattr(sessions[ident], n) for n in Session.__slots__} | {"pid": os.getpid()}
        )

    def live(self) -> list[Session]:
        return [s for s in self.broker.state.sessions.values() if s.live]

    def by_marks(self, pid: int) -> None:
        return None  # a supervisor and its gateways have no mark


@pytest.fixture
def gateway() -> Iterator[int]:
    """A child of ours, as the supervisor's gateways are."""
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        yield process.pid
        process.kill()


def test_a_gateway_that_is_not_known_speaks_for_nobody_where_it_may_be_a_sub_sessions(gateway: int) -> None:
    """A remitd that has just started, or a connection that was lost: the parent of all gateways is one supervisor."""
    remitd = Remitd()
    daemon = cast(Any, remitd)
    root, sub = (remitd.broker.state.sessions[i] for i in ("root", "sub"))
    taken = session_of(daemon, gateway)
    assert taken is root
    assert not may_speak(daemon, gateway, root)
    remitd.gateway_of[gateway] = "sub"
    assert session_of(daemon, gateway) is sub
    assert may_speak(daemon, gateway, sub)
    remitd.gateway_of[gateway] = "root"
    assert session_of(daemon, gateway) is root
    assert may_speak(daemon, gateway, root)
    remitd.gateway_of.clear()
    del remitd.broker.state.sessions["sub"]
    assert may_speak(daemon, gateway, root), "there is nobody else"


def test_the_nearest_program_speaks(gateway: int) -> None:
    """A program outside that another started, both known: what it does is not laid to who started it."""
    remitd = Remitd()
    sessions = remitd.broker.state.sessions
    sessions.clear()
    for ident, pid in (("outer", os.getppid()), ("inner", os.getpid())):
        sessions[ident] = Session(ident, ident, pid, f"i{pid}", 0, "/", (), 0.0)
    found = session_of(cast(Any, remitd), gateway)
    assert found is sessions["inner"]
