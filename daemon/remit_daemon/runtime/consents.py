"""Tokens that a person is asked for: a program's request, its polls, and the handle by which it goes on.

    token.request ──▶ at once, where policy or a grant answers
                 └──▶ {request, interval, expires_in}; token.poll {request} until a person has answered (RFC 8628)
    token.refresh ──▶ another token under what was granted for longer than once, and the next handle

``request`` is a secret of whoever asked: only its digest is kept, and only who asked may use it.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from remit_daemon.broker import events as ev
from remit_daemon.broker.prompts import PROMPT_LIFE
from remit_daemon.broker.records import Fact
from remit_daemon.broker.states import PromptState
from remit_daemon.runtime.lines import Params, want
from remit_daemon.runtime.policies import SnapshotRefused
from remit_daemon.tokens import details as rar
from remit_daemon.tokens.handles import Family, Handles, Reused
from remit_daemon.tokens.issuer import MAX_AGENT, TokenError
from remit_daemon.tokens.pace import Pace
from remit_daemon.tokens.wanted import Wanted
from remit_policy.model import DENY

if TYPE_CHECKING:
    from remit_daemon.broker.records import Prompt
    from remit_daemon.runtime.daemon import Daemon
    from remit_daemon.runtime.tokens import Tokens
    from remit_daemon.runtime.who import Who
    from remit_policy.model import Snapshot


def facts_of(wanted: Wanted, *, name: str = "", client_id: str = "", redirect_host: str = "", resource: str = "") -> tuple[Fact, ...]:  # fmt: skip
    """Return what a person is shown of a question about ``wanted``: each scope in words, then what is known of a client of
    OAuth (its name is its own word, its id and the host that the answer goes to are checked by the caller)."""
    facts = [Fact("it may", sentence) for sentence in wanted.sentences()]
    more = (
        ("calls itself", name),
        ("client", client_id),
        ("answer to", redirect_host),
        ("for use at", resource),
    )
    return (*facts, *(Fact(label, text) for label, text in more if text))


def digest_of(request: str) -> str:
    """Return the digest by which the broker knows a request."""
    return hashlib.sha256(request.encode("utf-8", "surrogatepass")).hexdigest()


class Consents:
    """The methods on requests and handles, for one issuer."""

    def __init__(self, daemon: Daemon, tokens: Tokens) -> None:
        self._daemon = daemon
        self._tokens = tokens
        self._pace = Pace(daemon.clock)
        self.handles = Handles(daemon.clock, lambda: secrets.token_urlsafe(32))

    # -- asking ------------------------------------------------------------------------------------

    def request(self, who: Who, params: Params) -> Params:
        """``token.request``: give at once what needs no question, else have a person asked."""
        fields: dict[str, Any] = {
            "scope": (str, ""),
            "authorization_details": (list, []),
            "audience": (str, ""),
        }
        p = want(params, **(fields if who.session else {"agent": str, **fields}))
        agent = who.session.agent if who.session else p["agent"]
        if not 0 < len(agent) <= MAX_AGENT or not agent.isprintable():
            raise TokenError(
                "invalid_request", f"agent is a name of at most {MAX_AGENT} printable characters"
            )
        wanted = self._tokens.wanted(p["scope"], p["authorization_details"], p["audience"])
        request, reply = self.ask(who, agent, wanted, facts_of(wanted))
        if reply is not None:
            if reply["verdict"] != "allow":
                raise TokenError("access_denied", reply["message"] or "it was denied for longer")
            return self.given(who, agent, wanted, reply["grant"])
        return {"request": request, **self.times(request)}

    def times(self, request: str) -> Params:
        """Return RFC 8628 3.2's interval and life of ``request``, made now, in seconds."""
        return {"interval": self._pace.start(digest_of(request)), "expires_in": int(PROMPT_LIFE)}

    def ask(
        self, who: Who, agent: str, wanted: Wanted, facts: tuple[Fact, ...]
    ) -> tuple[str, Params | None]:
        """Put the question to the broker; returns the request, and its answer {verdict, grant, message} unless a person is asked."""
        request = secrets.token_urlsafe(32)
        event = ev.AskConsent(
            digest_of(request), agent, wanted.text(), wanted.audience, tuple(sorted(wanted.scopes)), wanted.details_json(),
            session=who.session.id if who.session else "", client=who.client, base=self._base(who, agent),
            facts=facts, pid=who.pid, proc=who.identity, exe=who.exe, comm=who.comm,
        )  # fmt: skip
        reply = self._daemon.apply(event)
        if "prompt" in reply:
            self._tokens.watch(who)
        return request, None if "prompt" in reply else reply

    def _base(self, who: Who, agent: str) -> Snapshot | None:
        if who.session:
            return None
        # What opens an OAuth client's page, or its connection, is not the client.
        exe = "" if who.oauth else who.exe
        try:
            return self._daemon.policies.of_client(agent, exe)
        except SnapshotRefused as e:
            raise TokenError("temporarily_unavailable", f"no policy to go by: {e}") from None

    # -- the answer --------------------------------------------------------------------------------

    def poll(self, who: Who, params: Params) -> Params:
        """``token.poll``: RFC 8628 3.4 and 3.5, with ``request`` for its ``device_code``."""
        request = want(params, request=str)["request"]
        prompt = self.fetch(who, request)
        about = prompt.consent
        assert about is not None
        wanted = Wanted(about.audience, about.scopes, rar.read(json.loads(about.details)))
        granted = prompt.answer.by if prompt.answer else ""
        return self.given(who, prompt.agent, wanted, granted, prompt.id)

    def fetch(self, who: Who, request: str) -> Prompt:
        """Return the prompt that allowed ``request``, its ``answer.by`` being the grant or "", and use the request up.

        Raises TokenError with the codes of RFC 8628 3.5 until then.
        """
        digest, whose = digest_of(request), who.client
        session = who.session.id if who.session else ""
        prompt = self._daemon.broker.consent(digest, session, whose)
        if prompt is None:
            raise TokenError("invalid_grant", "no request of this process, or used already")
        if prompt.state is PromptState.OPEN:
            if self._pace.too_fast(digest):
                raise TokenError(
                    "slow_down", "polled too soon; wait five seconds more between polls from now on"
                )
            raise TokenError("authorization_pending", f"prompt {prompt.id} is not answered yet")
        self._pace.end(digest)
        if prompt.state is PromptState.MISSED:
            raise TokenError("expired_token", "nobody answered in time; ask again")
        said = f": {prompt.answer.message}" if prompt.answer and prompt.answer.message else ""
        if prompt.state is PromptState.DENIED or prompt.answer is None:
            raise TokenError("access_denied", f"the answer was no{said}")
        reply = self._daemon.apply(ev.Redeem(digest, session, whose, self._base(who, prompt.agent)))
        if reply["verdict"] != "allow":
            code = "expired_token" if reply["verdict"] == "expired" else "access_denied"
            raise TokenError(code, reply["message"])
        return replace(prompt, answer=replace(prompt.answer, by=reply["grant"]))

    def given(self, who: Who, agent: str, wanted: Wanted, grant_id: str, prompt: str = "") -> Params:
        """Give what was allowed: by the grant, or once, by ``prompt``. Raises TokenError, LedgerError: nothing was given then."""
        grant = self._daemon.broker.state.grants.get(grant_id)
        source = grant_id or (who.session.id if who.session else prompt)
        if grant is None:
            return self._tokens.give(who, agent, wanted, source)
        family = Family(
            secrets.token_urlsafe(16), who.identity, agent, wanted, grant_id, math.inf if grant.expires is None else grant.expires,
            session=who.session.id if who.session else "", client=grant.client,
        )  # fmt: skip
        handle = self.handles.open(family)
        try:
            given = self._tokens.give(who, agent, wanted, source, txn=family.id, rule=f"grant:{grant_id}")
        except BaseException:
            self.handles.end(family=family.id)
            raise
        return given | {"refresh_token": handle}

    def check(self, who: Who, agent: str, wanted: Wanted, session: str = "") -> None:
        """Raise TokenError (invalid_grant) when policy now denies what was allowed, in ``session`` or outside."""
        broker = self._daemon.broker
        verdict, why = broker.judge.token(broker.state, session, wanted.scopes, self._base(who, agent))
        if verdict == DENY:
            raise TokenError("invalid_grant", why)

    # -- going on ----------------------------------------------------------------------------------

    def refresh(self, who: Who, params: Params) -> Params:
        """``token.refresh``: RFC 6749 6, the handle bound to its process and used once."""
        p = want(params, refresh_token=str, scope=(str, ""), audience=(str, ""))
        try:
            family = self.handles.look(p["refresh_token"], who.identity)
        except Reused as e:
            self._tokens.end_family(e.family, "a refresh handle was used twice")
            raise
        if family.client != who.client:
            raise TokenError("invalid_grant", "the handle is another client's")
        wanted = family.wanted
        if p["audience"] not in ("", wanted.audience):
            raise TokenError("invalid_target", "the handle is for another audience")
        if p["scope"]:
            scopes = self._tokens.issuer.wanted(p["scope"], ())[0]
            if not scopes <= set(wanted.scopes):
                raise TokenError(
                    "invalid_scope", f"not granted: {', '.join(sorted(scopes - set(wanted.scopes)))}"
                )
            wanted = Wanted(wanted.audience, tuple(sorted(scopes)), rar.only(wanted.details, scopes))
        try:
            self.check(who, family.agent, family.wanted, family.session)
        except TokenError as e:
            if e.code == "invalid_grant":
                self.handles.end(family=family.id)
                self._tokens.end_family(family, str(e))
            raise
        rule = f"grant:{family.grant_id}"
        given = self._tokens.give(who, family.agent, wanted, family.grant_id, txn=family.id, rule=rule)
        return given | {"refresh_token": self.handles.rotate(family)}
