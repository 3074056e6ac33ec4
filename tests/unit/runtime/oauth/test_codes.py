from __future__ import annotations

import re
from itertools import count

import pytest

from remit_daemon.runtime.oauth.codes import (
    CODE_LIFE,
    MAX_WAITING,
    SPENT_LIFE,
    WAIT_LIFE,
    Asked,
    Code,
    Codes,
    Spent,
    Waiting,
    challenge_of,
    check_challenge,
    mark_of,
    proves,
)
from remit_daemon.tokens.issuer import TokenError
from remit_daemon.tokens.wanted import Wanted

# RFC 7636, appendix B
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
ASKED = Asked(
    "app", "http://127.0.0.1/cb", None, CHALLENGE, "app", Wanted("https://r.example", ("log:read",), ()), "q", "p1", "M", "http://i"
)  # fmt: skip
GOOD = {
    "client_id": "app", "redirect_uri": "http://127.0.0.1/cb", "issuer": "http://i", "verifier": VERIFIER, "resource": "https://r.example",
}  # fmt: skip


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        numbers = count()
        self.codes = Codes(lambda: self.now, lambda: f"c{next(numbers)}")
        self.waiting = Waiting(lambda: self.now, lambda: f"t{next(numbers)}")


def test_the_vector_of_rfc_7636() -> None:
    assert challenge_of(VERIFIER) == CHALLENGE
    assert proves(VERIFIER, CHALLENGE)
    check_challenge("S256", CHALLENGE)
    for wrong in (VERIFIER[:-1], VERIFIER + "=", "", VERIFIER + "x" * 100, "é" * 43, VERIFIER + "\n"):
        assert not proves(wrong, CHALLENGE)
    for method, challenge in (
        ("plain", VERIFIER),
        ("", CHALLENGE),
        ("s256", CHALLENGE),
        ("S256", CHALLENGE + "="),
        ("S256", ""),
    ):
        with pytest.raises(TokenError) as e:
            check_challenge(method, challenge)
        assert e.value.code == "invalid_request"


def test_a_code_is_used_once() -> None:
    w = World()
    text = w.codes.make(Code(ASKED, "", "p1"))
    assert w.codes.redeem(text, **GOOD).source == "p1"
    for _ in range(2):
        with pytest.raises(Spent) as e:
            w.codes.redeem(text, **GOOD)
        assert e.value.source == "p1"
    w.now += SPENT_LIFE
    w.codes.make(Code(ASKED, "g1", "p1"))
    with pytest.raises(TokenError) as other:
        w.codes.redeem(text, **GOOD)
    assert type(other.value) is TokenError


@pytest.mark.parametrize("name", [*GOOD])
def test_a_code_presented_wrongly_is_over(name: str) -> None:
    w = World()
    text = w.codes.make(Code(ASKED, "g1", "p1"))
    with pytest.raises(TokenError) as e:
        w.codes.redeem(text, **(GOOD | {name: GOOD[name] + "x"}))
    assert e.value.code == ("invalid_target" if name == "resource" else "invalid_grant")
    with pytest.raises(Spent):
        w.codes.redeem(text, **GOOD)


def test_a_code_ends_soon() -> None:
    w = World()
    text = w.codes.make(Code(ASKED, "g1", "p1"))
    w.now += CODE_LIFE
    with pytest.raises(TokenError, match="expired"):
        w.codes.redeem(text, **GOOD)


def test_what_waits_is_bounded_and_ends() -> None:
    w = World()
    tickets = [w.waiting.open(ASKED) for _ in range(MAX_WAITING)]
    with pytest.raises(TokenError) as e:
        w.waiting.open(ASKED)
    assert e.value.code == "temporarily_unavailable"
    assert w.waiting.look(tickets[0]) == ASKED
    w.waiting.close(tickets[0])
    assert w.waiting.look(tickets[0]) is None
    w.now += WAIT_LIFE
    assert w.waiting.look(tickets[1]) is None
    w.waiting.open(ASKED)


def test_marks() -> None:
    assert mark_of(bytes(range(8))) == "BCDF-GHJK"
    assert re.fullmatch("[B-DF-HJ-NP-TV-XZ]{4}-[B-DF-HJ-NP-TV-XZ]{4}", mark_of(bytes([255] * 8)))
