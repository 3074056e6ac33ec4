"""Capability tokens: issued, exchanged, looked at and revoked, in OAuth's terms. No I/O: the clock and the names are given.

An access token is a JWT (RFC 9068, ``at+jwt``, Ed25519) that lives five minutes and is bound to one process: whoever else
presents it, presents nothing. ``sub`` is the person, ``act`` the chain of agents that act for him (RFC 8693, the outermost is the one that
acts now), ``authorization_details`` what for. The key is in memory alone and new with each run.

Whether a token is good is not in its signature only: it must be one that we issued, unrevoked, presented by the process that it
is bound to. Revoking one revokes all that were made from it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from remit_daemon.tokens import details as rar
from remit_daemon.tokens.registry import SCOPES, UnknownScope, expand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from remit_daemon.tokens.details import Detail

LIFE = 300  # seconds
MAX_DEPTH = 2  # exchanges: a sub-agent of a sub-agent
MAX_TOKENS = 10_000  # at once; a token takes some 2 kB
MAX_OF_GRANT = 1000  # of those: no agent leaves the others none
MAX_TEXT = 1 << 16  # characters of what is presented
TYP, ALG = "at+jwt", "Ed25519"
TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - RFC 8693 3
_CNF = "urn:remit:process"  # our confirmation method (RFC 7800 3.1 lets profiles add their own)


class TokenError(Exception):
    """A request that fails: ``code`` is the RFC's error code, the text its description."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Token:
    """One issued token. ``actors`` are the agents' names, the one that acts now first; ``bound`` is a process identity."""

    jti: str
    subject: str
    actors: tuple[str, ...]
    audience: str
    scopes: frozenset[str]
    details: tuple[Detail, ...]
    bound: str
    issued: int
    expires: int
    grant_id: str
    txn: str
    parent: str = ""
    depth: int = 0

    def claims(self, issuer: str) -> dict[str, Any]:
        """Return the claims of RFC 9068 2.2, RFC 8693 4.1, RFC 9396 9.1 and ours."""
        act: dict[str, Any] = {}
        for name in reversed(self.actors):
            act = {"sub": name} | ({"act": act} if act else {})
        out: dict[str, Any] = {
            "iss": issuer, "sub": self.subject, "aud": self.audience, "client_id": self.actors[0], "jti": self.jti,
            "iat": self.issued, "nbf": self.issued, "exp": self.expires, "scope": " ".join(sorted(self.scopes)), "act": act,
            "authorization_details": [d.as_json() for d in self.details], "cnf": {_CNF: self.bound},
            "grant_id": self.grant_id, "txn": self.txn,
        }  # fmt: skip
        return out | ({"parent_jti": self.parent} if self.parent else {})


