"""Fetching the document of a hosted client: the one thing that the authorization server does over the network.

Only hosts that the person named are asked, at the usual port, over TLS with the machine's certificates. Their addresses must be the
Internet's, all of them, and the one that was checked is the one that is connected to. There is no redirect, no proxy and no
cookie; the answer is small and comes soon, or there is none (draft-ietf-oauth-client-id-metadata-document, 4 and 6.5).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import h11

from remit_daemon.runtime.oauth.clients import BadClient, Client, document, host_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

log = logging.getLogger("remitd.oauth")

WITHIN = 5.0  # seconds for all of it
MAX_DOCUMENT = 16 << 10  # bytes; the draft recommends five kilobytes
KEPT = 300.0  # seconds that a document is not asked for again
KEPT_FAILURE = 30.0
MAX_KEPT = 64
MAX_FETCHES = 4  # at once
_RESOLVERS = ThreadPoolExecutor(MAX_FETCHES, "oauth-names")  # a resolver that hangs is nobody else's thread


async def resolve(host: str) -> list[str]:
    """Return the addresses of ``host``. Raises OSError."""
    ask = partial(socket.getaddrinfo, host, 443, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_RESOLVERS, ask)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def public(addresses: list[str]) -> list[str]:
    """Return ``addresses``. Raises BadClient when one of them is not the Internet's."""
    for text in addresses:
        ip = ipaddress.ip_address(text.partition("%")[0])
        inner = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None) or ip
        if not (ip.is_global and inner.is_global) or ip.is_multicast:
            raise BadClient("the client's host is not on the Internet")
    if not addresses:
        raise BadClient("the client's host has no address")
    return addresses


async def get(url: str, address: str, port: int = 443, context: ssl.SSLContext | None = None) -> bytes:
    """Return the body at ``url``, fetched from ``address``. Raises OSError, BadClient."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(
        address, port, ssl=context or ssl.create_default_context(), server_hostname=parts.hostname, limit=MAX_DOCUMENT
    )  # fmt: skip
    try:
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_DOCUMENT)
        head = [
            ("Host", parts.netloc),
            ("Accept", "application/json"),
            ("User-Agent", "remit"),
            ("Connection", "close"),
        ]
        writer.write(http.send(h11.Request(method="GET", target=parts.path, headers=head)) or b"")
        writer.write(http.send(h11.EndOfMessage()) or b"")
        await writer.drain()
        body = b""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await reader.read(1 << 14))
            elif isinstance(event, h11.Response):
                kind = dict(event.headers).get(b"content-type", b"").split(b";")[0].strip().lower()
                if event.status_code != 200 or not (kind == b"application/json" or kind.endswith(b"+json")):
                    raise BadClient(
                        f"the client's host answers {event.status_code} and {kind.decode('latin-1')!r}"
                    )
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_DOCUMENT:
                    raise BadClient("the client's document is too long")
            elif isinstance(event, h11.EndOfMessage):
                return body
            elif not isinstance(event, h11.InformationalResponse):
                raise BadClient("the client's host breaks off")
    except h11.RemoteProtocolError as e:
        raise BadClient(f"the client's host speaks no HTTP: {e}") from None
    finally:
        writer.transport.abort()


async def _fetch(url: str) -> bytes:
    error: OSError = OSError("no address")
    for address in public(await resolve(host_of(url))):
        try:
            return await get(url, address)
        except OSError as e:
            error = e
    raise error


class Documents:
    """The hosted clients, as they were seen lately. ``clock`` gives seconds."""

    def __init__(
        self, clock: Callable[[], float], fetch: Callable[[str], Awaitable[bytes]] = _fetch
    ) -> None:
        self._clock = clock
        self._fetch = fetch
        self._seen: dict[
            str, tuple[float, Client | str]
        ] = {}  # until when, and what: a client, or why there is none
        self._places = asyncio.BoundedSemaphore(MAX_FETCHES)

    async def client(self, url: str, hosts: Collection[str]) -> Client:
        """Return the client at ``url``, if its host is among ``hosts``. Raises BadClient."""
        host = host_of(url)
        if host not in hosts:
            raise BadClient(
                f"{host} is not among client_hosts: remit asks only hosts that its person names"
            )
        until, found = self._seen.pop(url, (0.0, ""))
        if until <= self._clock():
            if self._places.locked():
                raise BadClient("too many clients are looked up; try again")
            async with self._places:
                found = await self._ask(url)
            until = self._clock() + (KEPT if isinstance(found, Client) else KEPT_FAILURE)
        self._seen[url] = (until, found)
        while len(self._seen) > MAX_KEPT:
            del self._seen[next(iter(self._seen))]
        if isinstance(found, str):
            raise BadClient(found)
        return found

    async def _ask(self, url: str) -> Client | str:
        log.info("fetching the client's document %s", url)
        try:
            async with asyncio.timeout(WITHIN):
                return document(url, await self._fetch(url))
        except BadClient as e:
            return str(e)
        except TimeoutError:
            return "the client's host does not answer in time"
        except (OSError, UnicodeError, ValueError) as e:
            return f"the client's host cannot be asked: {e}"
