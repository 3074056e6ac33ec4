"""What the specifications show in their examples, member by member, as far as it is ours to give."""

from __future__ import annotations

import base64
import json
import re
import time
from itertools import count
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from remit_daemon.tokens import details as rar
from remit_daemon.tokens.issuer import GRANT_TYPES, TOKEN_TYPE, Issuer, Token, TokenError
from remit_daemon.tokens.pace import STEP

ME = "boot:1:1"


@pytest.fixture
def issuer() -> Issuer:
    numbers = count()
    return Issuer("https://remit.invalid/u", time.time, lambda: f"n{next(numbers)}")


def issue(issuer: Issuer, **fields: Any) -> tuple[Token, str]:
    return issuer.issue(
        **{"subject": "user@example.com", "agent": "a1", "bound": ME, "grant_id": "g", "scope": "reader"}
        | fields
    )


def parts(text: str) -> list[Any]:
    return [json.loads(base64.urlsafe_b64decode(p + "==")) for p in text.split(".")[:2]]


def test_rfc_9068_the_header_and_the_claims_of_2_1_and_2_2(issuer: Issuer) -> None:
    head, claims = parts(issue(issuer)[1])
    assert head["typ"].lower() == "at+jwt"
    assert head["alg"] != "none"
    assert {"iss", "exp", "aud", "sub", "client_id", "iat", "jti"} <= set(claims)
    assert all(type(claims[n]) is int for n in ("exp", "iat", "nbf"))
    assert re.fullmatch(r"[!#-\[\]-~]+( [!#-\[\]-~]+)*", claims["scope"])  # RFC 6749 3.3


def test_rfc_8032_the_signature_is_over_what_rfc_7515_5_1_says(issuer: Issuer) -> None:
    text = issue(issuer)[1]
    (jwk,) = issuer.jwks()["keys"]
    assert (jwk["kty"], jwk["crv"], jwk["use"], "d" in jwk) == (
        "OKP",
        "Ed25519",
        "sig",
        False,
    )  # RFC 8037 2, RFC 7517 4
    key = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(jwk["x"] + "="))
    signing, _, signature = text.rpartition(".")
    key.verify(base64.urlsafe_b64decode(signature + "=="), signing.encode())


def test_rfc_8693_4_1_the_chain_has_the_shape_of_figure_5(issuer: Issuer) -> None:
    shown = {"sub": "https://service16.example.com", "act": {"sub": "https://service77.example.com"}}
    _, first = issue(issuer, agent="https://service77.example.com")
    _, second = issuer.exchange(first, ME, agent="https://service16.example.com")
    assert parts(second)[1]["act"] == shown
    assert parts(second)[1]["sub"] == "user@example.com"


@pytest.mark.parametrize("token", ["accVkjcJyb4BWCxGsndESCJQbdFMogUC5PbRDqceLTC", "", "a.b.c"])
def test_rfc_8693_2_2_2_a_subject_token_that_is_no_good_is_an_invalid_request(
    issuer: Issuer, token: str
) -> None:
    with pytest.raises(TokenError) as e:
        issuer.exchange(token, ME, agent="b")
    assert e.value.code == "invalid_request"


def test_rfc_8693_2_2_2_another_audience_is_an_invalid_target(issuer: Issuer) -> None:
    _, text = issue(issuer, audience="https://backend.example.com")
    with pytest.raises(TokenError) as e:
        issuer.exchange(text, ME, agent="b", audience="urn:example:cooperation-context")
    assert e.value.code == "invalid_target"
    assert (
        issuer.exchange(text, ME, agent="b", audience="https://backend.example.com")[0].audience
        == "https://backend.example.com"
    )


def test_rfc_7662_2_2_the_members_have_their_types(issuer: Issuer) -> None:
    said = issuer.introspect(issue(issuer)[1], ME)
    kinds = {
        "active": bool,
        "scope": str,
        "client_id": str,
        "exp": int,
        "iat": int,
        "nbf": int,
        "sub": str,
        "aud": str,
        "iss": str,
        "jti": str,
    }
    assert {n: type(said[n]) for n in kinds} == kinds


