"""What the sockets offer of tokens: programs ask for their own and narrow them, the person sees, issues and revokes.

A session's token has the session as its grant, so every row of the ledger that names the session names the token's
``grant_id``; one that a person granted for longer than once has that grant, and ends with it. It is bound to the session: all its
processes are one presenter, since their connects are made by its supervisor. Who calls is told in one place (``who.Who``); what is
wrong is said in OAuth's codes, as the data of the JSON-RPC error TOKEN_REFUSED.
"""

from __future__ import annotations

import asyncio
import getpass
import logging
import os
import secrets
from typing import TYPE_CHECKING, Any

from remit_daemon.broker import events as ev
from remit_daemon.broker.records import PROCESS
from remit_daemon.ledger.store import LedgerError
from remit_daemon.peers.process import PeerError, identify
from remit_daemon.runtime import who as callers
from remit_daemon.runtime.consents import Consents
from remit_daemon.runtime.keys import Keys
from remit_daemon.runtime.lines import Params, Problem, want
from remit_daemon.tokens import details as rar
from remit_daemon.tokens.handles import Reused
from remit_daemon.tokens.issuer import ALG, TOKEN_TYPE, Issuer, Token, TokenError
from remit_daemon.tokens.wanted import Wanted
from remit_daemon.wire.rpc import INVALID_PARAMS, NOT_FOUND, TOKEN_REFUSED
from remit_policy.model import ALLOW
from remit_policy.scopes import ROLES, SCOPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from remit_daemon.broker.records import Session
    from remit_daemon.runtime.daemon import Daemon
    from remit_daemon.runtime.lines import Method
    from remit_daemon.runtime.who import Who
    from remit_daemon.tokens.handles import Family

log = logging.getLogger("remitd.tokens")

SESSION_SCOPE = "operator"  # what a session's token has when it names nothing, as far as policy allows
MAX_NAMED = 20  # tokens that a row of the ledger names; of more it says how many


