"""Signed requests: the vector of RFC 9421 B.2.6, and what a server sees, verified by a verifier written from the RFC."""

from __future__ import annotations

import base64
import os
import re
import time
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from remit_daemon.gateway.http import signatures
from remit_daemon.gateway.http.signatures import Signer, base, load, thumbprint, wanted
from remit_policy.document import PolicyError
from remit_policy.layers import PolicySet, packs
from remit_policy.model import USER, Snapshot, dumps, loads
from remit_policy.reading import read_document
from unit.gateway.http import worlds
from unit.gateway.http.worlds import AT, HOST, PORT, Agent, Server, Trust, World, run

trusting = worlds.trusting

# RFC 9421, B.1.4 (a test key) and B.2.6.
PRIVATE = base64.urlsafe_b64decode("n4Ni-HpISpVObnQMW0wOhCKROaIKqKtW_2ZYb2p9KcU=")
PUBLIC = base64.urlsafe_b64decode("JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs=")
COMPONENTS = [
    ("date", "Tue, 20 Apr 2021 02:07:55 GMT"), ("@method", "POST"), ("@path", "/foo"), ("@authority", "example.com"),
    ("content-type", "application/json"), ("content-length", "18"),
]  # fmt: skip
PARAMETERS = (
    '("date" "@method" "@path" "@authority" "content-type" "content-length")'
    ';created=1618884473;keyid="test-key-ed25519"'
)
SIGNATURE = "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="


def test_the_vector_of_the_rfc() -> None:
    key = Ed25519PrivateKey.from_private_bytes(PRIVATE)
    assert key.public_key().public_bytes_raw() == PUBLIC
    assert base64.b64encode(key.sign(base(COMPONENTS, PARAMETERS))).decode() == SIGNATURE


def test_the_thumbprint_of_rfc_8037() -> None:
    """Appendix A.3."""
    public = base64.urlsafe_b64decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
    assert thumbprint(public) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def verified(raw: bytes, public: bytes, scheme: str = "https") -> dict[str, str]:
    """Return the parameters of the one signature of the request ``raw`` (RFC 9421 3.2), and ``covered``. Raises InvalidSignature."""
    lines = raw.split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ")
    fields: dict[str, list[str]] = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        fields.setdefault(name.lower(), []).append(value.strip())
    (given,), (signature,) = fields["signature-input"], fields["signature"]
    label, _, parameters = given.partition("=")
    inner = re.fullmatch(r'\(((?:"[^"]+" ?)*)\)(.*)', parameters)
    assert inner is not None
    path, question, query = target.partition("?")
    authority = fields["host"][0].lower().removesuffix(":443" if scheme == "https" else ":80")
    derived = {
        "@method": method,
        "@authority": authority,
        "@path": path,
        "@query": question and "?" + query,
    }
    names = re.findall(r'"([^"]+)"', inner[1])
    assert len(set(names)) == len(names)
    text = "".join(f'"{n}": {derived[n] if n[0] == "@" else ", ".join(fields[n])}\n' for n in names)
    found = re.fullmatch(re.escape(label) + r"=:([A-Za-z0-9+/=]+):", signature)
    assert found is not None
    message = (text + f'"@signature-params": {parameters}').encode("latin-1")
    Ed25519PublicKey.from_public_bytes(public).verify(base64.b64decode(found[1]), message)
    out = {k: v.strip('"') for k, v in re.findall(r';(\w+)=("[^"]*"|\d+)', inner[2])}
    return out | {"covered": " ".join(names)}


SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(PRIVATE))


def signed(
    fields: list[tuple[bytes, bytes]], target: str = "/a?b=c", method: str = "GET", agent: str = ""
) -> bytes:
    got = SIGNER.sign(method, target, "https", fields, agent, 1_700_000_000, b"n" * 32)
    return (
        f"{method} {target} HTTP/1.1\r\n".encode()
        + b"".join(n + b": " + v + b"\r\n" for n, v in got)
        + b"\r\n"
    )


def test_what_is_signed_is_verified_and_nothing_else_is() -> None:
    raw = signed([(b"Host", b"API.example.com:443")], agent="https://me.example")
    found = verified(raw, PUBLIC)
    assert found["covered"] == "@method @authority @path @query signature-agent"
    assert (found["keyid"], found["tag"], found["alg"]) == (thumbprint(PUBLIC), "web-bot-auth", "ed25519")
    assert int(found["expires"]) - int(found["created"]) == signatures.LASTS
    assert len(base64.urlsafe_b64decode(found["nonce"] + "=")) == 32
    for old, new in ((b"GET", b"PUT"), (b"/a?", b"/x?"), (b"b=c", b"b=d"), (b"API.", b"evil."), (b"me.example", b"you.example"), (b"1700000060", b"1800000060")):  # fmt: skip
        assert old in raw
        with pytest.raises(InvalidSignature):
            verified(raw.replace(old, new), PUBLIC)


def test_a_digest_that_the_client_gives_is_covered() -> None:
    host = (b"Host", b"h.example:8443")
    assert verified(signed([host, (b"Content-Digest", b"sha-256=:AA==:")]), PUBLIC)["covered"].endswith(
        "content-digest"
    )
    assert verified(signed([host], "/plain"), PUBLIC)["covered"] == "@method @authority @path"


