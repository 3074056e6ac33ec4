"""The endpoints of the authorization server, each a request in and a response out.

    GET  /.well-known/oauth-authorization-server   what there is (RFC 8414)
    GET  /jwks                                     the key that signs (RFC 7517)
    GET  /authorize                                a question to the person (RFC 6749 4.1, RFC 7636, RFC 8707, RFC 9396) ──▶ /wait
    GET  /wait                                     a page until it is answered, then the way back to the client (RFC 9207)
    GET  /device                                   a page that says where such questions are answered
    POST /device_authorization                     the same question without a browser (RFC 8628)
    POST /token                                    authorization_code, refresh_token, device_code; clients have no secret, but may
                                                   have a key (DPoP, RFC 9449)
    POST /revoke                                   RFC 7009
    POST /introspect                               RFC 7662, for the person's programs, or with an organisation key of the resource

The person answers in remit alone, never in a page. Question and page show the same mark, so that nobody's question is
taken for another's. Before client and redirect_uri are known to belong together, no answer goes anywhere but to the browser.
A resource is always named, and the token is for it alone.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from remit_daemon.broker.core import Refused
from remit_daemon.broker.records import Fact
from remit_daemon.ledger.store import LedgerError
from remit_daemon.runtime.consents import digest_of, facts_of
from remit_daemon.runtime.lines import Problem
from remit_daemon.runtime.oauth import codes
from remit_daemon.runtime.oauth.clients import BadClient, Client, check_resource, chosen, goes_to, is_hosted
from remit_daemon.runtime.oauth.documents import Documents
from remit_daemon.runtime.oauth.messages import (
    Request,
    Response,
    answer,
    back,
    error,
    form,
    page,
    parameters,
    refused,
)
from remit_daemon.runtime.oauth.proofs import ALGORITHMS, Proofs
from remit_daemon.runtime.store import StoreError
from remit_daemon.runtime.who import Client as Named
from remit_daemon.runtime.who import Who
from remit_daemon.tokens import details as rar
from remit_daemon.tokens.issuer import JKT, OAUTH, TokenError
from remit_policy.model import DENY
from remit_policy.scopes import SCOPES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from remit_daemon.broker.records import Session
    from remit_daemon.runtime.daemon import Daemon
    from remit_daemon.runtime.oauth.settings import SettingsFile
    from remit_daemon.tokens.wanted import Wanted

METADATA = "/.well-known/oauth-authorization-server"  # RFC 8414 3, for an issuer without a path
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
MAX_STATE = 4096  # characters
_SECRETS = ("client_secret", "client_assertion")
_WAITING = ("authorization_pending", "slow_down")


@dataclass(frozen=True, slots=True)
class Door:
    """Where a request came in: under which URL, and whether the process at the other end is held (a Unix socket)."""

    issuer: str
    held: bool


@dataclass(frozen=True, slots=True)
class Caller:
    """The process at the other end. ``identity`` and ``pidfd`` only where it is held; pid 0 where it cannot be named."""

    pid: int = 0
    exe: str = ""
    comm: str = ""
    identity: str = ""
    pidfd: int = -1
    session: Session | None = None


def metadata(issuer: str, hosted: bool) -> dict[str, Any]:
    """Return the metadata of the server at ``issuer``; ``hosted`` is whether clients with a document are known to it."""
    return {
        "issuer": issuer, "authorization_endpoint": f"{issuer}/authorize", "token_endpoint": f"{issuer}/token", "jwks_uri": f"{issuer}/jwks",
        "device_authorization_endpoint": f"{issuer}/device_authorization", "revocation_endpoint": f"{issuer}/revoke",
        "introspection_endpoint": f"{issuer}/introspect", "scopes_supported": sorted(SCOPES), "response_types_supported": ["code"],
        "response_modes_supported": ["query"], "grant_types_supported": ["authorization_code", "refresh_token", DEVICE],
        "token_endpoint_auth_methods_supported": ["none"], "revocation_endpoint_auth_methods_supported": ["none"],
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "Bearer"], "code_challenge_methods_supported": ["S256"],
        "authorization_details_types_supported": list(rar.TYPES), "authorization_response_iss_parameter_supported": True,
        "client_id_metadata_document_supported": hosted, "dpop_signing_alg_values_supported": list(ALGORITHMS),
    }  # fmt: skip


class Endpoints:
    """All of them, for one daemon."""

    def __init__(self, daemon: Daemon, file: SettingsFile, documents: Documents | None = None) -> None:
        self._daemon = daemon
        self._tokens = daemon.tokens
        self._file = file
        self._documents = documents or Documents(daemon.clock)
        self._waiting = codes.Waiting(daemon.clock, _secret)
        self._codes = codes.Codes(daemon.clock, _secret)
        self._proofs = Proofs(daemon.clock)

    async def respond(
        self, request: Request, door: Door, caller: Callable[[], Awaitable[Caller]]
    ) -> Response:
        """Return the response to ``request``; ``caller`` finds out who made it. Raises nothing that a request can cause."""
        gets = {
            METADATA: self._metadata,
            "/jwks": self._jwks,
            "/device": self._device_page,
            "/wait": self._wait,
        }
        posts = {
            "/token": self._token, "/revoke": self._revoke, "/introspect": self._introspect,
            "/device_authorization": self._device,
        }  # fmt: skip
        path = request.path
        if path not in (*gets, *posts, "/authorize"):
            return refused(404, "there is nothing here")
        if request.method != ("POST" if path in posts else "GET"):
            return refused(405, "not with this method", (("allow", "POST" if path in posts else "GET"),))
        if path in gets:
            return gets[path](request, door)
        try:
            who = await caller()
            return await (self._authorize if path == "/authorize" else posts[path])(request, door, who)
        except TokenError as e:
            return error(e)
        except (LedgerError, StoreError) as e:
            return error(TokenError("server_error", str(e)))
        except (Refused, Problem) as e:
            return error(TokenError("temporarily_unavailable", str(e)))

    # -- what is told to all -----------------------------------------------------------------------

    def _metadata(self, _: Request, door: Door) -> Response:
        said = metadata(door.issuer, bool(self._file.now().client_hosts))
        return answer(said | {"revocation_epoch": self._tokens.issuer.epoch})

    def _jwks(self, _: Request, __: Door) -> Response:
        return answer(self._tokens.issuer.jwks())

    def _device_page(self, _: Request, __: Door) -> Response:
        return page(
            200,
            "Answer in remit",
            "The question is at `remit prompts`, or `remit tui`. Look for the code that the program shows.",
        )

    # -- asking ------------------------------------------------------------------------------------

    async def _client(self, ident: str) -> Client:
        settings = self._file.now()
        if is_hosted(ident):
            return await self._documents.client(ident, settings.client_hosts)
        client = settings.known(ident)
        if client is None:
            raise BadClient(
                "there is no such client; oauth.toml names those there are"
                if ident
                else "client_id is missing"
            )
        return client

    def _wanted(self, given: dict[str, str]) -> Wanted:
        """Return what the parameters ask for. Raises TokenError."""
        try:
            resource = check_resource(given.get("resource", ""))
        except ValueError as e:
            raise TokenError("invalid_target", str(e)) from None
        details: Any = []
        if text := given.get("authorization_details"):
            try:
                details = json.loads(text)
            except (ValueError, RecursionError):
                raise TokenError(
                    "invalid_authorization_details", "authorization_details is no JSON"
                ) from None
        scope = given.get("scope", "") or ("" if details else self._file.now().scope(resource))
        if not scope and not details:
            raise TokenError("invalid_scope", "a scope is needed: oauth.toml names none for this resource")
        return self._tokens.wanted(scope, details, resource)

    def _ask(
        self, who: Who, caller: Caller, client: Client, wanted: Wanted, more: dict[str, str]
    ) -> tuple[str, str]:
        """Have the person asked; returns the request and the question's id. Raises TokenError, Refused, LedgerError, StoreError."""
        self._check_session(caller, wanted)
        facts = facts_of(
            wanted, name=client.name, client_id=client.id, resource=wanted.audience, redirect_host=more.pop("answer to", "")
        )  # fmt: skip
        if caller.session is not None:
            more["asked in"] = f"session {caller.session.id} of {caller.session.agent}"
        elif not caller.pid:
            more["asked by"] = "no program that can be named; perhaps an agent in a session"
        facts += tuple(Fact(label, text) for label, text in more.items())
        request, reply = self._tokens.consents.ask(who, client.agent, wanted, facts)
        if reply is not None:  # nobody is asked, since nothing is given so
            raise TokenError("access_denied", reply["message"] or "it was denied for longer")
        prompt = self._daemon.broker.consent(digest_of(request), "", who.client)
        assert prompt is not None
        return request, prompt.id

    def _check_session(self, caller: Caller, wanted: Wanted) -> None:
        """Raise TokenError when it is a session that asks, and its policy denies it."""
        if caller.session is not None:
            broker = self._daemon.broker
            verdict, why = broker.judge.token(broker.state, caller.session.id, wanted.scopes)
            if verdict == DENY:
                raise TokenError("access_denied", why)

    async def _authorize(self, request: Request, door: Door, caller: Caller) -> Response:
        try:
            given = parameters(request.query)
            client = await self._client(given.get("client_id", ""))
            redirect = chosen(client, given.get("redirect_uri", ""))
        except (BadClient, TokenError) as e:
            return page(400, "Nobody can be answered", f"The link that led here is faulty: {e}.")
        state = given.get("state")
        try:
            where = self._ask_in_browser(given, door, caller, client, redirect)
        except TokenError as e:
            return _back(redirect, e, state, door)
        except (Refused, Problem) as e:
            return _back(redirect, TokenError("temporarily_unavailable", str(e)), state, door)
        except (LedgerError, StoreError) as e:
            return _back(redirect, TokenError("server_error", str(e)), state, door)
        return Response(303, more=(("location", where),))

    def _ask_in_browser(
        self, given: dict[str, str], door: Door, caller: Caller, client: Client, redirect: str
    ) -> str:
        if given.get("response_type") != "code":
            raise TokenError("unsupported_response_type", "response_type is code")
        if given.get("response_mode", "query") != "query":
            raise TokenError("invalid_request", "response_mode is query")
        if len(given.get("state", "")) > MAX_STATE:
            raise TokenError("invalid_request", f"state is at most {MAX_STATE} characters")
        codes.check_challenge(given.get("code_challenge_method", "plain"), given.get("code_challenge", ""))
        if (jkt := given.get("dpop_jkt", "")) and not codes.is_digest(jkt):
            raise TokenError("invalid_request", "dpop_jkt is no SHA-256 in base64url")
        wanted = self._wanted(given)
        self._waiting.room()
        mark = codes.mark_of(secrets.token_bytes(8))
        more = {"answer to": goes_to(redirect), "its page shows": mark}
        ident, prompt = self._ask(_who(door, caller, client), caller, client, wanted, more)
        asked = codes.Asked(
            client.id, redirect, given.get("state"), given["code_challenge"], client.agent, wanted, ident, prompt, mark, door.issuer, jkt
        )  # fmt: skip
        return f"/wait?ticket={self._waiting.open(asked)}"

    def _wait(self, request: Request, door: Door) -> Response:
        try:
            ticket = parameters(request.query).get("ticket", "")
        except TokenError as e:
            return page(400, "There is nothing here", str(e))
        asked = self._waiting.look(ticket)
        if asked is None or asked.issuer != door.issuer:
            return page(
                404,
                "There is nothing here",
                "It was answered, or is too old. Begin again where you came from.",
            )
        who = Who(OAUTH + asked.client_id, 0, "", "", oauth=Named(door.issuer, asked.client_id))
        try:
            prompt = self._tokens.consents.fetch(who, asked.request)
            granted = prompt.answer.by if prompt.answer else ""
            code = self._codes.make(codes.Code(asked, granted, prompt.id))
        except TokenError as e:
            if e.code in _WAITING:
                return page(
                    200, f"Answer in remit: {asked.prompt}", f"{asked.client_id} wants to use {asked.wanted.audience} in your name.",
                    f"The question at `remit prompts` or in `remit tui` must show {asked.mark}. This page goes on by itself.",
                    refresh=True,
                )  # fmt: skip
            self._waiting.close(ticket)
            # What is wrong with the question itself has no code here (RFC 6749 4.1.2.1): it was not allowed.
            code_ = e.code if e.code == "temporarily_unavailable" else "access_denied"
            return _back(asked.redirect_uri, TokenError(code_, str(e)), asked.state, door)
        except (LedgerError, StoreError, Refused) as e:
            return _back(asked.redirect_uri, TokenError("server_error", str(e)), asked.state, door)
        self._waiting.close(ticket)
        return back(asked.redirect_uri, {"code": code, "state": asked.state, "iss": door.issuer})

    async def _device(self, request: Request, door: Door, caller: Caller) -> Response:
        given, client = await self._called(request)
        mark = codes.mark_of(secrets.token_bytes(8))
        ident, _ = self._ask(
            _who(door, caller, client), caller, client, self._wanted(given), {"it shows": mark}
        )
        said = {"device_code": ident, "user_code": mark, "verification_uri": f"{door.issuer}/device"}
        return answer(said | self._tokens.consents.times(ident))

    # -- giving ------------------------------------------------------------------------------------

    async def _called(self, request: Request) -> tuple[dict[str, str], Client]:
        """Return the parameters of a POST and the client that makes it. Raises TokenError."""
        given = form(request)
        try:
            if "authorization" in request.headers or any(name in given for name in _SECRETS):
                raise BadClient("clients have no secret here")
            return given, await self._client(given.get("client_id", ""))
        except BadClient as e:
            raise TokenError("invalid_client", str(e)) from None

    async def _token(self, request: Request, door: Door, caller: Caller) -> Response:
        try:
            given, client = await self._called(request)
        except TokenError as e:
            # RFC 6749 5.2: where the client tried by that field, the answer names the scheme.
            tried = request.headers.get("authorization", "").partition(" ")[0]
            return error(e, scheme="Basic" if e.code == "invalid_client" and tried else "")
        who = _who(door, caller, client)
        if (proof := request.headers.get("dpop")) and not door.held:
            who = replace(who, identity=JKT + self._proofs.check(proof, "POST", f"{door.issuer}/token"))
        match given.get("grant_type"):
            case "authorization_code":
                body = self._for_code(given, door, caller, who)
            case "refresh_token":
                asked = {"refresh_token": _needed(given, "refresh_token"), "scope": given.get("scope", "")}
                body = self._tokens.consents.refresh(who, asked | {"audience": given.get("resource", "")})
            case "urn:ietf:params:oauth:grant-type:device_code":
                body = self._tokens.consents.poll(who, {"request": _needed(given, "device_code")})
            case None:
                raise TokenError("invalid_request", "grant_type is missing")
            case _:
                raise TokenError("unsupported_grant_type", "not a grant_type of this server")
        return answer({k: v for k, v in body.items() if k != "issued_token_type"})

    def _for_code(self, given: dict[str, str], door: Door, caller: Caller, who: Who) -> dict[str, Any]:
        try:
            code = self._codes.redeem(
                _needed(given, "code"), client_id=given["client_id"], redirect_uri=_needed(given, "redirect_uri"), issuer=door.issuer,
                verifier=_needed(given, "code_verifier"), resource=given.get("resource"), jkt=who.identity.removeprefix(JKT),
            )  # fmt: skip
        except codes.Spent as e:
            self._tokens.revoked(
                self._tokens.end_grant(e.source), e.agent, None, actor="remit", why="a code was used twice"
            )
            raise
        asked, state = code.asked, self._daemon.broker.state
        self._check_session(caller, asked.wanted)
        grant, prompt = state.grants.get(code.grant), state.prompts.get(code.prompt)
        if (
            (grant is None or grant.suspended)
            if code.grant
            else (prompt is None or prompt.pass_until is None)
        ):
            raise TokenError("invalid_grant", "it was taken back")
        self._tokens.consents.check(who, asked.agent, asked.wanted)
        return self._tokens.consents.given(who, asked.agent, asked.wanted, code.grant, code.prompt)

    # -- looking, ending ---------------------------------------------------------------------------

    async def _revoke(self, request: Request, door: Door, caller: Caller) -> Response:
        given, client = await self._called(request)
        who, text = _who(door, caller, client), _needed(given, "token")
        token, family = self._tokens.issuer.look(text), self._tokens.consents.handles.family(text)
        mine = client.id == (token.client if token else family.client.removeprefix(OAUTH) if family else "")
        bound = token.bound if token else family.bound if family else ""
        if mine and bound.startswith(JKT):  # to give something back, no proof is needed
            who = replace(who, identity=bound)
        self._tokens.give_back(who, {"token": text})
        return Response(200)

    async def _introspect(self, request: Request, door: Door, caller: Caller) -> Response:
        given = form(request)
        if door.held and "authorization" not in request.headers:
            return answer(
                self._tokens.issuer.introspect(_needed(given, "token"))
            )  # the person's program, by the kernel's word
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        try:
            if caller.session is not None:
                raise TokenError("invalid_client", "keys are for programs outside sessions")
            key = self._tokens.keys.of_resource(_key(scheme.lower(), credentials))
        except TokenError as e:
            return error(
                e,
                503 if e.code == "temporarily_unavailable" else 401,
                "Basic" if scheme.lower() == "basic" else "Bearer",
            )
        said = self._tokens.issuer.introspect(_needed(given, "token"))
        return answer(said if said.get("aud") == key.audience else {"active": False})


