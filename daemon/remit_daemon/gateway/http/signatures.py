"""Signatures on an agent's requests (RFC 9421), for hosts where policy wants them: that an agent of this person's sent it.

    Signature-Agent: "https://person.example"          where policy names one: the origin that publishes the key
    Signature-Input: remit=("@method" "@authority" "@path" …);created=…;expires=…;keyid="…";alg="ed25519";nonce="…";tag="web-bot-auth"
    Signature: remit=:…:

One Ed25519 key a user, in the state directory (0600), which is closed to every session; ``keyid`` is its JWK thumbprint (RFC 7638, RFC 8037
appendix A.3), and the file ``signing.jwks`` beside it is what a key directory publishes. The tag, and that a ``Signature-Agent`` is covered, are those of
draft-ietf-webbotauth-httpsig-protocol. The body is covered where the client gives its Content-Digest (RFC 9530): bodies stream, so none is
made here. What the agent itself gives as a signature is taken out: on such a host the field is remit's word. A request that cannot
be signed is not sent.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from remit_policy import hosts
from remit_policy.engine import Engine
from remit_policy.model import ALLOW, USER, Rule, Snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remit_daemon.gateway.context import Context

    Fields = list[tuple[bytes, bytes]]

KEY, PUBLISHED = "signing.key", "signing.jwks"
LASTS = 60  # seconds from creation to expiry: a request is sent at once, clocks differ by some
NONCE = 32  # bytes
OWN = frozenset((b"signature", b"signature-input", b"signature-agent"))


def base(components: Sequence[tuple[str, str]], parameters: str) -> bytes:
    """Return the signature base (RFC 9421 2.5) of (component, value) pairs under ``parameters``, what Signature-Input has."""
    lines = [f'"{name}": {value}' for name, value in components]
    return "\n".join([*lines, f'"@signature-params": {parameters}']).encode("latin-1")


def thumbprint(public: bytes) -> str:
    """Return the JWK thumbprint (RFC 7638) of a raw Ed25519 public key."""
    return _text(
        hashlib.sha256(json.dumps(_jwk(public), separators=(",", ":"), sort_keys=True).encode()).digest()
    )


def _jwk(public: bytes) -> dict[str, str]:
    return {"crv": "Ed25519", "kty": "OKP", "x": _text(public)}


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def wanted(snapshot: Snapshot, host: str, port: int) -> bool:
    """Say whether policy wants requests to the canonical ``host`` at ``port`` signed."""
    signs = snapshot.signs
    return bool(signs) and _hosts(signs).decide("connect", hosts.join(host, port)).verdict == ALLOW


@lru_cache(maxsize=4)
def _hosts(patterns: tuple[str, ...]) -> Engine:
    return Engine(Snapshot("", tuple(Rule(USER, ALLOW, "connect", pattern) for pattern in patterns)))


class Signer:
    """Signs with one key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.id = thumbprint(key.public_key().public_bytes_raw())

    def sign(
        self, method: str, target: str, scheme: str, fields: Fields, agent: str, now: int, nonce: bytes
    ) -> Fields:
        """Return ``fields`` of a request for ``target`` (origin-form), with the signature's own.

        ``agent`` is the origin for Signature-Agent, "" for none, ``now`` seconds since the epoch, ``nonce`` NONCE random bytes. The
        one Host among ``fields`` is the authority. Raises ValueError when there is none.
        """
        kept = [(n, v) for n, v in fields if n.lower() not in OWN]
        named = [v for n, v in kept if n.lower() == b"host"]
        if len(named) != 1:
            raise ValueError("no host to sign for")
        path, query, text = target.partition("?")
        components = [
            ("@method", method), ("@authority", _authority(named[0].decode("latin-1"), scheme)), ("@path", path),
        ]  # fmt: skip
        if query:
            components.append(("@query", "?" + text))
        digests = [v.decode("latin-1") for n, v in kept if n.lower() == b"content-digest"]
        if digests:
            components.append(("content-digest", ", ".join(digests)))
        if agent:
            kept.append((b"Signature-Agent", f'"{agent}"'.encode()))
            components.append(("signature-agent", f'"{agent}"'))
        covered = " ".join(f'"{name}"' for name, _ in components)
        parameters = (
            f'({covered});created={now};expires={now + LASTS};keyid="{self.id}";alg="ed25519"'
            f';nonce="{_text(nonce)}";tag="web-bot-auth"'
        )
        signature = base64.b64encode(self._key.sign(base(components, parameters)))
        kept.append((b"Signature-Input", f"remit={parameters}".encode("latin-1")))
        kept.append((b"Signature", b"remit=:" + signature + b":"))
        return kept


def _authority(host: str, scheme: str) -> str:
    """Return the authority as RFC 9421 2.2.3 has it: small letters, without the scheme's own port."""
    host = host.lower()
    return host.removesuffix(":443" if scheme == "https" else ":80")


def signer_of(ctx: Context) -> Signer:
    """Return the user's signer, its key made at the first use. Raises OSError (also for a key that is none)."""
    found = ctx.parts.get("signer")
    if not isinstance(found, Signer):
        found = ctx.parts["signer"] = load(ctx.state)
    return found


def load(state: str) -> Signer:
    """Return a signer with the key kept in directory ``state``, made anew where there is none. Raises OSError."""
    lock = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # gateways may begin at once, and are to have one key
        try:
            with open(f"{state}/{KEY}", "rb") as f:
                key = serialization.load_pem_private_key(f.read(), None)
        except FileNotFoundError:
            key = Ed25519PrivateKey.generate()
            form = (
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            _put(f"{state}/{KEY}", key.private_bytes(*form), 0o600)
        except (ValueError, TypeError) as e:
            raise OSError(5, f"{state}/{KEY} is no key: {e}") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise OSError(5, f"{state}/{KEY} is no Ed25519 key")
        signer = Signer(key)
        if not os.path.exists(f"{state}/{PUBLISHED}"):
            jwk = _jwk(key.public_key().public_bytes_raw()) | {
                "kid": signer.id,
                "use": "sig",
                "alg": "EdDSA",
            }
            _put(f"{state}/{PUBLISHED}", json.dumps({"keys": [jwk]}).encode() + b"\n", 0o644)
        return signer
    finally:
        os.close(lock)


def _put(path: str, data: bytes, mode: int) -> None:
    """Write a file whole or not at all."""
    fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(path + ".new", path)
