"""Clients of OAuth: what they are known by, and where answers to them may go. No I/O.

A client is one of two:

    known    the person named it in ``oauth.toml``; its id is the name there
    hosted   its id is an https URL, at which its document lies (draft-ietf-oauth-client-id-metadata-document); only on hosts that
             the person named, since looking there is something that remit does over the network for whoever asks

All are public clients: they have no secret, and prove by PKCE that who began is who ends. An answer goes to an address that
the client's own list has, character by character; the port alone is free where it is this machine's (RFC 8252 7.3).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

MAX_URL = 2048  # characters of an id, an address to answer to, or a resource
MAX_NAME = 64  # characters of the name that a client gives itself
MAX_REDIRECTS = 32
KNOWN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_URL = re.compile(r"""[!#-;=?-\[\]_a-z~]+""")  # RFC 3986 2: no blank, control, quote, backslash, brace, ...
_LOOPBACK = re.compile(r"http://(127\.0\.0\.1|\[::1\]|localhost)(?::([0-9]{1,5}))?(/[^#]*)?")
_HTTPS = re.compile(r"https://([A-Za-z0-9.-]+)(?::[0-9]{1,5})?(?:[/?][^#]*)?")
_PRIVATE = re.compile(
    r"([a-z][a-z0-9+-]*\.[a-z0-9+.-]+):[^#]*"
)  # RFC 8252 7.1: a domain name of the client's, reversed
_DOTS = re.compile(r"/\.{1,2}(/|$)")


class BadClient(ValueError):
    """The client, or where it wants its answer, is not one that can be trusted with an answer; the text says why."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client. ``agent`` is the name in which its tokens act, ``name`` its own word, shown as such."""

    id: str
    agent: str
    name: str
    redirects: tuple[str, ...]


def is_hosted(ident: str) -> bool:
    """Tell whether ``ident`` is the URL of a document, and not a name."""
    return ident.startswith("https:")


def host_of(ident: str) -> str:
    """Return the host of a client's URL, lower case. Raises BadClient when the URL is none for a client (section 3 of the draft)."""
    parts = urlsplit(ident) if len(ident) <= MAX_URL and _URL.fullmatch(ident) else None
    if parts is None or not _HTTPS.fullmatch(ident) or not parts.hostname:
        raise BadClient("client_id is no https URL")
    if (
        parts.path in ("", "/")
        or parts.query
        or "?" in ident
        or _DOTS.search(parts.path)
        or "%2e" in parts.path.lower()
    ):
        raise BadClient("client_id is no plain URL of a document")
    if parts.netloc.lower() != parts.hostname:
        raise BadClient("client_id has a port; only the usual one is looked at")
    return parts.hostname


def check_redirect(uri: str) -> None:
    """Raise BadClient unless an answer may go to ``uri``: https, this machine, or a scheme of the client's own."""
    if len(uri) > MAX_URL or not _URL.fullmatch(uri):
        raise BadClient("redirect_uri is no URI")
    if found := _LOOPBACK.fullmatch(uri):
        if found[2] and not 0 < int(found[2]) < 65536:
            raise BadClient("redirect_uri has no possible port")
    elif not _HTTPS.fullmatch(uri) and not _PRIVATE.fullmatch(uri):
        raise BadClient(
            "redirect_uri is neither https, nor this machine's, nor of a scheme like com.example.app"
        )


def chosen(client: Client, uri: str) -> str:
    """Return ``uri`` when it is one of the client's. Raises BadClient."""
    if uri not in client.redirects:
        check_redirect(uri)
        found = _LOOPBACK.fullmatch(uri)
        own = [m for m in map(_LOOPBACK.fullmatch, client.redirects) if m]
        if found is None or not any((m[1], m[3] or "/") == (found[1], found[3] or "/") for m in own):
            raise BadClient("redirect_uri is none of the client's")
    return uri


def goes_to(uri: str) -> str:
    """Return in words where an answer to ``uri`` arrives."""
    if found := _LOOPBACK.fullmatch(uri):
        return f"{found[1]}:{found[2] or 80}, whatever listens there"
    if found := _HTTPS.fullmatch(uri):
        return found[1].lower()
    return f"whatever opens {uri.partition(':')[0]}: links"


def document(ident: str, raw: bytes) -> Client:
    """Return the client that the document ``raw``, found at ``ident``, describes. Raises BadClient."""
    try:
        body: Any = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadClient("the client's document is no JSON") from None
    if not isinstance(body, dict) or body.get("client_id") != ident:
        raise BadClient("the client's document is not about this client_id")
    if body.get("token_endpoint_auth_method", "none") != "none" or "client_secret" in body:
        raise BadClient("the client's document wants it to prove itself by what remit does not know")
    name, redirects = body.get("client_name", ""), body.get("redirect_uris")
    if (
        not isinstance(name, str)
        or not isinstance(redirects, list)
        or not 0 < len(redirects) <= MAX_REDIRECTS
    ):
        raise BadClient("the client's document has no client_name, or no redirect_uris")
    for uri in redirects:
        if not isinstance(uri, str):
            raise BadClient("the client's document has no redirect_uris")
        check_redirect(uri)
    return Client(ident, host_of(ident)[:MAX_NAME], shown(name), tuple(redirects))


def shown(name: str) -> str:
    """Return a client's name for itself, as a person may be shown it."""
    return "".join(c if c.isprintable() else "?" for c in name)[:MAX_NAME]


def check_resource(uri: str) -> str:
    """Return ``uri`` when it can name a resource: absolute, without a fragment (RFC 8707 2). Raises ValueError."""
    if (
        len(uri) > MAX_URL
        or not _URL.fullmatch(uri)
        or "#" in uri
        or not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:.", uri)
    ):
        raise ValueError("resource is an absolute URI without a fragment")
    return uri