class Tokens:
    """The issuer, its records in the ledger, and the processes that tokens outside sessions are bound to."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._subject = getpass.getuser()
        self._roles = daemon.policies.set.scope_roles()
        self.issuer = Issuer(
            f"urn:remit:{os.uname().nodename}:{os.getuid()}", daemon.clock, lambda: secrets.token_urlsafe(16), lambda: self._roles
        )  # fmt: skip
        self.consents = Consents(daemon, self)
        self.keys = Keys(daemon, self)
        self._watched: dict[str, int] = {}  # process identity → pidfd

    # -- sockets -----------------------------------------------------------------------------------

    def of_session(self, session: Session) -> dict[str, Method]:
        """Return the methods of agent.sock for a program inside ``session``."""
        who = callers.of_session(session)
        return self._bound(who, {"token": self._own, "token.exchange": self._exchange, **self._anybodys()})

    def of_client(self, who: Who) -> dict[str, Method]:
        """Return the methods for ``who``, a program outside sessions: a token is asked for, or had for a key."""
        return self._bound(who, {"token.exchange": self._exchange, **self._anybodys()})

    def of_person(self, who: Who) -> dict[str, Method]:
        """Return the methods of approver.sock, where programs outside sessions have theirs as well."""
        return self.of_client(who) | self._bound(
            who,
            {
                "token.issue": lambda _, p: self._person_issues(p),
                "token.list": lambda _, p: (want(p) and None) or [_shown(t) for t in self.issuer.live()],
                "token.introspect": lambda _, p: self.issuer.introspect(want(p, token=str)["token"]),
                "token.revoke": lambda _, p: self._person_revokes(p),
                "token.scopes": lambda _, p: self._scopes(p),
                "key.create": lambda _, p: self.keys.create(p),
                "key.list": lambda _, p: self.keys.shown(p),
                "key.review": lambda _, p: self.keys.review(p),
                "key.revoke": lambda _, p: self.keys.revoke(p),
            },
        )

    def _anybodys(self) -> dict[str, Callable[[Who, Params], Any]]:
        return {
            "token.request": self.consents.request,
            "token.poll": self.consents.poll,
            "token.refresh": self.consents.refresh,
            "token.key": self.keys.exchange,
            "token.introspect": lambda who, p: self.issuer.introspect(
                want(p, token=str)["token"], who.identity
            ),
            "token.revoke": self.give_back,
            "token.keys": lambda _, p: (want(p) and None) or self.issuer.jwks(),
            "token.metadata": lambda _, p: (want(p) and None) or self.issuer.metadata(),
        }

    @staticmethod
    def _bound(who: Who, methods: dict[str, Callable[[Who, Params], Any]]) -> dict[str, Method]:
        def bind(method: Callable[[Who, Params], Any]) -> Method:
            def call(params: Params) -> Any:
                try:
                    return method(who, params)
                except TokenError as e:
                    raise Problem(TOKEN_REFUSED, str(e), e.as_json()) from None

            return call

        return {name: bind(method) for name, method in methods.items()}

    # -- a program's own ---------------------------------------------------------------------------

    def wanted(self, scope: str, details: list[Any], audience: str) -> Wanted:
        """Return what these parameters ask for. Raises TokenError."""
        try:
            read = rar.read(details)
        except rar.BadDetails as e:
            raise TokenError("invalid_authorization_details", str(e)) from None
        scopes, asked = self.issuer.wanted(scope, read)
        self.issuer.check_audience(audience)
        return Wanted(audience or self.issuer.issuer, tuple(sorted(scopes)), asked)

    def _own(self, who: Who, params: Params) -> Params:
        """``token``: what policy gives a session unasked."""
        p = want(params, scope=(str, ""), authorization_details=(list, []), audience=(str, ""))
        session, broker = who.session, self._daemon.broker
        assert session is not None

        def verdict(scopes: Iterable[str]) -> tuple[int, str]:
            return broker.judge.token(broker.state, session.id, tuple(scopes))

        if not p["scope"] and not p["authorization_details"]:
            p["scope"] = " ".join(s for s in ROLES[SESSION_SCOPE] if verdict([s])[0] == ALLOW)
        wanted = self.wanted(p["scope"], p["authorization_details"], p["audience"])
        found, why = verdict(wanted.scopes)
        if found != ALLOW:
            more = [s for s in wanted.scopes if verdict([s])[0] != ALLOW]
            raise TokenError(
                "invalid_scope", why or f"for {', '.join(more)} a person is asked: token.request"
            )
        return self.give(who, session.agent, wanted, session.id)

    def _exchange(self, who: Who, params: Params) -> Params:
        """``token.exchange`` (RFC 8693): a narrower token for a sub-agent."""
        p = want(
            params, subject_token=str, agent=str, subject_token_type=(str, TOKEN_TYPE), requested_token_type=(str, TOKEN_TYPE),
            scope=(str, ""), authorization_details=(list, None), audience=(str, ""),
        )  # fmt: skip
        if {p["subject_token_type"], p["requested_token_type"]} != {TOKEN_TYPE}:
            raise TokenError("invalid_request", f"only tokens of type {TOKEN_TYPE} are exchanged")
        try:
            asked = p["authorization_details"]
            details = None if asked is None else rar.read(asked)
        except rar.BadDetails as e:
            raise TokenError("invalid_authorization_details", str(e)) from None
        token, text = self.issuer.exchange(
            p["subject_token"], who.identity, agent=p["agent"], scope=p["scope"], details=details, audience=p["audience"]
        )  # fmt: skip
        return self._given(who, token, text)

    def give_back(self, who: Who, params: Params) -> Params:
        """``token.revoke`` (RFC 7009): a token or a refresh handle that its holder has no more use for."""
        p = want(params, token=str, token_type_hint=(str, ""))
        agent = who.session.agent if who.session else ""
        try:
            agent = agent or self.issuer.verify(p["token"], who.identity).actors[-1]
        except TokenError:
            pass  # no token: nothing is wrong, the RFC says
        gone = self.issuer.revoke_text(p["token"], who.identity)
        try:
            family = self.consents.handles.look(p["token"], who.identity)
            agent = agent or family.agent
            self.consents.handles.end(family=family.id)
            gone += self.issuer.revoke(txn=family.id)
        except Reused as e:
            self.end_family(e.family, "a refresh handle was used twice")
        except TokenError:
            pass  # no handle either
        if gone:
            self.revoked(gone, agent, who.session, actor="agent")
        return {}

    def give(self, who: Who, agent: str, wanted: Wanted, grant_id: str, *, txn: str = "", rule: str = "", actor: str = "agent") -> Params:  # fmt: skip
        """Issue what was decided that ``who`` may have, in the name of ``agent``; ``rule`` names the grant for the ledger.

        Raises TokenError, LedgerError: nothing was given then.
        """
        self.watch(who)
        own = who.session is not None and agent == who.session.agent
        name, *behalf = who.session.chain if own and who.session is not None else (agent,)
        token, text = self.issuer.issue(
            subject=self._subject, agent=name, behalf=tuple(behalf), bound=who.identity, grant_id=grant_id, scope=" ".join(wanted.scopes),
            details=wanted.details, audience=wanted.audience, sensitive=True, txn=txn,
            issuer=who.oauth.issuer if who.oauth else "", client=who.oauth.id if who.oauth else "",
        )  # fmt: skip
        return self._given(who, token, text, actor=actor, rule=rule)

    def _given(self, who: Who, token: Token, text: str, *, actor: str = "agent", rule: str = "") -> Params:
        """Return RFC 8693's response, once the ledger has the token."""
        note = f"{token.jti} for {' of '.join(token.actors)}"
        what = "exchange" if token.parent else "issue"
        try:
            self._record(
                what,
                token.actors[-1],
                note,
                who.session,
                actor=actor,
                scopes=token.scopes,
                rule=rule,
                who=who,
            )
        except LedgerError:
            self.issuer.revoke(jti=token.jti)
            raise
        return {
            "access_token": text,
            "issued_token_type": TOKEN_TYPE,
            "token_type": token.type,
            "expires_in": token.expires - token.issued,
            "scope": " ".join(sorted(token.scopes)),
            "authorization_details": [d.as_json() for d in token.details],
        }

    # -- the person's ------------------------------------------------------------------------------

    def _person_issues(self, params: Params) -> Params:
        p = want(
            params, agent=str, pid=int, scope=(str, ""), authorization_details=(list, []), audience=(str, "")
        )  # fmt: skip
        wanted = self.wanted(p["scope"], p["authorization_details"], p["audience"])
        if refused := sorted(s for s in wanted.scopes if SCOPES[s].sensitive):
            raise TokenError("access_denied", f"only an administrator grants {', '.join(refused)}")
        try:
            pidfd = os.pidfd_open(p["pid"])
        except (OSError, OverflowError):
            raise Problem(NOT_FOUND, f"no process {p['pid']}") from None
        try:
            bound = identify(p["pid"], pidfd)[1]
            who = callers.Who(bound, p["pid"], "", "", pidfd)
            return self.give(who, p["agent"], wanted, f"person:{secrets.token_hex(4)}", actor="human")
        except PeerError as e:
            raise Problem(NOT_FOUND, str(e)) from None
        finally:
            os.close(pidfd)

    def _person_revokes(self, params: Params) -> Params:
        p = want(params, jti=(str, ""), grant=(str, ""), token=(str, ""))
        if sum(map(bool, p.values())) != 1:
            raise Problem(INVALID_PARAMS, "token.revoke takes one of jti, grant, token")
        jti = p["jti"] or (self.issuer.introspect(p["token"]).get("jti", "") if p["token"] else "")
        # Its refresh handle ends with it, or the program would have the next one at once.
        for token in self.issuer.live():
            if token.jti == jti or token.grant_id == p["grant"]:
                self.consents.handles.end(family=token.txn)
        self.consents.handles.end(grant_id=p["grant"])
        gone = self.issuer.revoke(jti=jti, grant_id=p["grant"])
        self.revoked(gone, "", None, actor="human")
        return {"revoked": gone}

    def _scopes(self, params: Params) -> Params:
        want(params)
        scopes = {
            s.name: {"sentence": s.sentence, "access": s.access, "risk": s.risk, "sensitive": s.sensitive}
            for s in SCOPES.values()
        }
        return {
            "scopes": scopes,
            "roles": {name: list(words) for name, words in {**ROLES, **self._roles}.items()},
        }

    # -- ends --------------------------------------------------------------------------------------

    def end_session(self, session: Session) -> None:
        """Revoke what a session had: it is over, or its rights have changed."""
        self.consents.handles.end(bound=session.presenter)
        self.issuer.revoke(grant_id=session.id)
        self.issuer.revoke(bound=session.presenter)

    def end_grant(self, grant: str) -> list[str]:
        """Revoke what was given under a grant: it is gone, or rests. Returns the tokens."""
        self.consents.handles.end(grant_id=grant)
        return self.issuer.revoke(grant_id=grant)

    def end_family(self, family: Family, why: str) -> None:
        """Revoke the tokens of ``family``, whose handles have ended; ``why`` goes into the ledger."""
        gone = self.issuer.revoke(txn=family.id)
        session = self._daemon.broker.state.sessions.get(family.session)
        self.revoked(gone, family.agent, session, actor="remit", why=why)

    def end_all(self) -> None:
        """Revoke every token: another policy is in force, and roles may stand for something else.

        Refresh handles stay: policy has its word again when one is used.
        """
        self._roles = self._daemon.policies.set.scope_roles()
        self.issuer.revoke_all()

    def watch(self, who: Who) -> None:
        """Have what a process outside sessions asked for and was given end with it, where it is held."""
        if who.session is not None or who.pidfd < 0 or who.identity in self._watched:
            return
        pidfd = os.dup(who.pidfd)
        self._watched[who.identity] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._ended, who.identity)

    def _ended(self, identity: str) -> None:
        pidfd = self._watched.pop(identity)
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        self.consents.handles.end(bound=identity)
        self.issuer.revoke(bound=identity)
        self._daemon.attempt(ev.ClientGone(PROCESS + identity))

    # -- the ledger --------------------------------------------------------------------------------

    def revoked(
        self, gone: list[str], agent: str, session: Session | None, *, actor: str, why: str = ""
    ) -> None:
        """Record that the tokens ``gone`` were revoked, and why."""
        named = ", ".join(gone[:MAX_NAMED]) or "nothing"
        more = f" and {len(gone) - MAX_NAMED} more" if len(gone) > MAX_NAMED else ""
        self._record("revoke", agent, f"{named}{more}{': ' if why else ''}{why}", session, actor=actor)

    def _record(
        self, what: str, agent: str, note: str, session: Session | None, *, actor: str, scopes: Iterable[str] = (), rule: str = "",
        who: Who | None = None,
    ) -> None:  # fmt: skip
        entry: dict[str, Any] = {
            "actor": actor, "op": "token", "outcome": what, "agent": agent, "session": session.id if session else "",
            "path": " ".join(sorted(scopes)), "note": note, "rule": rule,
        }  # fmt: skip
        if who is not None:
            entry |= {"pid": who.pid, "proc": who.identity, "exe": who.exe}
        self._daemon.ledger.append([entry], sync=what not in ("issue", "exchange") or actor == "human")
        self._daemon.publish()


def _shown(token: Token) -> dict[str, Any]:
    return {
        "jti": token.jti, "agent": " of ".join(token.actors), "scope": " ".join(sorted(token.scopes)), "grant": token.grant_id,
        "authorization_details": [d.as_json() for d in token.details], "issued": token.issued, "expires": token.expires,
        "parent": token.parent, "algorithm": ALG,
    }  # fmt: skip
