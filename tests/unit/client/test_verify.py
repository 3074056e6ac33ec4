"""Verifying what is presented, by a program that has nothing of remit but its client."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fakes.machine import Machine
from remit_client import Remit
from remit_client.verify import BadToken, Verifier, online, peer_identity
from unit.runtime.conftest import machine as machine

AUDIENCE = "urn:example:service"
PRESENT = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); input()"


class Service:
    """A program that others connect to, and one that does."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        path = machine.root + "/service"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(4)
        self.child = subprocess.Popen([sys.executable, "-c", PRESENT, path], stdin=subprocess.PIPE)
        self.theirs, _ = self.listener.accept()
        self.remit = Remit(machine.paths.agent)
        self.verifier = Verifier(self.remit, AUDIENCE, max_age=0)
        given = machine.person().call(
            "token.issue", agent="helper", pid=self.child.pid, scope="reader", audience=AUDIENCE
        )
        self.token: str = given["access_token"]

    def close(self) -> None:
        self.remit.close()
        self.theirs.close()
        self.listener.close()
        self.child.communicate(b"\n", timeout=10)


@pytest.fixture
def service(machine: Machine) -> Iterator[Service]:
    found = Service(machine)
    yield found
    found.close()


def forged(token: str, **changed: object) -> str:
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "==")) | changed
    raw = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"{head}.{raw}.{signature}"


def test_a_token_is_good_from_its_own_process(service: Service) -> None:
    claims = service.verifier.verify(service.token, service.theirs)
    assert claims["act"] == {"sub": "helper"}
    assert online(service.remit, service.token, service.theirs)["act"] == {"sub": "helper"}
    assert peer_identity(service.theirs) == claims["cnf"]["urn:remit:process"]


def test_it_is_not_from_another(service: Service) -> None:
    with socket.socket(socket.AF_UNIX) as mine:
        mine.connect(service.machine.root + "/service")
        other, _ = service.listener.accept()
        with other:
            for verify in (
                lambda: service.verifier.verify(service.token, other),
                lambda: online(service.remit, service.token, other),
            ):
                with pytest.raises(BadToken, match="another process"):
                    verify()


def test_it_is_not_after_its_revocation_or_its_process(service: Service) -> None:
    service.verifier.verify(service.token, service.theirs)
    service.machine.person().call("token.revoke", token=service.token)
    with pytest.raises(BadToken, match="revoked"):
        service.verifier.verify(service.token, service.theirs)
    with pytest.raises(BadToken, match="revoked"):
        online(service.remit, service.token)
    service.child.kill()
    service.child.wait()
    with pytest.raises(BadToken, match="gone"):
        peer_identity(service.theirs)


def test_what_is_no_token_is_refused(service: Service) -> None:
    head, body, signature = service.token.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"at+jwt"}').rstrip(b"=").decode()
    twice = base64.urlsafe_b64encode(b'{"alg":"Ed25519","alg":"none"}').rstrip(b"=").decode()
    for bad in (
        "", "a.b", "a.b.c", f"{none}.{body}.", f"{none}.{body}.{signature}", f"{twice}.{body}.{signature}",
        f"{head}.{body}.{signature[:-2]}", f"{head}.{body}.{signature}=", f"{head}.{body}.{signature}.x",
        forged(service.token, sub="root"), forged(service.token, exp=9e12), "x" * 70_000, f"{head}.{body}.é",
    ):  # fmt: skip
        with pytest.raises(BadToken):
            service.verifier.verify(bad, service.theirs)
    other = service.machine.person().call("token.issue", agent="helper", pid=os.getpid(), scope="reader")[
        "access_token"
    ]
    with pytest.raises(BadToken, match="audience"):
        service.verifier.verify(other)
    late = Verifier(service.remit, AUDIENCE, clock=lambda: 9e9)
    with pytest.raises(BadToken, match="expired"):
        late.verify(service.token)
    early = Verifier(service.remit, AUDIENCE, clock=lambda: 1.0)
    with pytest.raises(BadToken, match="not good yet"):
        early.verify(service.token)
