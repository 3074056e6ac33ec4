"""What a message's body says, as JSON has it, by its signature.

    y n q i u x t   whole numbers            b          true, false
    d               a number                 s o g      text
    aX              a list                   (XY)       a list of as many
    a{KV}           an object                v          {"signature": one type, "value": …}
    h               where descriptors go: the index, from a program; none can be sent

Keys that are no text are written as text (``"7"``, ``"true"``). A double that JSON has no number for comes as "NaN", "Infinity" or
"-Infinity". Pure.

Source: D-Bus specification 0.42, "Marshaling (Wire Format)".
"""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from remit_daemon.gateway.dbus.wire import Malformed, is_object_path, one_type

if TYPE_CHECKING:
    from remit_daemon.gateway.dbus.wire import Message

MAX_BODY = (
    1 << 18
)  # bytes of arguments, either way: what is larger would hold up whoever reads it in Python
MAX_SIGNATURE = 255  # bytes of a signature (specification)
MAX_DEPTH = 64  # containers within each other, variants included (specification)

_WHOLE = {
    "y": ("B", 1, 0, 1 << 8), "n": ("h", 2, -(1 << 15), 1 << 15), "q": ("H", 2, 0, 1 << 16),
    "i": ("i", 4, -(1 << 31), 1 << 31), "u": ("I", 4, 0, 1 << 32), "x": ("q", 8, -(1 << 63), 1 << 63),
    "t": ("Q", 8, 0, 1 << 64),
}  # fmt: skip
_ALIGN = {k: v[1] for k, v in _WHOLE.items()} | {
    "b": 4, "d": 8, "s": 4, "o": 4, "g": 1, "v": 1, "h": 4, "a": 4, "(": 8, "{": 8,
}  # fmt: skip
_BOOLEANS = {"true": True, "false": False}


@lru_cache(maxsize=1024)
def types(signature: str) -> tuple[str, ...]:
    """Return the complete types that ``signature`` is a sequence of. Raises ValueError."""
    out, at = [], 0
    while at < len(signature):
        end = one_type(signature, at, 0, 0)
        if end < 0:
            at = -1
            break
        out.append(signature[at:end])
        at = end
    if at < 0 or len(signature) > MAX_SIGNATURE:
        raise ValueError(f"{signature[:MAX_SIGNATURE]!r} is no D-Bus signature")
    return tuple(out)


def pack(signature: str, values: list[Any]) -> bytes:
    """Return ``values`` as a little-endian body of ``signature``. Raises ValueError, which says where they do not fit."""
    kinds = types(signature)
    if len(kinds) != len(values):
        raise ValueError(f"{signature!r} takes {len(kinds)} arguments, not {len(values)}")
    out = bytearray()
    for number, (kind, value) in enumerate(zip(kinds, values, strict=True), 1):
        _put(out, kind, value, f"argument {number}", 0)
    return bytes(out)


def _put(out: bytearray, kind: str, value: Any, where: str, depth: int) -> None:
    first = kind[0]
    out += bytes(-len(out) % _ALIGN[first])
    if len(out) > MAX_BODY:
        raise ValueError(f"the arguments have more than {MAX_BODY} bytes")
    if depth > MAX_DEPTH:
        raise ValueError(f"{where}: more than {MAX_DEPTH} containers within each other")
    if first in _WHOLE:
        code, _, low, end = _WHOLE[first]
        if type(value) is not int or not low <= value < end:
            raise ValueError(f"{where}: type {first} is a whole number from {low} to {end - 1}")
        out += struct.pack("<" + code, value)
    elif first == "b":
        if type(value) is not bool:
            raise ValueError(f"{where}: type b is true or false")
        out += struct.pack("<I", value)
    elif first == "d":
        out += struct.pack("<d", _double(value, where))
    elif first in "sog":
        _put_text(out, first, value, where)
    elif first == "v":
        if type(value) is not dict or set(value) != {"signature", "value"}:
            raise ValueError(f'{where}: a variant is {{"signature": one type, "value": …}}')
        held = value["signature"]
        if type(held) is not str or len(types(held)) != 1:
            raise ValueError(f"{where}: a variant's signature is one complete type")
        _put_text(out, "g", held, where)
        _put(out, held, value["value"], where, depth + 1)
    elif first == "a":
        _put_array(out, kind[1:], value, where, depth)
    elif first == "(":
        members = types(kind[1:-1])
        if type(value) is not list or len(value) != len(members):
            raise ValueError(f"{where}: type {kind} is a list of {len(members)}")
        for member, one in zip(members, value, strict=True):
            _put(out, member, one, where, depth + 1)
    else:
        raise ValueError(f"{where}: descriptors cannot be sent with a call")


def _double(value: Any, where: str) -> float:
    try:
        found = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise ValueError(f"{where}: type d is a finite number")
    return found


