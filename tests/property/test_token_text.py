"""Whatever is presented for a token, only the very text that was issued is one; the answers are in the protocol's terms.

Forgers here have the public key, may swap every part of header, claims and signature, and some even have our own key.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import OctKey, OKPKey

from remit_daemon.tokens.issuer import LIFE, MAX_SKEW, MAX_TEXT, Issuer, TokenError

ME, OTHER = "boot:1:1", "boot:2:2"
NOW = 1_700_000_000.0


class World:
    def __init__(self) -> None:
        self.now, self._count = NOW, 0
        self.issuer = Issuer("https://remit.invalid/u", lambda: self.now, self._name)
        self.token, self.text = self.issuer.issue(
            subject="u", agent="claude", bound=ME, grant_id="g", scope="reader"
        )
        self.head, self.claims = (json.loads(decode(part)) for part in self.text.split(".")[:2])
        self.own: OKPKey = self.issuer._key
        self.public = self.issuer.jwks()["keys"][0]

    def _name(self) -> str:
        self._count += 1
        return f"n{self._count}"


def decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


WORLD = World()
ATTACKER = OKPKey.generate_key("Ed25519", parameters={"kid": WORLD.head["kid"]})


def nothing_is_granted(world: World, text: Any) -> None:
    assert world.issuer.introspect(text) == {"active": False}
    assert world.issuer.introspect(text, ME) == {"active": False}
    assert world.issuer.revoke_text(text, ME) == []
    with pytest.raises(TokenError) as e:
        world.issuer.verify(text, ME)
    assert e.value.code == "invalid_token"  # RFC 6750 3.1
    with pytest.raises(TokenError) as e:
        world.issuer.exchange(text, ME, agent="thief")
    assert e.value.code == "invalid_request"  # RFC 8693 2.2.2
    assert world.issuer.verify(world.text, ME) == world.token  # and nothing was taken away


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda x: st.lists(x, max_size=2),
    max_leaves=4,
)
HEADERS: dict[str, st.SearchStrategy[Any]] = {
    "alg": st.sampled_from(["none", "None", "nOnE", "", "HS256", "HS512", "EdDSA", "ed25519", "Ed448", "RS256", "ES256", None, 1, ["Ed25519"]]),
    "typ": st.sampled_from(["JWT", "AT+JWT", "application/at+jwt", "at+jwt ", "logout+jwt", None, 5]),
    "kid": st.sampled_from(["", "../../../../dev/null", "' OR 1=1 --", "http://x.example/k", "n0", None, {"k": 1}, "x" * 5000]),
    "jku": st.just("https://attacker.example/jwks"), "jwk": st.just(dict(ATTACKER.as_dict(private=False))),
    "x5u": st.just("https://attacker.example/x"), "crit": st.sampled_from([["b64"], ["exp"], []]), "b64": st.booleans(), "zip": st.just("DEF"),
}  # fmt: skip
CHANGES = st.lists(st.sampled_from(sorted(HEADERS)), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({n: HEADERS[n] for n in names})
)
CLAIMS = st.dictionaries(
    st.sampled_from(["sub", "aud", "exp", "scope", "jti", "cnf", "act", "iss", "client_id"]),
    JSON,
    max_size=3,
)


def signed(world: World, head: dict[str, Any], body: bytes, how: str) -> str:
    """Return a compact JWS of ``head`` and ``body`` as the forger ``how`` makes it."""
    first = f"{encode(json.dumps(head).encode())}.{encode(body)}"
    if how in ("ours", "theirs"):
        key = world.own if how == "ours" else ATTACKER
        signature = key.private_key.sign(first.encode())  # type: ignore[union-attr, call-arg]
    elif how == "hmac":
        signature = hmac.digest(json.dumps(world.public).encode(), first.encode(), "sha256")
    elif how == "stolen":
        signature = decode(world.text.split(".")[2])
    else:
        signature = b""
    return f"{first}.{encode(signature)}"


@settings(max_examples=300, deadline=None)
@given(CHANGES, CLAIMS, st.sampled_from(["ours", "theirs", "hmac", "stolen", "none"]))
def test_no_forged_header_claims_or_signature(
    head: dict[str, Any], claims: dict[str, Any], how: str
) -> None:
    text = signed(WORLD, WORLD.head | head, json.dumps(WORLD.claims | claims).encode(), how)
    assume(text != WORLD.text)
    nothing_is_granted(WORLD, text)


@given(st.sampled_from(["sub", "exp", "jti", "scope", "cnf"]), JSON, st.booleans())
def test_no_doubled_members(name: str, value: Any, first: bool) -> None:
    pair = f"{json.dumps(name)}:{json.dumps(value)}"
    body = json.dumps(WORLD.claims)
    body = f"{{{pair},{body[1:]}" if first else f"{body[:-1]},{pair}}}"
    for how in ("ours", "stolen", "none"):
        nothing_is_granted(WORLD, signed(WORLD, WORLD.head, body.encode(), how))


RECODED: dict[str, Callable[[str], Any]] = {
    "padded": lambda t: ".".join(p + "=" * (-len(p) % 4) for p in t.split(".")),
    "standard alphabet": lambda t: t.replace("-", "+").replace("_", "/") + ("" if set("-_") & set(t) else "="),
    "blank before": lambda t: " " + t, "line after": lambda t: t + "\n", "null after": lambda t: t + "\0",
    "bearer": lambda t: "Bearer " + t, "upper": str.upper, "bytes": str.encode, "list": lambda t: [t], "none": lambda t: None,
    "number": lambda t: 1, "object": lambda t: {"token": t}, "quoted": lambda t: json.dumps(t),
    "cut": lambda t: t.rsplit(".", 1)[0], "cut with dot": lambda t: t.rsplit(".", 1)[0] + ".", "fourth part": lambda t: t + ".",
    "five parts": lambda t: t + "..", "last bits": lambda t: t[:-1] + chr(ord(t[-1]) + 1), "zero width": lambda t: t[:9] + "\u200b" + t[9:],
    "full width": lambda t: "".join(chr(ord(c) + 0xFEE0) for c in t), "surrogate": lambda t: t + "\ud800",
    "flattened": lambda t: json.dumps(dict(zip(("protected", "payload", "signature"), t.split("."), strict=True))),
    "pretty json": lambda t: signed(WORLD, WORLD.head, json.dumps(WORLD.claims, indent=1).encode(), "ours"),
    "signed anew": lambda t: jws.serialize_compact(WORLD.head | {"cty": "JWT"}, decode(t.split(".")[1]), WORLD.own, algorithms=["Ed25519"]),
    "too long": lambda t: t + "A" * MAX_TEXT, "a megabyte": lambda t: "A" * (1 << 20), "deep": lambda t: encode(b"[" * 30_000) + "." * 2,
}  # fmt: skip


@pytest.mark.parametrize("how", RECODED)
def test_no_other_encoding_of_the_same_token(how: str) -> None:
    assert RECODED[how](WORLD.text) != WORLD.text
    nothing_is_granted(WORLD, RECODED[how](WORLD.text))


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
def test_no_noise(text: str) -> None:
    nothing_is_granted(WORLD, text)


@given(st.integers(0, 400), st.characters())
def test_no_token_with_one_character_changed(at: int, c: str) -> None:
    at %= len(WORLD.text)
    assume(WORLD.text[at] != c)
    nothing_is_granted(WORLD, WORLD.text[:at] + c + WORLD.text[at + 1 :])


@given(st.floats(-1e6, 1e6))
def test_it_is_good_in_its_time_alone(skew: float) -> None:
    world = World()
    world.now = NOW + skew
    good = world.issuer.introspect(world.text, ME)["active"]
    assert good == (-MAX_SKEW <= skew < LIFE)


def test_the_secret_of_hmac_is_not_our_public_key() -> None:
    for material in (json.dumps(WORLD.public).encode(), decode(WORLD.public["x"])):
        key = OctKey.import_key(material)
        body = json.dumps(WORLD.claims).encode()
        nothing_is_granted(
            WORLD, jws.serialize_compact(WORLD.head | {"alg": "HS256"}, body, key, algorithms=["HS256"])
        )


def test_it_is_good_for_one_process() -> None:
    with pytest.raises(TokenError) as e:
        WORLD.issuer.verify(WORLD.text, OTHER)
    assert e.value.code == "invalid_token"
    assert WORLD.issuer.revoke_text(WORLD.text, OTHER) == []
