"""Capability tokens: issued, exchanged, looked at and revoked, in OAuth's terms. No I/O: the clock and the names are given.

An access token is a JWT (RFC 9068, ``at+jwt``, Ed25519) that lives five minutes and is bound to one process: whoever else
presents it, presents nothing. ``sub`` is the person, ``act`` the chain of agents that act for him (RFC 8693, the outermost is the one that
acts now), ``authorization_details`` what for. The key is in memory alone and new with each run.

Whether a token is good is not in its signature, which is for others: it must be one that we issued, to the last character,
unrevoked, presented by the process that it is bound to. Revoking one revokes all that were made from it.

Its claims: ``iss``, ``sub``, ``aud``, ``client_id`` (the agent that acts), ``jti``, ``iat``, ``nbf``, ``exp``, ``scope``, ``act``,
``authorization_details``; ``cnf`` with ``urn:remit:process``, the identity of the process that alone may present it; ``grant_id``,
the session, grant or key that it comes of; ``txn``, which all that were made from one share, ``parent_jti``; and ``epoch``. Who
verifies offline (JWKS) compares that with ``revocation_epoch`` of the metadata: a token of a smaller one was issued before
something was revoked, so it is refused, or asked about (introspection). A process's end moves no epoch: nobody presents its tokens.

A token for a client of OAuth has the URL at which it was issued as ``iss`` and the client's id as ``client_id``. Where the client's
process cannot be held, it is a bearer token (RFC 6750) without ``cnf``: good for whoever has it, at its audience alone. One that was
asked for with a key (DPoP, RFC 9449) has the key's thumbprint there, as ``jkt``.
"""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from joserfc import jwt
from joserfc.jwk import OKPKey

from remit_daemon.tokens import details as rar
from remit_policy.scopes import SCOPES, UnknownScope, expand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from remit_daemon.tokens.details import Detail

LIFE = 300  # seconds
MAX_DEPTH = 2  # exchanges: a sub-agent of a sub-agent
MAX_TOKENS = 10_000  # at once; a token takes some 2 kB
MAX_OF_GRANT = 1000  # of those: no agent leaves the others none
MAX_AGENT = 64  # characters of the name that a program outside sessions, or a sub-agent, is given
MAX_AUDIENCE = 2048  # characters
MAX_SKEW = 60  # seconds that the clock may be set back before tokens of the future are none
MAX_TEXT = 1 << 16  # characters of what is presented
TYP, ALG = "at+jwt", "Ed25519"
TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - RFC 8693 3
GRANT_TYPES = (
    "urn:ietf:params:oauth:grant-type:token-exchange",  # RFC 8693 2.1
    "urn:ietf:params:oauth:grant-type:device_code",  # RFC 8628 3.4
    "refresh_token", "client_credentials",  # RFC 6749 6, 4.4
)  # fmt: skip
OAUTH = "oauth:"  # before the id of a client to which a token is bound that no process is: a bearer token
JKT = "jkt:"  # before the thumbprint of the client's key to which a token is bound
_CNF = "urn:remit:process"  # our confirmation method (RFC 7800 3.1 lets profiles add their own)