def _put_text(out: bytearray, kind: str, value: Any, where: str) -> None:
    if type(value) is not str or "\0" in value:
        raise ValueError(f"{where}: type {kind} is text without NUL")
    try:
        raw = value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{where}: no Unicode text") from None
    if kind == "o" and not is_object_path(value):
        raise ValueError(f"{where}: {value!r} is no object path")
    if kind == "g":
        types(value)
        out += bytes((len(raw),)) + raw + b"\0"
    else:
        out += struct.pack("<I", len(raw)) + raw + b"\0"


def _put_array(out: bytearray, kind: str, value: Any, where: str, depth: int) -> None:
    start = len(out)
    out += bytes(4)
    out += bytes(-len(out) % _ALIGN[kind[0]])
    begin = len(out)
    if kind[0] == "{":
        if type(value) is not dict:
            raise ValueError(f"{where}: type a{kind} is an object")
        for key, one in value.items():
            out += bytes(-len(out) % 8)
            _put(out, kind[1], _key(kind[1], key, where), where, depth + 2)
            _put(out, kind[2:-1], one, where, depth + 2)
    else:
        if type(value) is not list:
            raise ValueError(f"{where}: type a{kind} is a list")
        for one in value:
            _put(out, kind, one, where, depth + 1)
    struct.pack_into("<I", out, start, len(out) - begin)


def _key(kind: str, text: str, where: str) -> Any:
    """Return what the key ``text`` of a JSON object means as one of type ``kind``."""
    if kind in "sog":
        return text
    try:
        if kind == "b":
            return _BOOLEANS[text]
        return float(text) if kind == "d" else int(text)
    except (KeyError, ValueError):
        raise ValueError(f"{where}: {text!r} is no key of type {kind}") from None


def unpack(message: Message) -> list[Any]:
    """Return the arguments of ``message``, whose signature was checked by the parser. Raises Malformed."""
    body, order = bytes(message.body), "<" if message.little else ">"
    if len(body) > MAX_BODY:
        raise Malformed(f"arguments of more than {MAX_BODY} bytes")
    reader = _Reader(body, order)
    try:
        out = [reader.take(kind, 0) for kind in types(message.head.signature)]
    except (IndexError, struct.error, UnicodeDecodeError, ValueError) as e:
        raise Malformed(f"arguments: {e}") from None
    if reader.at != len(body):
        raise Malformed("more in a body than its signature says")
    return out


class _Reader:
    """Reads values off a body, whose first byte is aligned to 8 in its message."""

    def __init__(self, data: bytes, order: str) -> None:
        self._data = data
        self._order = order
        self.at = 0

    def take(self, kind: str, depth: int) -> Any:
        """Return the next value, of the complete type ``kind``. Raises Malformed, ValueError, struct.error."""
        if depth > MAX_DEPTH:
            raise Malformed("containers too deep within each other")
        first = kind[0]
        self._align(first)
        if first in _WHOLE:
            return self._number(_WHOLE[first][0])
        if first == "b":
            return bool(self._number("I"))
        if first == "h":
            return self._number("I")
        if first == "d":
            found = self._number("d")
            return found if math.isfinite(found) else _name_of(found)
        if first in "so":
            return self._text(self._number("I"))
        if first == "g":
            return self._text(self._number("B"))
        if first == "v":
            held = self._text(self._number("B"))
            if len(types(held)) != 1:
                raise Malformed("a variant of no type")
            return {"signature": held, "value": self.take(held, depth + 1)}
        if first == "a":
            return self._array(kind[1:], depth)
        return [self.take(member, depth + 1) for member in types(kind[1:-1])]

    def _align(self, first: str) -> None:
        self.at += -self.at % _ALIGN[first]

    def _number(self, code: str) -> Any:
        (found,) = struct.unpack_from(self._order + code, self._data, self.at)
        self.at += struct.calcsize("=" + code)
        return found

    def _text(self, size: int) -> str:
        end = self.at + size
        if end >= len(self._data) or self._data[end]:
            raise Malformed("a text beyond its body, or without its end")
        found = self._data[self.at : end].decode()
        self.at = end + 1
        return found

    def _array(self, kind: str, depth: int) -> Any:
        size = self._number("I")
        self._align(kind[0])
        end = self.at + size
        if end > len(self._data):
            raise Malformed("an array beyond its body")
        if kind == "y":
            found = list(self._data[self.at : end])
            self.at = end
            return found
        out: list[Any] = []
        pairs: dict[str, Any] = {}
        while self.at < end:
            if kind[0] == "{":
                self._align("{")
                key = self.take(kind[1], depth + 2)
                pairs[_text_of(key)] = self.take(kind[2:-1], depth + 2)
            else:
                out.append(self.take(kind, depth + 1))
        if self.at != end:
            raise Malformed("an array's last value beyond it")
        return pairs if kind[0] == "{" else out


def _name_of(number: float) -> str:
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _text_of(key: Any) -> str:
    return ("true" if key else "false") if isinstance(key, bool) else str(key)
