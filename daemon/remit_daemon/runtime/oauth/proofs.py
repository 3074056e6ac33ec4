"""DPoP (RFC 9449): a client signs each request for a token with a key of its own, and the token is good for that key alone.

So who copies a token, or a refresh handle, has nothing without the key; over TCP, where no process can be held, that is the one
thing that binds. The resource is to check proofs as well: the token's ``cnf`` has the key's thumbprint (RFC 7638).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry

from remit_daemon.tokens.issuer import TokenError

if TYPE_CHECKING:
    from collections.abc import Callable

ALGORITHMS = ("ES256", "Ed25519")
AROUND = 60.0  # seconds that a proof's time may be off, either way (RFC 9449 11.1)
MAX_PROOF = 4096  # characters
MAX_SEEN = 10_000  # proofs that are known as used
_CURVES = {"ES256": ("EC", "P-256"), "Ed25519": ("OKP", "Ed25519")}


class Proofs:
    """Checks proofs, each of which counts once. ``clock`` gives seconds since the epoch."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[bytes, float] = {}  # digest of key and jti → until when; oldest first

    def check(self, text: str, method: str, url: str) -> str:
        """Return the thumbprint of the key that signed ``text`` for this request (RFC 9449 4.3). Raises TokenError."""
        if len(text) > MAX_PROOF:
            raise _bad("too long")
        keys: list[Any] = []

        def key_of(signed: Any) -> Any:
            header = signed.headers()
            jwk = header.get("jwk")
            if header.get("typ") != "dpop+jwt" or not isinstance(jwk, dict) or {"d", "k", "p"} & set(jwk):
                raise _bad("no typ dpop+jwt, or no public jwk")
            if (jwk.get("kty"), jwk.get("crv")) != _CURVES.get(header.get("alg")):
                raise _bad(f"alg is {' or '.join(ALGORITHMS)}, and jwk a key for it")
            keys.append(JWKRegistry.import_key(jwk))
            return keys[-1]

        try:
            claims = jwt.decode(text, key_of, algorithms=list(ALGORITHMS)).claims
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as e:
            raise _bad(str(e) or "not signed by its key") from None
        jti, now = claims.get("jti"), self._clock()
        if not isinstance(jti, str) or not jti:
            raise _bad("no jti")
        if claims.get("htm") != method or claims.get("htu") != url:
            raise _bad(f"it is not for {method} {url}")
        issued: Any = claims.get("iat")
        if type(issued) not in (int, float) or not abs(issued - now) <= AROUND:
            raise _bad("its time is not now")
        thumbprint = str(keys[-1].thumbprint())
        self._use(hashlib.sha256(f"{thumbprint} {jti}".encode("utf-8", "surrogatepass")).digest(), now)
        return thumbprint

    def _use(self, digest: bytes, now: float) -> None:
        while self._seen and (until := next(iter(self._seen.items())))[1] < now:
            del self._seen[until[0]]
        if digest in self._seen:
            raise _bad("it was used before")
        if len(self._seen) >= MAX_SEEN:
            raise TokenError("temporarily_unavailable", "too many proofs came lately")
        self._seen[digest] = now + 2 * AROUND


def _bad(why: str) -> TokenError:
    return TokenError("invalid_dpop_proof", f"the DPoP proof: {why}")