def test_a_request_without_one_host_is_not_signed() -> None:
    for hosts in ([], [(b"Host", b"a"), (b"host", b"b")]):
        with pytest.raises(ValueError, match="no host"):
            signed(list(hosts))


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    first = load(str(tmp_path))
    assert load(str(tmp_path)).id == first.id
    assert (tmp_path / "signing.key").stat().st_mode & 0o777 == 0o600
    assert first.id in (tmp_path / "signing.jwks").read_text()
    (tmp_path / "signing.key").write_text("no key")
    with pytest.raises(OSError, match="is no key"):
        load(str(tmp_path))


# -- through the gateway ----------------------------------------------------------------------------

POLICY = f"allow connect {AT}\nallow connect other.example:{PORT}\n"


def public_of(world: World) -> bytes:
    key = signatures.signer_of(world.ctx)._key
    return key.public_key().public_bytes_raw()


def test_a_request_to_such_a_host_is_signed_and_the_agents_own_word_is_not_passed(
    tmp_path: Path, trusting: Trust
) -> None:
    async def act(world: World, server: Server) -> None:
        world.authority.snapshot.signs = (AT,)
        world.authority.snapshot.signs_as = "https://me.example"
        agent = await Agent(world.connect(HOST)[0]).tls(world)
        for n in range(2):  # and the second on the same connection, with a nonce of its own
            await agent.say(
                f"GET /x{n} HTTP/1.1", f"Host: {AT}", 'Signature-Input: remit=("@path");keyid="mine"', "SIGNATURE: remit=:AAAA:",
                'Signature-Agent: "https://evil.example"',
            )  # fmt: skip
            assert (await agent.hear())[0] == 200
        found = [verified(raw, public_of(world)) for raw in server.seen]
        assert all(
            "signature-agent" in f["covered"] and abs(int(f["created"]) - time.time()) < 60 for f in found
        )
        assert found[0]["nonce"] != found[1]["nonce"]
        assert not any(b"evil" in raw or b"mine" in raw for raw in server.seen)

    run(tmp_path, act, trusting, POLICY)


def test_other_hosts_are_left_as_they_are(tmp_path: Path, trusting: Trust) -> None:
    async def act(world: World, server: Server) -> None:
        world.authority.snapshot.signs = (f"other.example:{PORT}",)
        ours, _ = world.connect(HOST)
        agent = await Agent(ours).plain()
        await agent.say("GET /x HTTP/1.1", f"Host: {AT}", "Signature: sig=:AAAA:")
        assert (await agent.hear())[0] == 200
        assert b"Signature: sig=:AAAA:" in server.seen[0]
        assert b"Signature-Input" not in server.seen[0]
        assert not os.path.exists(tmp_path / "signing.key")

    run(tmp_path, act, None, POLICY)


def test_what_cannot_be_signed_is_not_sent(tmp_path: Path, trusting: Trust) -> None:
    async def act(world: World, server: Server) -> None:
        world.authority.snapshot.signs = (AT,)
        (tmp_path / "signing.key").write_text("no key")
        agent = await Agent(world.connect(HOST)[0]).tls(world)
        await agent.say("GET /x HTTP/1.1", f"Host: {AT}")
        assert "is no key" in (await agent.refused())["reason"]
        assert server.seen == []

    run(tmp_path, act, trusting, POLICY)


# -- by policy --------------------------------------------------------------------------------------


def snapshot(text: str) -> Snapshot:
    source = read_document("mine.toml", b"version = 1\n" + text.encode())
    made = PolicySet([*packs(), (USER, source)]).snapshot("x", "/usr/bin/x", "", {"PROJECT": "/p"})
    return loads(dumps(made))


def test_policy_says_where() -> None:
    made = snapshot(
        '[role.default.net]\nsign = ["api.example.com", "*.b.example:8443"]\nsignature_agent = "https://me.example"\n'
    )
    assert made.signs_as == "https://me.example"
    for host, port, said in (
        ("api.example.com", 443, True), ("api.example.com", 80, True), ("x.b.example", 8443, True), ("x.b.example", 443, False),
        ("b.example", 8443, False), ("evil.example", 443, False),
    ):  # fmt: skip
        assert wanted(made, host, port) is said, host
    assert not wanted(snapshot(""), "api.example.com", 443)


@pytest.mark.parametrize(
    "line",
    [
        'sign = ["http://x"]',
        "sign = true",
        'signature_agent = "http://x"',
        'signature_agent = "https://x\\"y"',
        'all = true\nsign = ["a.example"]',
    ],
)
def test_what_cannot_be_meant_is_an_error(line: str) -> None:
    with pytest.raises(PolicyError):
        snapshot(f"[role.default.net]\n{line}\n")


def test_a_project_signs_nothing(tmp_path: Path) -> None:
    project = tmp_path / ".remit.toml"
    project.write_text('version = 1\n[role.default.net]\nsign = ["evil.example"]\n')
    with pytest.raises(PolicyError) as e:
        PolicySet(packs()).snapshot(
            "x", "/usr/bin/x", "", {"PROJECT": str(tmp_path)}, project_file=str(project)
        )
    assert [p.message for p in e.value.problems] == ["signing in a project's policy"]
