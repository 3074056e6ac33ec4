"""What lies between a question and a token: authorizations that wait for a person, and codes that wait for their client. No I/O.

    asked ──▶ waits, known by its ticket ──▶ code, for CODE_LIFE ──▶ used once

A code is good for the client, the address and the resource that it was asked for, and for who knows the verifier of its
challenge (RFC 7636). Presented again, or wrongly, it has been seen by another: it is over, and with it all that came of it
(RFC 6749 4.1.2). Tickets and codes are 256 random bits; only their SHA-256 digests are kept.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from remit_daemon.tokens.issuer import TokenError

if TYPE_CHECKING:
    from collections.abc import Callable

    from remit_daemon.tokens.wanted import Wanted

CODE_LIFE = 60.0  # seconds; RFC 6749 4.1.2 has at most ten minutes
SPENT_LIFE = 600.0  # seconds in which the second use of a code is known as one
WAIT_LIFE = 1200.0  # seconds: a question's life, and the time in which its answer may be fetched
MAX_WAITING = 200  # authorizations at once; each has a question, of which there are fewer
MAX_CODES = 1000
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636 4.1
_DIGEST = re.compile(r"[A-Za-z0-9_-]{43}")  # SHA-256 in base64url
_USER_CODE = "BCDFGHJKLMNPQRSTVWXZ"  # RFC 8628 6.1: no vowels, so no words


class Spent(TokenError):
    """A code was presented a second time, or by another; ``source`` is what its tokens came of."""

    def __init__(self, source: str, agent: str, text: str) -> None:
        super().__init__("invalid_grant", text)
        self.source = source
        self.agent = agent


@dataclass(frozen=True, slots=True)
class Asked:
    """One authorization request, and the question that it became.

    ``request`` is the secret of the question ``prompt``, ``mark`` what page and question both show, ``issuer`` where it came in,
    ``jkt`` the thumbprint of the key that the code is bound to, "" when it is not (RFC 9449 10).
    """

    client_id: str
    redirect_uri: str
    state: str | None
    challenge: str
    agent: str
    wanted: Wanted
    request: str
    prompt: str
    mark: str
    issuer: str
    jkt: str = ""


@dataclass(frozen=True, slots=True)
class Code:
    """What a code stands for: ``grant`` is the grant, or "", ``prompt`` the question; one of them is the tokens' source."""

    asked: Asked
    grant: str
    prompt: str

    @property
    def source(self) -> str:
        return self.grant or self.prompt


def challenge_of(verifier: str) -> str:
    """Return the S256 challenge of ``verifier`` (RFC 7636 4.2)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode("ascii")).digest()).rstrip(b"=").decode()


def is_digest(text: str) -> bool:
    """Tell whether ``text`` can be a SHA-256 in base64url."""
    return bool(_DIGEST.fullmatch(text))


def check_challenge(method: str, challenge: str) -> None:
    """Raise TokenError unless ``challenge`` is one that we can check."""
    if method != "S256":
        raise TokenError("invalid_request", "code_challenge_method must be S256")
    if not is_digest(challenge):
        raise TokenError("invalid_request", "code_challenge is no SHA-256 in base64url")


def proves(verifier: str, challenge: str) -> bool:
    """Tell whether who knows ``verifier`` made ``challenge``."""
    return bool(_VERIFIER.fullmatch(verifier)) and hmac.compare_digest(challenge_of(verifier), challenge)


def mark_of(random: bytes) -> str:
    """Return the mark of a question, as in ``WDJB-MJHT`` (RFC 8628 6.1), from eight random bytes."""
    letters = "".join(_USER_CODE[b % 20] for b in random[:8])
    return f"{letters[:4]}-{letters[4:]}"


class Waiting:
    """Authorizations that wait for an answer. ``clock`` gives seconds, ``name`` a fresh secret."""

    def __init__(self, clock: Callable[[], float], name: Callable[[], str]) -> None:
        self._clock = clock
        self._name = name
        self._known: dict[bytes, tuple[float, Asked]] = {}

    def open(self, asked: Asked) -> str:
        """Return the ticket of ``asked``. Raises TokenError when too many wait."""
        self._sweep()
        self.room()
        ticket = self._name()
        self._known[_digest(ticket)] = (self._clock() + WAIT_LIFE, asked)
        return ticket

    def room(self) -> None:
        """Raise TokenError when there is no room for another."""
        if len(self._known) >= MAX_WAITING:
            raise TokenError("temporarily_unavailable", "too many authorizations wait for an answer")

    def look(self, ticket: str) -> Asked | None:
        """Return what waits under ``ticket``, None when nothing does."""
        self._sweep()
        found = self._known.get(_digest(ticket))
        return None if found is None else found[1]

    def close(self, ticket: str) -> None:
        """Forget what waits under ``ticket``."""
        self._known.pop(_digest(ticket), None)

    def _sweep(self) -> None:
        now = self._clock()
        for digest in [d for d, (end, _) in self._known.items() if end <= now]:
            del self._known[digest]


class Codes:
    """All codes, used and unused. ``clock`` and ``name`` are as for ``Waiting``."""

    def __init__(self, clock: Callable[[], float], name: Callable[[], str]) -> None:
        self._clock = clock
        self._name = name
        self._known: dict[bytes, tuple[float, Code]] = {}
        self._spent: set[bytes] = set()

    def make(self, code: Code) -> str:
        """Return the text of ``code``. Raises TokenError when there are too many."""
        now = self._clock()
        for old in [d for d, (made, _) in self._known.items() if made + SPENT_LIFE <= now]:
            del self._known[old]
            self._spent.discard(old)
        if len(self._known) >= MAX_CODES:
            raise TokenError("temporarily_unavailable", "too many codes were given lately")
        text = self._name()
        self._known[_digest(text)] = (now, code)
        return text

    def redeem(self, text: str, *, client_id: str, redirect_uri: str, issuer: str, verifier: str, resource: str | None, jkt: str = "") -> Code:  # fmt: skip
        """Use a code up and return what it stands for. Raises Spent, or TokenError where no code was."""
        digest = _digest(text)
        made, code = self._known.get(digest, (0.0, None))
        if code is None:
            raise TokenError("invalid_grant", "no code, or one of long ago")
        if digest in self._spent:
            raise Spent(
                code.source,
                code.asked.agent,
                "the code was used before: it, and all that came of it, is revoked",
            )
        self._spent.add(digest)
        asked = code.asked
        if made + CODE_LIFE <= self._clock():
            raise TokenError("invalid_grant", "the code has expired")
        if (asked.client_id, asked.redirect_uri, asked.issuer) != (client_id, redirect_uri, issuer):
            raise TokenError("invalid_grant", "the code was given to another client_id or redirect_uri")
        if asked.jkt and asked.jkt != jkt:
            raise TokenError("invalid_grant", "the code is bound to another key")
        if not proves(verifier, asked.challenge):
            raise TokenError("invalid_grant", "code_verifier is not the challenge's")
        if resource not in (None, asked.wanted.audience):
            raise TokenError("invalid_target", "the code is for another resource")
        return code


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
