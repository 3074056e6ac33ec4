"""Is this token good? For programs that are presented with one by others.

    verifier = Verifier(remit, audience="urn:example:my-service")
    claims = verifier.verify(token, sock=connection)      # raises BadToken

What is checked here: the signature (Ed25519, by remit's published keys), type, issuer, audience and times; that the process at the other
end of ``sock`` is the one that the token is bound to; and that it has not been revoked: one of remitd's revocation epoch (looked at every
``max_age`` seconds) has not, an older one is asked about, once in an epoch. Signatures need the package
``cryptography``; ``online`` needs nothing and leaves all of it to remitd.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from remit_client.client import Remit

MAX_TOKEN = 1 << 16  # characters: remitd's own limit
MAX_KNOWN = 4096  # tokens remembered as good; the oldest are asked about again
SKEW = 0  # seconds: both clocks are this machine's
CNF = "urn:remit:process"  # the confirmation method: a process's identity
_TYP, _ALG = "at+jwt", "Ed25519"
_SO_PEERPIDFD = 77  # include/uapi/asm-generic/socket.h, Linux 6.5
_UCRED = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid


class BadToken(Exception):
    """The token is not good here; the text says why."""


def online(remit: Remit, token: str, sock: socket.socket | None = None) -> dict[str, Any]:
    """Return the claims of ``token``, presented over ``sock`` (None: by nobody known), as remitd tells them.

    Raises BadToken, RemitError, NoDaemon.
    """
    found = remit.introspect(token)
    if found.get("active") is not True:
        raise BadToken("revoked, expired, or no token of remit's")
    if sock is not None and peer_identity(sock) != _bound(found):
        raise BadToken("presented by another process than it is bound to")
    return found


def peer_identity(sock: socket.socket) -> str:
    """Return the identity of the process that connected the Unix socket ``sock``: boot id, pidfd inode, start time.

    Raises BadToken when it is gone, OSError where the kernel has no SO_PEERPIDFD (before Linux 6.5).
    """
    pid, _, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    pidfd = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            started = f.read().rpartition(b")")[2].split()[19].decode("ascii")
        with open(f"/proc/self/fdinfo/{pidfd}", "rb") as f:
            held = [line.split()[1] for line in f if line.startswith(b"Pid:")]
        if held != [b"%d" % pid]:  # proc(5): -1 once it has ended
            raise BadToken("the process that presents it is gone")
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
            boot = f.read().strip()
        return f"{boot}:{os.fstat(pidfd).st_ino}:{started}"
    except (OSError, IndexError):
        raise BadToken("the process that presents it is gone") from None
    finally:
        os.close(pidfd)


class Verifier:
    """Verifies tokens that are meant for ``audience`` ("": remit itself), by the keys of the remitd behind ``remit``."""

    def __init__(
        self,
        remit: Remit,
        audience: str = "",
        *,
        max_age: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._remit = remit
        self._audience = audience
        self._max_age = max_age
        self._clock = clock
        self._issuer = ""
        self._epoch: object = None
        self._looked = -1.0
        self._keys: dict[str, bytes] = {}
        self._good: dict[str, object] = {}  # token → the epoch in which remitd called it active

    def verify(self, token: str, sock: socket.socket | None = None) -> dict[str, Any]:
        """Return the claims of ``token`` when it is good, presented over ``sock`` (None: by nobody known).

        Raises BadToken; ImportError without the package ``cryptography``; RemitError, NoDaemon when remitd cannot be asked.
        """
        self._look()
        claims = self._read(token)
        now = self._clock()
        if claims.get("iss") != self._issuer:
            raise BadToken("issued by somebody else")
        if claims.get("aud") != (self._audience or self._issuer):
            raise BadToken("meant for another audience")
        if _number(claims, "exp") + SKEW <= now:
            raise BadToken("expired")
        if _number(claims, "nbf") - SKEW > now:
            raise BadToken("not good yet")
        bound = _bound(claims)
        if sock is not None and peer_identity(sock) != bound:
            raise BadToken("presented by another process than it is bound to")
        epoch = claims.get("epoch")
        newer = type(epoch) is int and type(self._epoch) is int and epoch >= self._epoch
        if not newer and self._good.get(token) != self._epoch:
            self._ask(token)
        return claims

    def _look(self) -> None:
        """Fetch keys and epoch anew when those known are too old."""
        now = time.monotonic()
        if self._looked >= 0 and now - self._looked < self._max_age:
            return
        found = self._remit.call("token.metadata")
        self._issuer = str(found["issuer"])
        epoch = found.get("revocation_epoch")
        if epoch is None or epoch != self._epoch:
            self._epoch = (
                object() if epoch is None else epoch
            )  # a remitd that tells none is asked each time
            self._good.clear()
        keys = self._remit.call("token.keys")["keys"]
        self._keys = {
            str(k["kid"]): _decode(str(k["x"]))
            for k in keys
            if k.get("kty") == "OKP" and k.get("crv") == "Ed25519" and k.get("kid")
        }
        self._looked = now

    def _ask(self, token: str) -> None:
        """Have remitd say that the token is one it issued and has not revoked. Raises BadToken."""
        found = self._remit.call("token.introspect", {"token": token})
        if found.get("active") is not True:
            raise BadToken("revoked, or never issued")
        while len(self._good) >= MAX_KNOWN:
            del self._good[next(iter(self._good))]
        self._good[token] = self._epoch

    def _read(self, token: str) -> dict[str, Any]:
        """Return the claims of a token that one of the keys signed. Raises BadToken."""
        if len(token) > MAX_TOKEN or token.count(".") != 2:
            raise BadToken("no token")
        head, body, signature = token.split(".")
        header = _object(head)
        if header.get("alg") != _ALG or header.get("typ") != _TYP or "crit" in header:
            raise BadToken("no access token of remit's")
        key = self._keys.get(str(header.get("kid")))
        if key is None:
            raise BadToken("signed by a key that remit does not have")
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(key).verify(
                _decode(signature), f"{head}.{body}".encode("ascii")
            )
        except (InvalidSignature, ValueError):
            raise BadToken("the signature does not hold") from None
        return _object(body)


def _decode(text: str) -> bytes:
    """Decode base64url without padding (RFC 7515 2), in its one right spelling. Raises BadToken."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise BadToken("no base64url") from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii") != text:
        raise BadToken("no base64url")
    return raw


def _object(text: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise BadToken("a member stands twice")
        return found

    try:
        found = json.loads(_decode(text), object_pairs_hook=once)
    except (ValueError, RecursionError):
        raise BadToken("no JSON") from None
    if not isinstance(found, dict):
        raise BadToken("no JSON object")
    return found


def _bound(claims: dict[str, Any]) -> str:
    """Return the identity of the process that a token is bound to. Raises BadToken."""
    cnf = claims.get("cnf")
    bound = cnf.get(CNF) if isinstance(cnf, dict) else None
    if not isinstance(bound, str) or not bound:
        raise BadToken("bound to no process")
    return bound


def _number(claims: dict[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadToken(f"{name} is no time")
    return value