@pytest.mark.parametrize("token", ["mF_9.B5f-4.1JqM", "2YotnFZFEjr1zCsicMWpAA", "45ghiukldjahdnhzdauz"])
def test_rfc_7662_2_2_and_7009_2_2_a_token_of_nobodys_is_inactive_and_its_revocation_no_error(
    issuer: Issuer, token: str
) -> None:
    assert issuer.introspect(token) == {"active": False}  # and nothing else
    assert issuer.revoke_text(token, ME) == []


def test_rfc_7009_2_1_all_of_the_grant_may_go_with_one(issuer: Issuer) -> None:
    _, text = issue(issuer)
    _, child = issuer.exchange(text, ME, agent="b")
    issuer.revoke_text(text, ME)
    assert issuer.introspect(child) == {"active": False}


# RFC 9396 2, 2.1, 2.2, 3 and 5: its types are others', and "the AS MUST refuse to process any unknown type".
FOREIGN: list[Any] = [
    [{"type": "payment_initiation", "locations": ["https://example.com/payments"], "instructedAmount": {"currency": "EUR", "amount": "123.50"},
      "creditorName": "Merchant A", "creditorAccount": {"iban": "DE02100100109307118603"}, "remittanceInformationUnstructured": "Ref Number Merchant"}],
    [{"type": "customer_information", "locations": ["https://example.com/customers"], "actions": ["read", "write"], "datatypes": ["contacts", "photos"]}],
    [{"type": "https://scheme.example.org/files", "actions": ["read"]}],
    [{"actions": ["read"], "locations": ["https://example.com/customers"]}],  # without a type
    {"type": "files", "actions": ["read"]},  # no array
    [{"type": "files", "actions": ["read"], "datatypes": ["contacts"]}],  # a member that we do not know
    [{"type": "files", "actions": ["read"], "locations": ["https://example.com/customers"]}],
]  # fmt: skip


@pytest.mark.parametrize("value", FOREIGN)
def test_rfc_9396_5_what_is_unknown_or_malformed_is_refused(value: Any) -> None:
    with pytest.raises(rar.BadDetails):
        rar.read(value)


def test_rfc_9396_7_and_9_what_was_granted_is_in_the_token_and_in_its_introspection(issuer: Issuer) -> None:
    asked = [{"type": "files", "actions": ["read"], "locations": ["/home/u/p/**"]}]
    _, text = issue(issuer, scope="", details=rar.read(asked))
    assert parts(text)[1]["authorization_details"] == asked
    assert issuer.introspect(text)["authorization_details"] == asked


def test_rfc_6749_5_2_a_description_has_the_characters_that_it_may_have(issuer: Issuer) -> None:
    with pytest.raises(TokenError) as e:
        issue(issuer, scope='files:read \x1b[2J"\\é')
    said = e.value.as_json()
    assert said["error"] == "invalid_scope"
    assert re.fullmatch(r"[ !#-\[\]-~]+", said["error_description"])


def test_rfc_6749_3_3_blanks_divide_scopes_and_nothing_else_does(issuer: Issuer) -> None:
    assert issue(issuer, scope="files:read  log:read")[0].scopes == {"files:read", "log:read"}
    for scope in ("files:read\tlog:read", "files:read\u00a0log:read", "files:read,log:read", "FILES:READ"):
        with pytest.raises(TokenError) as e:
            issue(issuer, scope=scope)
        assert e.value.code == "invalid_scope"


def test_names_that_the_specifications_gave() -> None:
    assert TOKEN_TYPE == "urn:ietf:params:oauth:token-type:access_token"
    assert set(GRANT_TYPES) == {
        "urn:ietf:params:oauth:grant-type:token-exchange", "urn:ietf:params:oauth:grant-type:device_code",
        "refresh_token", "client_credentials",
    }  # fmt: skip
    assert STEP == 5
