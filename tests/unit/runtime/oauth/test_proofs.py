from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey

from remit_daemon.runtime.oauth.proofs import AROUND, MAX_SEEN, Proofs
from remit_daemon.tokens.issuer import TokenError

URL = "http://127.0.0.1:8765/token"
EC, OKP = ECKey.generate_key("P-256"), OKPKey.generate_key("Ed25519")
# RFC 9449, figure 2, and the thumbprint of its key (figure 5)
VECTOR = (
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5Ijo"
    "iOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI"
    "6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
)
THUMBPRINT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


class World:
    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.proofs = Proofs(lambda: self.now)

    def check(self, text: str, method: str = "POST", url: str = URL) -> str:
        return self.proofs.check(text, method, url)

    def refused(self, text: str) -> str:
        with pytest.raises(TokenError) as e:
            self.check(text)
        assert e.value.code == "invalid_dpop_proof"
        return str(e.value)


def proof(key: Any = EC, header: dict[str, Any] | None = None, **claims: Any) -> str:
    alg = "ES256" if key.key_type == "EC" else "Ed25519"
    head = {"alg": alg, "typ": "dpop+jwt", "jwk": key.as_dict(private=False)} | (header or {})
    said = {"jti": "j", "htm": "POST", "htu": URL, "iat": 1000} | claims
    return jwt.encode(head, said, key, algorithms=[head["alg"]])


def test_the_vector_of_rfc_9449() -> None:
    assert World(1562262616).check(VECTOR, "POST", "https://server.example.com/token") == THUMBPRINT


def test_a_proof_counts_once() -> None:
    w = World()
    assert w.check(proof()) == EC.thumbprint()
    assert w.check(proof(OKP)) == OKP.thumbprint(), "another key's jti is another"
    assert "before" in w.refused(proof())
    assert w.check(proof(jti="k")) == EC.thumbprint()
    w.now += 2 * AROUND + 1
    w.check(proof(iat=w.now))


@pytest.mark.parametrize(
    "claims",
    [
        {"htm": "GET"}, {"htu": URL + "?x"}, {"htu": "http://127.0.0.1:1/token"}, {"iat": 1000 - AROUND - 1}, {"iat": 1000 + AROUND + 1},
        {"iat": "1000"}, {"iat": True}, {"iat": float("nan")}, {"jti": ""}, {"jti": 7}, {"htm": None},
    ],
)  # fmt: skip
def test_a_proof_is_for_one_request_now(claims: dict[str, Any]) -> None:
    World().refused(proof(**claims))


def test_a_proof_is_signed_by_the_key_that_it_shows() -> None:
    w, other = World(), ECKey.generate_key("P-256")
    w.refused(proof(header={"jwk": other.as_dict(private=False)}))
    w.refused(proof(header={"jwk": EC.as_dict(private=True)}))
    w.refused(proof(header={"typ": "jwt"}))
    w.refused(proof(header={"jwk": OKP.as_dict(private=False)}))
    _, body, signature = proof().split(".")
    for jwk in (
        None,
        [],
        "x",
        {},
        {"kty": "EC"},
        {"kty": "EC", "crv": "P-256", "x": 1, "y": []},
        {"kty": [], "crv": {}},
    ):
        for alg in ("ES256", "Ed25519", [], None):
            head = json.dumps({"alg": alg, "typ": "dpop+jwt", "jwk": jwk}).encode()
            w.refused(f"{base64.urlsafe_b64encode(head).rstrip(b'=').decode()}.{body}.{signature}")
    secret = OctKey.import_key("x" * 32)
    head = {"alg": "HS256", "typ": "dpop+jwt", "jwk": secret.as_dict()}
    w.refused(
        jwt.encode(head, {"jti": "j", "htm": "POST", "htu": URL, "iat": 1000}, secret, algorithms=["HS256"])
    )
    none = "eyJhbGciOiJub25lIiwidHlwIjoiZHBvcCtqd3QiLCJqd2siOnsia3R5IjoiRUMifX0.e30."
    for text in ("", "x", "a.b.c", none, "é" * 9, "x" * 5000, f"{proof()}, {proof()}"):
        w.refused(text)


def test_what_is_remembered_is_bounded() -> None:
    w = World()
    w.proofs._seen = {bytes([n & 255, n >> 8]): w.now + 1 for n in range(MAX_SEEN)}
    with pytest.raises(TokenError, match="too many"):
        w.check(proof())
    w.now += 2
    w.check(proof())