def _secret() -> str:
    return secrets.token_urlsafe(32)


def _who(door: Door, caller: Caller, client: Client) -> Who:
    """Return in whose name a request is made: the client's, bound to the process where that is held."""
    identity, pidfd = (caller.identity, caller.pidfd) if door.held else (OAUTH + client.id, -1)
    return Who(identity, caller.pid, caller.exe, caller.comm, pidfd, oauth=Named(door.issuer, client.id))


def _needed(given: dict[str, str], name: str) -> str:
    if name not in given:
        raise TokenError("invalid_request", f"{name} is missing")
    return given[name]


def _key(scheme: str, credentials: str) -> str:
    """Return the key in an Authorization field: as a bearer token, or as the password of Basic (RFC 6749 2.3.1). Raises TokenError."""
    if scheme == "bearer":
        return credentials.strip()
    if scheme == "basic":
        try:
            return unquote_plus(
                base64.b64decode(credentials.strip(), validate=True).decode().partition(":")[2]
            )
        except (binascii.Error, ValueError):
            pass
    raise TokenError("invalid_client", "an organisation key with the resource as its audience is needed")


def _back(redirect: str, problem: TokenError, state: str | None, door: Door) -> Response:
    return back(redirect, {**problem.as_json(), "state": state, "iss": door.issuer})
