"""Who presents a token, asks for one, or gives one back: the one thing that the methods on tokens are told of their caller."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from remit_daemon.broker.records import PROCESS
from remit_daemon.tokens.issuer import OAUTH

if TYPE_CHECKING:
    from remit_daemon.broker.records import Session
    from remit_daemon.peers.process import Peer


@dataclass(frozen=True, slots=True)
class Client:
    """A client of OAuth, and the issuer under whose URL it was served."""

    issuer: str
    id: str


@dataclass(frozen=True, slots=True)
class Who:
    """A caller. ``identity`` is what tokens are bound to: the session's for all its programs, else the process's, or a client of OAuth
    whose process cannot be held (``oauth:CLIENT_ID``).

    ``pidfd`` is borrowed from the connection, -1 where there is none. ``oauth`` is the client in whose name a program calls.
    """

    identity: str
    pid: int
    exe: str
    comm: str
    pidfd: int = -1
    session: Session | None = None
    oauth: Client | None = None

    @property
    def client(self) -> str:
        """The name by which the broker knows who calls outside sessions, "" for a session."""
        if self.oauth is not None:
            return OAUTH + self.oauth.id
        return "" if self.session else PROCESS + self.identity


def of_session(session: Session) -> Who:
    """Return the caller that every program inside ``session`` is: its connects are made by its supervisor."""
    exe = str(session.hello.get("exe", ""))
    return Who(session.presenter, session.pid, exe, session.agent, session=session)


def of_peer(peer: Peer) -> Who:
    """Return the caller that ``peer``, a process outside sessions, is."""
    try:
        exe = os.readlink(f"/proc/{peer.pid}/exe")
        with open(f"/proc/{peer.pid}/comm", encoding="utf-8", errors="surrogateescape") as f:
            comm = f.read().rstrip("\n")
    except OSError:
        exe = comm = ""  # it has ended, or is not ours to look at; only for show
    return Who(peer.identity, peer.pid, exe, comm, peer.pidfd)