class TokenError(Exception):
    """A request that fails: ``code`` is the RFC's error code, the text its description."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code

    def as_json(self) -> dict[str, str]:
        """Return the members that RFC 6749 5.2 has, the description in the characters that it admits."""
        shown = "".join(
            c if " " <= c <= "~" and c not in '"\\' else "'" if c == '"' else "?" for c in str(self)
        )
        return {"error": self.code, "error_description": shown}


@dataclass(frozen=True, slots=True)
class Token:
    """One issued token. ``actors`` are the agents' names, the one that acts now first; ``bound`` is a process identity, OAUTH and a client's id, or JKT and a
    key's thumbprint.

    ``issuer`` and ``client`` are set for a client of OAuth: the URL at which it was served, and its id.
    """

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
    epoch: int
    parent: str = ""
    depth: int = 0
    issuer: str = ""
    client: str = ""

    @property
    def type(self) -> str:
        """The token's type (RFC 6750, RFC 9449), ``N_A`` (RFC 8693 2.2.1) for one that is a process's own."""
        return "Bearer" if self.bound.startswith(OAUTH) else "DPoP" if self.bound.startswith(JKT) else "N_A"

    def _cnf(self) -> dict[str, Any]:
        if self.bound.startswith(OAUTH):
            return {}
        return {
            "cnf": {"jkt": self.bound.removeprefix(JKT)}
            if self.bound.startswith(JKT)
            else {_CNF: self.bound}
        }

    def claims(self, issuer: str) -> dict[str, Any]:
        """Return the claims of RFC 9068 2.2, RFC 8693 4.1, RFC 9396 9.1 and ours."""
        act: dict[str, Any] = {}
        for name in reversed(self.actors):
            act = {"sub": name} | ({"act": act} if act else {})
        out: dict[str, Any] = {
            "iss": self.issuer or issuer, "sub": self.subject, "aud": self.audience, "client_id": self.client or self.actors[0], "jti": self.jti,
            "iat": self.issued, "nbf": self.issued, "exp": self.expires, "scope": " ".join(sorted(self.scopes)), "act": act,
            "authorization_details": [d.as_json() for d in self.details],
            "grant_id": self.grant_id, "txn": self.txn, "epoch": self.epoch,
        }  # fmt: skip
        return out | self._cnf() | ({"parent_jti": self.parent} if self.parent else {})


class Issuer:
    """The authorization server of one person. ``clock`` gives seconds since the epoch, ``name`` a fresh identifier.

    ``roles`` gives the roles over scopes that policy defines now; a role is looked up whenever a token is made.
    """

    def __init__(
        self,
        issuer: str,
        clock: Callable[[], float],
        name: Callable[[], str],
        roles: Callable[[], Mapping[str, tuple[str, ...]]] = dict,
    ) -> None:
        self.issuer = issuer
        self.epoch = int(clock())  # above that of any earlier run
        self._roles = roles
        self._clock = clock
        self._name = name
        self._key = OKPKey.generate_key("Ed25519", parameters={"kid": name(), "use": "sig", "alg": ALG})
        self._live: dict[str, Token] = {}  # by jti
        self._texts: dict[bytes, str] = {}  # digest of a token's text → jti
        self._digests: dict[str, bytes] = {}  # and back
        self._children: dict[str, set[str]] = {}
        self._of: dict[tuple[str, str], set[str]] = {}  # (what, its name) → jtis; see ``_names``
        self._ends: list[tuple[int, str]] = []  # a heap of expiry and jti

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
        txn: str = "",
        issuer: str = "",
        client: str = "",
        behalf: tuple[str, ...] = (),
    ) -> tuple[Token, str]:
        """Return a token for a grant that a person or the policy gave, and its text. Raises TokenError.

        ``scope`` names scopes and roles; ``sensitive``: an administrator gave it, so sensitive scopes may be among them;
        ``txn`` names what the token is one more of; ``issuer`` and ``client`` are as in ``Token``.
        ``behalf`` are the agents that ``agent`` acts for, nearest first: each counts as an exchange does.
        """
        scopes, asked = self.wanted(scope, tuple(details))
        if len(audience) > MAX_AUDIENCE or not audience.isprintable():
            raise TokenError(
                "invalid_target", f"an audience is at most {MAX_AUDIENCE} printable characters"
            )
        refused = sorted(s for s in scopes if SCOPES[s].sensitive and not sensitive)
        if refused:
            raise TokenError("access_denied", f"only an administrator grants {', '.join(refused)}")
        if not agent or not bound:
            raise TokenError("invalid_request", "a token needs an agent and a process")
        now = int(self._clock())
        token = Token(
            self._name(), subject, (agent, *behalf), audience or self.issuer, scopes, asked, bound, now, now + max(1, min(life, LIFE)),
            grant_id, txn or self._name(), self.epoch, depth=len(behalf), issuer=issuer, client=client,
        )  # fmt: skip
        return token, self._sign(token)

    def exchange(
        self, text: str, presenter: str, *, agent: str, bound: str = "", scope: str = "", details: Iterable[Detail] | None = None,
        audience: str = "",
    ) -> tuple[Token, str]:  # fmt: skip
        """Return a narrower token for sub-agent ``agent``, made from ``text`` (RFC 8693). Raises TokenError.

        ``presenter`` presents ``text``; the new token is bound to ``bound`` ("": to the presenter). It ends with its parent.
        """
        try:
            parent = self.verify(text, presenter)
        except (
            TokenError
        ) as e:  # RFC 8693 2.2.2: the code for a subject token that is no good, whatever is wrong with it
            raise TokenError("invalid_request", f"the subject token is no good: {e}") from None
        if audience not in ("", parent.audience):
            raise TokenError("invalid_target", "the token is for another audience")
        if parent.depth >= MAX_DEPTH:
            raise TokenError("invalid_request", f"a token is exchanged at most {MAX_DEPTH} times")
        if not 0 < len(agent) <= MAX_AGENT or not agent.isprintable():
            raise TokenError(
                "invalid_request", f"a sub-agent's name is at most {MAX_AGENT} printable characters"
            )
        if details is not None:
            scopes, asked = self.wanted(scope, tuple(details))
        else:
            scopes = self.wanted(scope, ())[0] if scope else parent.scopes
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
            min(now + LIFE, parent.expires), parent.grant_id, parent.txn, self.epoch, parent.jti, parent.depth + 1,
        )  # fmt: skip
        return token, self._sign(token)

    @staticmethod
    def check_audience(audience: str) -> None:
        """Raise TokenError (RFC 8693 2.2.2, ``invalid_target``) when ``audience`` is none."""
        if len(audience) > MAX_AUDIENCE or not audience.isprintable():
            raise TokenError(
                "invalid_target", f"an audience is at most {MAX_AUDIENCE} printable characters"
            )

    def wanted(self, scope: str, details: tuple[Detail, ...]) -> tuple[frozenset[str], tuple[Detail, ...]]:
        """Return the scopes that ``scope``, names of scopes and roles, and ``details`` come to, and these. Raises TokenError."""
        try:
            scopes = expand(
                filter(None, scope.split(" ")), self._roles()
            )  # RFC 6749 3.3: blanks alone divide
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
        if len(self._of.get(("grant", token.grant_id), ())) >= MAX_OF_GRANT:
            raise TokenError("temporarily_unavailable", "too many tokens of this grant are live")
        header = {"alg": ALG, "typ": TYP, "kid": self._key.kid}
        text = jwt.encode(header, token.claims(self.issuer), self._key, algorithms=[ALG])
        self._live[token.jti], self._texts[_digest(text)] = token, token.jti
        self._digests[token.jti] = _digest(text)
        heapq.heappush(self._ends, (token.expires, token.jti))
        for name in _names(token):
            self._of.setdefault(name, set()).add(token.jti)
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
        # By its digest: only the very text that we signed is a token, and nothing of what is presented is parsed.
        token = self._live.get(self._texts.get(_digest(text), ""))
        if token is None:
            raise TokenError("invalid_token", "revoked, or never issued")
        now = self._clock()
        if token.expires <= now:
            raise TokenError("invalid_token", "expired")
        if now < token.issued - MAX_SKEW:
            raise TokenError("invalid_token", "not valid yet: the clock was set back")
        return token

    def look(self, text: str) -> Token | None:
        """Return the live token ``text``, whoever has it, None when it is none."""
        try:
            return self._known(text)
        except TokenError:
            return None

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
        return list(self._live.values())

    # -- ending ------------------------------------------------------------------------------------

    def revoke(self, *, jti: str = "", grant_id: str = "", bound: str = "", txn: str = "") -> list[str]:
        """Revoke the token ``jti``, or all of a grant, a process or a ``txn``, each with all made from it; returns their
        identifiers."""
        now = {jti}.union(
            *(self._of.get(n, ()) for n in (("grant", grant_id), ("bound", bound), ("txn", txn)) if n[1])
        )
        gone: list[str] = []
        while now:
            one = now.pop()
            now |= self._children.get(one, set())
            if self._forget(one):
                gone.append(one)
        if gone and not bound:
            self.epoch += 1
        return gone

    def revoke_all(self) -> None:
        """Revoke every token."""
        if self._live:
            self.epoch += 1
        for jti in list(self._live):
            self._forget(jti)

    def _forget(self, jti: str) -> bool:
        token = self._live.pop(jti, None)
        self._children.pop(jti, None)
        if token is None:
            return False
        del self._texts[self._digests.pop(jti)]
        for name in _names(token):
            some = self._of[name]
            some.discard(jti)
            if not some:
                del self._of[name]
        return True

    def revoke_text(self, text: str, presenter: str) -> list[str]:
        """Revoke a token that its holder gives back (RFC 7009). A token that is not good is no error there."""
        try:
            return self.revoke(jti=self.verify(text, presenter).jti)
        except TokenError:
            return []

    def _sweep(self) -> None:
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            self._forget(heapq.heappop(self._ends)[1])

    # -- what others need to know ------------------------------------------------------------------

    def jwks(self) -> dict[str, Any]:
        """Return the public key as a JWK Set (RFC 7517)."""
        return {"keys": [dict(self._key.as_dict(private=False))]}

    def metadata(self) -> dict[str, Any]:
        """Return what the sockets offer, in the words of RFC 8414, which is about URLs: its document is ``runtime.oauth``'s."""
        return {
            "issuer": self.issuer,
            "scopes_supported": sorted(SCOPES),
            "grant_types_supported": list(GRANT_TYPES),
            "authorization_details_types_supported": list(rar.TYPES),
            "revocation_epoch": self.epoch,
        }


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _names(token: Token) -> tuple[tuple[str, str], ...]:
    return ("grant", token.grant_id), ("bound", token.bound), ("txn", token.txn)
