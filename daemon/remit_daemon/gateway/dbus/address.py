"""Where a bus is: D-Bus server addresses, and connecting to them.

Source: D-Bus specification, "Server Addresses": ``kind:key=value,…;kind:…``, values with %xx escapes; the first that can be
connected to counts.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket

CONNECT_WITHIN = 10.0  # seconds
MAX_ADDRESSES = 16
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_/.\\*")


def sockets(address: str, runtime: str = "") -> list[bytes]:
    """Return what to connect to, in order: paths, or NUL and the name of an abstract socket.

    ``runtime`` is XDG_RUNTIME_DIR. Kinds that are no Unix sockets are passed over. Raises ValueError.
    """
    found: list[bytes] = []
    for one in address.split(";")[:MAX_ADDRESSES]:
        kind, colon, rest = one.partition(":")
        if not one:
            continue
        if not colon:
            raise ValueError(f"not a bus address: {one!r}")
        if kind != "unix":
            continue
        keys: dict[str, bytes] = {}
        for pair in rest.split(","):
            key, equals, value = pair.partition("=")
            if not equals or not key or key in keys:
                raise ValueError(f"not a bus address: {one!r}")
            keys[key] = _unescape(value)
        if "path" in keys:
            found.append(keys["path"])
        elif "abstract" in keys:
            found.append(b"\0" + keys["abstract"])
        elif keys.get("runtime") == b"yes" and runtime:
            found.append(os.fsencode(runtime) + b"/bus")
    return found


def _unescape(text: str) -> bytes:
    out = bytearray()
    at = 0
    while at < len(text):
        if text[at] == "%":
            out += bytes.fromhex(text[at + 1 : at + 3].ljust(2, "?"))
            at += 3
        elif text[at] in _PLAIN:
            out += text[at].encode()
            at += 1
        else:
            # Buses' own addresses escape all else; people who write one often do not.
            out += os.fsencode(text[at])
            at += 1
    if b"\0" in out or not out:
        raise ValueError("a bus address with an empty value or a NUL")
    return bytes(out)


async def connect(address: str, runtime: str = "") -> socket.socket:
    """Return a non-blocking socket that is connected to the bus. Raises OSError, with the last attempt's errno."""
    loop = asyncio.get_running_loop()
    try:
        places = sockets(address, runtime)
    except ValueError as e:
        raise OSError(errno.EINVAL, str(e)) from None
    failed = OSError(errno.EAFNOSUPPORT, "no Unix socket in the bus's address")
    for place in places:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                await loop.sock_connect(sock, place)
            return sock
        except TimeoutError:
            failed = OSError(errno.ETIMEDOUT, "the bus does not answer")
        except OSError as e:
            failed = e
        except BaseException:
            sock.close()
            raise
        sock.close()
    raise failed
