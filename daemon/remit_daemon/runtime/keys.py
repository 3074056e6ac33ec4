"""Organisation keys over the sockets: a person makes, lists, reviews and revokes them, a program exchanges one for a token.

Each use is a row of the ledger before anything is given. Inside a session a key gets nothing, whoever's it is.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from remit_daemon.runtime.lines import Params, Problem, want
from remit_daemon.runtime.policies import SnapshotRefused
from remit_daemon.tokens import details as rar
from remit_daemon.tokens import keys
from remit_daemon.tokens.issuer import TokenError
from remit_daemon.tokens.keys import Key
from remit_daemon.tokens.wanted import Wanted
from remit_daemon.wire.rpc import CONFLICT, INVALID_PARAMS, NOT_FOUND
from remit_policy.model import DENY
from remit_policy.scopes import SCOPES

if TYPE_CHECKING:
    from remit_daemon.runtime.daemon import Daemon
    from remit_daemon.runtime.tokens import Tokens
    from remit_daemon.runtime.who import Who


class Keys:
    """The keys of one person. Raises StoreError when the store's cannot be read."""

    def __init__(self, daemon: Daemon, tokens: Tokens) -> None:
        self._daemon = daemon
        self._tokens = tokens
        self._rates = keys.Rates()
        self._keys = {k.id: k for k in daemon.memory.organisation_keys()}

    # -- the person's ------------------------------------------------------------------------------

    def create(self, params: Params) -> Params:
        """``key.create``: return the key's text, which nobody sees again, and its record."""
        p = want(
            params, name=str, scope=(str, ""), authorization_details=(list, []), audience=(str, ""), expires_in=(int, 0),
            review_in=(int, 0), rate=(list, list(keys.DEFAULT_RATE)),
        )  # fmt: skip
        if not 0 < len(p["name"]) <= keys.MAX_NAME or not p["name"].isprintable():
            raise Problem(INVALID_PARAMS, f"name is at most {keys.MAX_NAME} printable characters")
        if not (p["expires_in"] or p["review_in"]):
            raise Problem(
                INVALID_PARAMS, "a key needs an end (expires_in) or a date to look at it again (review_in)"
            )
        rate = p["rate"]
        if len(rate) != 2 or not all(type(n) is int and 0 < n <= 1_000_000 for n in rate):
            raise Problem(INVALID_PARAMS, "rate is a number of uses and a number of seconds")
        wanted = self._tokens.wanted(p["scope"], p["authorization_details"], p["audience"])
        if refused := sorted(s for s in wanted.scopes if SCOPES[s].sensitive):
            raise TokenError("access_denied", f"only an administrator grants {', '.join(refused)}")
        if len(self._keys) >= keys.MAX_KEYS:
            raise Problem(CONFLICT, f"there are {keys.MAX_KEYS} keys already")
        now, text = self._daemon.clock(), keys.make(secrets.token_bytes(keys.RANDOM))
        while (ident := "k" + secrets.token_hex(3)) in self._keys:
            pass
        key = Key(
            ident, p["name"], keys.digest(text), p["scope"], wanted.details_json(), p["audience"], now,
            _date(now, p["expires_in"]), _date(now, p["review_in"]), (rate[0], rate[1]),
        )  # fmt: skip
        self._record(key, "created", " ".join(sorted(wanted.scopes)), actor="human")
        self._keep(key)
        return {"key": text, **_shown(key, now)}

    def shown(self, params: Params) -> list[Params]:
        """``key.list``: the keys, oldest first, without their text."""
        want(params)
        return [_shown(k, self._daemon.clock()) for k in self._keys.values()]

    def revoke(self, params: Params) -> Params:
        """``key.revoke``: end a key and every token that was made with it."""
        key = self._key(want(params, id=str)["id"])
        self._record(key, "revoked", "", actor="human")
        self._daemon.memory.drop_key(key.id)
        del self._keys[key.id]
        self._rates.forget(key.id)
        return {"revoked": key.id, "tokens": len(self._tokens.issuer.revoke(grant_id=key.id))}

    def review(self, params: Params) -> Params:
        """``key.review``: a person has looked at a key; the next date is ``review_in`` seconds from now."""
        p = want(params, id=str, review_in=int)
        key, now = self._key(p["id"]), self._daemon.clock()
        key = replace(key, review=_date(now, p["review_in"]))
        self._record(key, "reviewed", "", actor="human")
        self._keep(key)
        return _shown(key, now)

    def _key(self, ident: str) -> Key:
        try:
            return self._keys[ident]
        except KeyError:
            raise Problem(NOT_FOUND, f"no key {ident}") from None

    def _keep(self, key: Key) -> None:
        self._daemon.memory.keep_key(key)
        self._keys[key.id] = key

    # -- a program's -------------------------------------------------------------------------------

    def exchange(self, who: Who, params: Params) -> Params:
        """``token.key``: a token for the process that presents a key (RFC 6749 4.4, the key being the client's secret)."""
        p = want(params, key=str, scope=(str, ""), authorization_details=(list, None))
        key: Key | None = None
        try:
            if who.session is not None:
                raise TokenError("unauthorized_client", "keys are for programs outside sessions")
            if not keys.well_formed(p["key"]):
                raise TokenError("invalid_client", "this is no key: mistyped, or cut off")
            found = keys.digest(p["key"])
            key = next((k for k in self._keys.values() if secrets.compare_digest(k.digest, found)), None)
            if key is None:
                raise TokenError("invalid_client", "the key is unknown, or was revoked")
            wanted = self._wanted(who, key, p["scope"], p["authorization_details"])
        except TokenError as e:
            self._refused(who, key, e)
            raise
        now = self._daemon.clock()
        self._record(key, "used", f"process {who.pid}", actor="agent", who=who, scopes=wanted.scopes)
        self._keep(replace(key, uses=key.uses + 1, last_used=now))
        return self._tokens.give(who, key.name, wanted, key.id)

    def of_resource(self, text: str) -> Key:
        """Return the key by which a resource shows itself, where it asks about tokens (RFC 7662 2.1). Raises TokenError."""
        found = keys.digest(text)
        key = next((k for k in self._keys.values() if secrets.compare_digest(k.digest, found)), None)
        now = self._daemon.clock()
        if key is None or not key.audience or key.state(now) != "good":
            raise TokenError("invalid_client", "no good key of a resource")
        if not self._rates.spend(key, now):
            raise TokenError("temporarily_unavailable", "the key is used more often than it may be")
        return key

    def _wanted(self, who: Who, key: Key, scope: str, asked: list[Any] | None) -> Wanted:
        now = self._daemon.clock()
        if (state := key.state(now)) != "good":
            raise TokenError("invalid_client", f"the key is {state}")
        if not self._rates.spend(key, now):
            raise TokenError(
                "temporarily_unavailable",
                f"the key is used more often than {key.rate[0]} times in {key.rate[1]} s",
            )
        held = self._tokens.wanted(key.scope, json.loads(key.details), key.audience)
        if not scope and asked is None:
            wanted = held
        elif asked is None:
            scopes = self._tokens.issuer.wanted(scope, ())[0]
            wanted = Wanted(held.audience, tuple(sorted(scopes)), rar.only(held.details, scopes))
        else:
            wanted = self._tokens.wanted(scope, asked, key.audience)
        if not set(wanted.scopes) <= set(held.scopes):
            raise TokenError(
                "invalid_scope",
                f"not the key's: {', '.join(sorted(set(wanted.scopes) - set(held.scopes)))}",
            )
        if not rar.narrower(
            (frozenset(wanted.scopes), wanted.details), (frozenset(held.scopes), held.details)
        ):
            raise TokenError("invalid_authorization_details", "they go beyond the key's")
        broker = self._daemon.broker
        try:
            base = self._daemon.policies.of_client(key.name, who.exe)
        except SnapshotRefused as e:
            raise TokenError("temporarily_unavailable", f"no policy to go by: {e}") from None
        verdict, why = broker.judge.token(broker.state, "", wanted.scopes, base)
        if verdict == DENY:
            raise TokenError("invalid_scope", why)
        return wanted

    def _refused(self, who: Who, key: Key | None, error: TokenError) -> None:
        session = who.session.id if who.session else ""
        agent = key.name if key else who.session.agent if who.session else ""
        entry = {
            "actor": "agent", "op": "key", "outcome": "refused", "agent": agent, "session": session, "pid": who.pid,
            "proc": who.identity, "exe": who.exe, "note": f"{key.id if key else 'no key'}: {error}",
        }  # fmt: skip
        self._daemon.ledger.append([entry])
        self._daemon.publish()

    def _record(
        self, key: Key, what: str, note: str, *, actor: str, who: Who | None = None, scopes: tuple[str, ...] = ()
    ) -> None:  # fmt: skip
        entry: dict[str, Any] = {
            "actor": actor, "op": "key", "outcome": what, "agent": key.name, "path": " ".join(scopes),
            "note": f"{key.id} {note}".strip(),
        }  # fmt: skip
        if who is not None:
            entry |= {"pid": who.pid, "proc": who.identity, "exe": who.exe}
        self._daemon.ledger.append([entry], sync=actor == "human")
        self._daemon.publish()


def _date(now: float, seconds: int) -> float | None:
    if not seconds:
        return None
    if not 0 < seconds <= keys.MAX_LIFE:
        raise Problem(INVALID_PARAMS, "an end or a review is between one second and 365 days from now")
    return now + seconds


def _shown(key: Key, now: float) -> Params:
    return {
        "id": key.id, "name": key.name, "scope": key.scope, "authorization_details": json.loads(key.details), "audience": key.audience,
        "created": key.created, "expires": key.expires, "review": key.review, "rate": list(key.rate), "uses": key.uses,
        "last_used": key.last_used, "state": key.state(now),
    }  # fmt: skip
