"""What the two sockets offer of tokens: a session asks for its own and narrows it, the person sees, issues and revokes.

A session's token has the session as its grant, so every row of the ledger that names the session names the token's
``grant_id``. It is bound to the session: all its processes are one presenter, since their connects are made by its supervisor.
"""

from __future__ import annotations

import asyncio
import getpass
import logging
import os
import secrets
from typing import TYPE_CHECKING, Any

from remit_daemon.ledger.store import LedgerError
from remit_daemon.peers.process import PeerError, identify
from remit_daemon.runtime.lines import Params, Problem, want
from remit_daemon.tokens import details as rar
from remit_daemon.tokens.issuer import ALG, TOKEN_TYPE, Issuer, Token, TokenError
from remit_daemon.tokens.registry import ROLES, SCOPES
from remit_daemon.wire.rpc import INVALID_PARAMS, NOT_FOUND, TOKEN_REFUSED

if TYPE_CHECKING:
    from collections.abc import Callable

    from remit_daemon.broker.records import Session
    from remit_daemon.ledger.store import Ledger
    from remit_daemon.runtime.lines import Method

log = logging.getLogger("remitd.tokens")

SESSION_SCOPE = "operator"  # what a session's own token has: the policy decides within


class Tokens:
    """The issuer, its records in the ledger, and the processes that tokens outside sessions are bound to."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._subject = getpass.getuser()
        self.issuer = Issuer(
            f"urn:remit:{os.uname().nodename}:{os.getuid()}", clock, lambda: secrets.token_urlsafe(16)
        )
        self._watched: dict[str, int] = {}  # process identity → pidfd

    # -- sockets -----------------------------------------------------------------------------------

    def of_session(self, session: Session) -> dict[str, Method]:
        """Return the methods of agent.sock for a program inside ``session``."""
        me = session.presenter

        def request(params: Params) -> Params:
            p = want(
                params, scope=(str, SESSION_SCOPE), authorization_details=(list, []), audience=(str, "")
            )
            return self._issue(session.chain, me, session.id, p, session=session.id)

        def exchange(params: Params) -> Params:
            p = want(
                params, subject_token=str, agent=str, scope=(str, ""), authorization_details=(list, None)
            )
            return self._exchange(p, me, session.id)

        def revoke(params: Params) -> Params:
            gone = self.issuer.revoke_text(want(params, token=str)["token"], me)
            if gone:
                self._record("revoke", session.agent, ", ".join(gone), session.id, actor="agent")
            return {}

        return {
            "token": request,
            "token.exchange": exchange,
            "token.introspect": lambda p: self.issuer.introspect(want(p, token=str)["token"], me),
            "token.revoke": revoke,
            "token.keys": lambda p: (want(p) and None) or self.issuer.jwks(),
            "token.metadata": lambda p: (want(p) and None) or self.issuer.metadata(),
        }

    def of_person(self) -> dict[str, Method]:
        """Return the methods of approver.sock."""
        return {
            "token.issue": self._person_issues,
            "token.list": lambda p: (want(p) and None) or [_shown(t) for t in self.issuer.live()],
            "token.introspect": lambda p: self.issuer.introspect(want(p, token=str)["token"]),
            "token.revoke": self._person_revokes,
            "token.keys": lambda p: (want(p) and None) or self.issuer.jwks(),
            "token.scopes": self._scopes,
        }

    # -- methods -----------------------------------------------------------------------------------

    def _issue(
        self,
        actors: tuple[str, ...],
        bound: str,
        grant_id: str,
        p: Params,
        *,
        session: str = "",
        actor: str = "agent",
    ) -> Params:
        try:
            token, text = self.issuer.issue(
                subject=self._subject, agent=actors[0], behalf=actors[1:], bound=bound, grant_id=grant_id, scope=p["scope"],
                details=rar.read(p["authorization_details"]), audience=p["audience"],
            )  # fmt: skip
        except rar.BadDetails as e:
            raise _problem(TokenError("invalid_authorization_details", str(e))) from None
        except TokenError as e:
            raise _problem(e) from None
        return self._given(token, text, session, actor)

    def _exchange(self, p: Params, presenter: str, session: str) -> Params:
        try:
            asked = p["authorization_details"]
            details = None if asked is None else rar.read(asked)
            token, text = self.issuer.exchange(
                p["subject_token"], presenter, agent=p["agent"], scope=p["scope"], details=details
            )
        except rar.BadDetails as e:
            raise _problem(TokenError("invalid_authorization_details", str(e))) from None
        except TokenError as e:
            raise _problem(e) from None
        return self._given(token, text, session, "agent")

    def _given(self, token: Token, text: str, session: str, actor: str) -> Params:
        """Return RFC 8693's response, once the ledger has the token."""
        note = f"{token.jti} for {' of '.join(token.actors)}"
        try:
            self._record(
                "issue" if not token.parent else "exchange",
                token.actors[-1],
                note,
                session,
                actor=actor,
                scopes=token.scopes,
            )
        except LedgerError:
            self.issuer.revoke(jti=token.jti)
            raise
        return {
            "access_token": text,
            "issued_token_type": TOKEN_TYPE,
            "token_type": "N_A",  # RFC 8693 2.2.1: no bearer token, it is the process's own
            "expires_in": token.expires - token.issued,
            "scope": " ".join(sorted(token.scopes)),
            "authorization_details": [d.as_json() for d in token.details],
        }

    def _person_issues(self, params: Params) -> Params:
        p = want(
            params,
            agent=str,
            pid=int,
            scope=(str, ""),
            authorization_details=(list, []),
            audience=(str, ""),
        )
        try:
            pidfd = os.pidfd_open(p["pid"])
        except (OSError, OverflowError):
            raise Problem(NOT_FOUND, f"no process {p['pid']}") from None
        try:
            bound = identify(p["pid"], pidfd)[1]
            given = self._issue((p["agent"],), bound, f"person:{secrets.token_hex(4)}", p, actor="human")
        except PeerError as e:
            os.close(pidfd)
            raise Problem(NOT_FOUND, str(e)) from None
        except BaseException:
            os.close(pidfd)
            raise
        self._watch(bound, pidfd)
        return given

    def _person_revokes(self, params: Params) -> Params:
        p = want(params, jti=(str, ""), grant=(str, ""), token=(str, ""))
        if sum(map(bool, p.values())) != 1:
            raise Problem(INVALID_PARAMS, "token.revoke takes one of jti, grant, token")
        jti = p["jti"] or (self.issuer.introspect(p["token"]).get("jti", "") if p["token"] else "")
        gone = self.issuer.revoke(jti=jti, grant_id=p["grant"]) if jti or p["grant"] else []
        self._record("revoke", "", ", ".join(gone) or "nothing", actor="human")
        return {"revoked": gone}

    def _scopes(self, params: Params) -> Params:
        want(params)
        scopes = {
            s.name: {"sentence": s.sentence, "access": s.access, "risk": s.risk, "sensitive": s.sensitive}
            for s in SCOPES.values()
        }
        return {"scopes": scopes, "roles": {name: list(words) for name, words in ROLES.items()}}

    # -- ends --------------------------------------------------------------------------------------

    def end_session(self, session: str) -> None:
        """Revoke what a session had: it is over, or its rights have changed."""
        self.issuer.revoke(grant_id=session)

    def end_all(self) -> None:
        """Revoke every token: another policy is in force."""
        for token in self.issuer.live():
            self.issuer.revoke(jti=token.jti)

    def _watch(self, bound: str, pidfd: int) -> None:
        """Have the tokens of a process end with it."""
        if bound in self._watched:
            os.close(pidfd)
            return
        self._watched[bound] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._ended, bound)

    def _ended(self, bound: str) -> None:
        pidfd = self._watched.pop(bound)
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        self.issuer.revoke(bound=bound)

    def _record(
        self, what: str, agent: str, note: str, session: str = "", *, actor: str, scopes: frozenset[str] = frozenset()
    ) -> None:  # fmt: skip
        entry = {
            "actor": actor, "op": "token", "outcome": what, "agent": agent, "session": session,
            "path": " ".join(sorted(scopes)), "note": note,
        }  # fmt: skip
        self._ledger.append([entry], sync=what != "issue" or actor == "human")


def _shown(token: Token) -> dict[str, Any]:
    return {
        "jti": token.jti, "agent": " of ".join(token.actors), "scope": " ".join(sorted(token.scopes)), "grant": token.grant_id,
        "authorization_details": [d.as_json() for d in token.details], "issued": token.issued, "expires": token.expires,
        "parent": token.parent, "algorithm": ALG,
    }  # fmt: skip


def _problem(error: TokenError) -> Problem:
    return Problem(TOKEN_REFUSED, str(error), {"error": error.code, "error_description": str(error)})