class Issuer:
    """The authorization server of one person. ``clock`` gives seconds since the epoch, ``name`` a fresh identifier."""

    def __init__(self, issuer: str, clock: Callable[[], float], name: Callable[[], str]) -> None:
        self.issuer = issuer
        self._clock = clock
        self._name = name
        self._key = OKPKey.generate_key("Ed25519", parameters={"kid": name(), "use": "sig", "alg": ALG})
        self._live: dict[str, tuple[Token, bytes]] = {}  # jti → the token, and the digest of its text
        self._children: dict[str, set[str]] = {}

    # -- issuing -----------------------------------------------------------------------------------

    def issue(
        self,
        *,
        subject: str,
        agent: str,
        bound: str,
        grant_id: str,
        scope: str = "",
        details: Iterable[Detail] = (),
        audience: str = "",
        sensitive: bool = False,
        life: int = LIFE,
        behalf: tuple[str, ...] = (),
    ) -> tuple[Token, str]:
        """Return a token for a grant that a person or the policy gave, and its text. Raises TokenError.

        ``scope`` names scopes and roles; ``sensitive``: an administrator gave it, so sensitive scopes may be among them. ``behalf`` are
        the agents that ``agent`` acts for, nearest first: each counts as an exchange does.
        """
        scopes, asked = self._wanted(scope, tuple(details))
        refused = sorted(s for s in scopes if SCOPES[s].sensitive and not sensitive)
        if refused:
            raise TokenError("access_denied", f"only an administrator grants {', '.join(refused)}")
        if not agent or not bound:
            raise TokenError("invalid_request", "a token needs an agent and a process")
        now = int(self._clock())
        token = Token(
            self._name(), subject, (agent, *behalf), audience or self.issuer, scopes, asked, bound, now, now + max(1, min(life, LIFE)),
            grant_id, self._name(), depth=len(behalf),
        )  # fmt: skip
        return token, self._sign(token)

    def exchange(
        self, text: str, presenter: str, *, agent: str, bound: str = "", scope: str = "", details: Iterable[Detail] | None = None
    ) -> tuple[Token, str]:  # fmt: skip
        """Return a narrower token for sub-agent ``agent``, made from ``text`` (RFC 8693). Raises TokenError.

        ``presenter`` presents ``text``; the new token is bound to ``bound`` ("": to the presenter). It ends with its parent.
        """
        parent = self.verify(text, presenter)
        if parent.depth >= MAX_DEPTH:
            raise TokenError("invalid_request", f"a token is exchanged at most {MAX_DEPTH} times")
        if not agent:
            raise TokenError("invalid_request", "the sub-agent has no name")
        if details is not None:
            scopes, asked = self._wanted(scope, tuple(details))
        else:
            scopes = self._wanted(scope, ())[0] if scope else parent.scopes
            asked = rar.only(parent.details, scopes)
        if not scopes <= parent.scopes:
            raise TokenError(
                "invalid_scope", f"not the parent's: {', '.join(sorted(scopes - parent.scopes))}"
            )
        if not rar.narrower((scopes, asked), (parent.scopes, parent.details)):
            raise TokenError("invalid_authorization_details", "they go beyond the parent's")
        now = int(self._clock())
        token = Token(
            self._name(), parent.subject, (agent, *parent.actors), parent.audience, scopes, asked, bound or presenter, now,
            min(now + LIFE, parent.expires), parent.grant_id, parent.txn, parent.jti, parent.depth + 1,
        )  # fmt: skip
        return token, self._sign(token)

    @staticmethod
    def _wanted(scope: str, details: tuple[Detail, ...]) -> tuple[frozenset[str], tuple[Detail, ...]]:
        try:
            scopes = expand(scope.split())
        except UnknownScope as e:
            raise TokenError("invalid_scope", f"there is no scope {e}") from None
        scopes |= frozenset[str]().union(*(d.scopes for d in details))
        if not scopes:
            raise TokenError("invalid_scope", "a token for nothing")
        return scopes, details

    def _sign(self, token: Token) -> str:
        self._sweep()
        if len(self._live) >= MAX_TOKENS:
            raise TokenError("temporarily_unavailable", "too many tokens are live")
        if sum(t.grant_id == token.grant_id for t, _ in self._live.values()) >= MAX_OF_GRANT:
            raise TokenError("temporarily_unavailable", "too many tokens of this grant are live")
        header = {"alg": ALG, "typ": TYP, "kid": self._key.kid}
        text = jwt.encode(header, token.claims(self.issuer), self._key, algorithms=[ALG])
        self._live[token.jti] = token, hashlib.sha256(text.encode()).digest()
        if token.parent:
            self._children.setdefault(token.parent, set()).add(token.jti)
        return text

    # -- looking -----------------------------------------------------------------------------------

    def verify(self, text: str, presenter: str) -> Token:
        """Return the live token whose very text ``presenter``, a process identity, presents. Raises TokenError (invalid_token)."""
        token = self._known(text)
        if token.bound != presenter:
            raise TokenError("invalid_token", "the token belongs to another process")
        return token

    def _known(self, text: str) -> Token:
        if not isinstance(text, str) or len(text) > MAX_TEXT:
            raise TokenError("invalid_token", "no token")
        try:
            read = jwt.decode(text, self._key, algorithms=[ALG])
        except (JoseError, ValueError, KeyError, TypeError, RecursionError):
            raise TokenError("invalid_token", "not a token of ours") from None
        if read.header.get("typ") != TYP or read.header.get("kid") != self._key.kid:
            raise TokenError("invalid_token", "not an access token of ours")
        token, digest = self._live.get(str(read.claims.get("jti")), (None, b""))
        # The very text that we issued: another encoding of it, or doubled members, are nothing of ours.
        if token is None or hashlib.sha256(text.encode()).digest() != digest:
            raise TokenError("invalid_token", "revoked, or never issued")
        if token.expires <= self._clock():
            raise TokenError("invalid_token", "expired")
        return token

    def introspect(self, text: str, presenter: str | None = None) -> dict[str, Any]:
        """Return RFC 7662's answer; ``presenter``: who presented it to the one that asks, None when that is not known.

        Whatever is wrong with it, a token that is not good is just not active.
        """
        try:
            token = self._known(text) if presenter is None else self.verify(text, presenter)
        except TokenError:
            return {"active": False}
        return {"active": True, **token.claims(self.issuer)}

    def live(self) -> list[Token]:
        """Return the tokens that are good now, the oldest first."""
        self._sweep()
        return [token for token, _ in self._live.values()]

    # -- ending ------------------------------------------------------------------------------------

    def revoke(self, *, jti: str = "", grant_id: str = "", bound: str = "") -> list[str]:
        """Revoke the token ``jti``, a grant's, or a process's, each with all made from it; returns their identifiers."""
        now = [
            t.jti
            for t, _ in self._live.values()
            if (jti and t.jti == jti)
            or (grant_id and t.grant_id == grant_id)
            or (bound and t.bound == bound)
        ]
        gone: list[str] = []
        while now:
            one = now.pop()
            now += self._children.pop(one, ())
            if self._live.pop(one, None) is not None:
                gone.append(one)
        return gone

    def revoke_text(self, text: str, presenter: str) -> list[str]:
        """Revoke a token that its holder gives back (RFC 7009). A token that is not good is no error there."""
        try:
            return self.revoke(jti=self.verify(text, presenter).jti)
        except TokenError:
            return []

    def _sweep(self) -> None:
        now = self._clock()
        for jti in [t.jti for t, _ in self._live.values() if t.expires <= now]:
            del self._live[jti]
            self._children.pop(jti, None)

    # -- what others need to know ------------------------------------------------------------------

    def jwks(self) -> dict[str, Any]:
        """Return the public key as a JWK Set (RFC 7517)."""
        return {"keys": [dict(self._key.as_dict(private=False))]}

    def metadata(self) -> dict[str, Any]:
        """Return what this server can, as RFC 8414 names it."""
        return {
            "issuer": self.issuer,
            "scopes_supported": sorted(SCOPES),
            "grant_types_supported": ["urn:ietf:params:oauth:grant-type:token-exchange"],
            "authorization_details_types_supported": list(rar.TYPES),
            "token_endpoint_auth_methods_supported": ["none"],
        }
