"""The control connection's framing: a length, then one value.

The supervisor reads these, so nothing heavier than ``struct`` is imported: no ``json``. A value is
None, a bool, an int, a str, bytes, a list, or a dict with str keys. Encoded like bencoding with two
more letters, so any value has one form and a reader needs no look-ahead:

    n  ·  t f  ·  i-12e  ·  s3:abc (UTF-8, surrogateescape)  ·  b3:abc  ·  l…e  ·  d(key value)…e

A frame is the value's length as four little-endian bytes, then the value.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_FRAME = 16 << 20  # a snapshot of 10,000 rules is about 2 MB; more than this is a fault
MAX_DEPTH = 8

_LEN = struct.Struct("<I")


class FrameError(ValueError):
    """The peer sent what is no frame; the connection is to be closed."""


def _encode(value: Any, out: list[bytes]) -> None:
    if value is None:
        out.append(b"n")
    elif value is True:
        out.append(b"t")
    elif value is False:
        out.append(b"f")
    elif isinstance(value, int):
        out.append(b"i%de" % value)
    elif isinstance(value, str):
        raw = value.encode("utf-8", "surrogateescape")
        out.append(b"s%d:" % len(raw))
        out.append(raw)
    elif isinstance(value, bytes):
        out.append(b"b%d:" % len(value))
        out.append(value)
    elif isinstance(value, (list, tuple)):
        out.append(b"l")
        for item in value:
            _encode(item, out)
        out.append(b"e")
    elif isinstance(value, dict):
        out.append(b"d")
        for key, item in value.items():
            _encode(str(key), out)
            _encode(item, out)
        out.append(b"e")
    else:
        raise TypeError(f"cannot frame {type(value).__name__}")


def encode(value: Any) -> bytes:
    """Return ``value`` as one frame, its length included.

    Raises FrameError when it is longer than MAX_FRAME.
    """
    out: list[bytes] = []
    _encode(value, out)
    body = b"".join(out)
    if len(body) > MAX_FRAME:
        raise FrameError(f"frame of {len(body)} bytes is over {MAX_FRAME}")
    return _LEN.pack(len(body)) + body


def _decode(raw: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise FrameError("nested too deeply")
    kind = raw[at : at + 1]
    at += 1
    if kind == b"n":
        return None, at
    if kind == b"t":
        return True, at
    if kind == b"f":
        return False, at
    if kind == b"i":
        end = raw.index(b"e", at, at + 24)
        return int(raw[at:end]), end + 1
    if kind in (b"s", b"b"):
        colon = raw.index(b":", at, at + 12)
        size = int(raw[at:colon])
        end = colon + 1 + size
        if size < 0 or end > len(raw):
            raise FrameError("string runs past its frame")
        body = raw[colon + 1 : end]
        return (body if kind == b"b" else body.decode("utf-8", "surrogateescape")), end
    if kind == b"l":
        items = []
        while raw[at : at + 1] != b"e":
            item, at = _decode(raw, at, depth + 1)
            items.append(item)
        return items, at + 1
    if kind == b"d":
        table: dict[str, Any] = {}
        while raw[at : at + 1] != b"e":
            key, at = _decode(raw, at, depth + 1)
            if not isinstance(key, str) or key in table:
                raise FrameError("a key is not text or stands twice")
            table[key], at = _decode(raw, at, depth + 1)
        return table, at + 1
    raise FrameError(f"unknown kind {kind!r}")


def decode(body: bytes) -> Any:
    """Return the value of one frame's body.

    Raises FrameError when it is malformed or something follows the value.
    """
    try:
        value, end = _decode(body, 0, 0)
    except FrameError:
        raise
    except (ValueError, OverflowError) as e:
        raise FrameError(str(e)) from None
    if end != len(body):
        raise FrameError("something follows the value")
    return value


class Reader:
    """Cuts a stream of bytes into frames: ``feed`` what arrived, get the values that are whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """Take ``data`` and return the values completed by it, in order.

        Raises FrameError; the reader is then of no more use.
        """
        self._buffer += data
        values = []
        while len(self._buffer) >= _LEN.size:
            (size,) = _LEN.unpack_from(self._buffer)
            if size > MAX_FRAME:
                raise FrameError(f"frame of {size} bytes is over {MAX_FRAME}")
            if len(self._buffer) < _LEN.size + size:
                break
            values.append(decode(bytes(self._buffer[_LEN.size : _LEN.size + size])))
            del self._buffer[: _LEN.size + size]
        return values
