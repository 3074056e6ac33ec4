"""Requests and responses of the authorization server, and the few pages that it has. No I/O.

Every answer forbids to be kept. Errors are RFC 6749's: JSON with ``error`` and ``error_description``. A page has neither script nor
form nor link: nothing in it can say yes, since who works the browser may be an agent. It only says where a person answers.
"""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from remit_daemon.tokens.issuer import TokenError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PARAMETERS = 64
REFRESH = 2  # seconds between two looks of a page at whether there is an answer
_STATUS = {"invalid_client": 401, "server_error": 500, "temporarily_unavailable": 503}
_ALWAYS = (("cache-control", "no-store"), ("pragma", "no-cache"), ("x-content-type-options", "nosniff"))
_PAGE = (
    (
        "content-security-policy",
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
)


@dataclass(frozen=True, slots=True)
class Request:
    """One request: ``headers`` by lower-case name, of several with one name the last; ``path`` without the query."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    """One response."""

    status: int
    body: bytes = b""
    kind: str = "application/json"
    more: tuple[tuple[str, str], ...] = ()

    def headers(self) -> list[tuple[str, str]]:
        """Return all of its header fields."""
        out = [*_ALWAYS, *self.more, ("content-length", str(len(self.body))), ("connection", "close")]
        return [*out, ("content-type", self.kind)] if self.body else out


def parameters(text: str) -> dict[str, str]:
    """Return the parameters of a query or a form; those without a value do not count. Raises TokenError (RFC 6749 3.1).

    ``resource`` may come several times (RFC 8707 2), which we do not serve: a token is for one.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise TokenError("invalid_request", "the parameters are malformed, or too many") from None
    out: dict[str, str] = {}
    for name, value in pairs:
        if name in out:
            code = "invalid_target" if name == "resource" else "invalid_request"
            raise TokenError(
                code, "a token is for one resource" if name == "resource" else "a parameter comes twice"
            )
        out[name] = value
    return {name: value for name, value in out.items() if value}


def form(request: Request) -> dict[str, str]:
    """Return the parameters of a POST. Raises TokenError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise TokenError("invalid_request", "parameters come as application/x-www-form-urlencoded")
    try:
        return parameters(request.body.decode("ascii"))
    except UnicodeDecodeError:
        raise TokenError("invalid_request", "the parameters are malformed") from None


def answer(body: Mapping[str, Any], status: int = 200, more: tuple[tuple[str, str], ...] = ()) -> Response:
    """Return ``body`` as JSON."""
    return Response(status, json.dumps(body).encode(), more=more)


def error(problem: TokenError, status: int = 0, scheme: str = "") -> Response:
    """Return ``problem`` as RFC 6749 5.2 has it; ``scheme`` by which the client tried to prove itself asks it to try again."""
    status = status or _STATUS.get(problem.code, 400)
    more = (("www-authenticate", f'{scheme} realm="remit"'),) if scheme else ()
    return answer(problem.as_json(), status, more)


def refused(status: int, why: str, more: tuple[tuple[str, str], ...] = ()) -> Response:
    """Return a refusal that is about HTTP, not about OAuth."""
    return Response(status, f"remit: {why}\n".encode(), "text/plain; charset=utf-8", more)


def page(status: int, title: str, *lines: str, refresh: bool = False) -> Response:
    """Return a page that says ``lines``, and looks again in a while when ``refresh``."""
    again = f'<meta http-equiv="refresh" content="{REFRESH}">' if refresh else ""
    body = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{again}<title>remit</title></head>'
        f"<body><h1>{html.escape(title)}</h1>{body}</body></html>\n"
    )
    return Response(status, text.encode("utf-8", "replace"), "text/html; charset=utf-8", _PAGE)


def back(redirect_uri: str, parameters: Mapping[str, str | None]) -> Response:
    """Return the browser to the client with ``parameters``, those that are None left out (RFC 6749 4.1.2)."""
    said = urlencode({k: v for k, v in parameters.items() if v is not None})
    where = f"{redirect_uri}{'&' if '?' in redirect_uri else '?'}{said}"
    return Response(303, more=(("location", where), ("referrer-policy", "no-referrer")))
