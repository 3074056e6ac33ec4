"""Values between JSON and D-Bus: what goes out comes back, and what does not fit is said."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit_daemon.gateway.dbus import wire
from remit_daemon.gateway.dbus.values import MAX_BODY, MAX_DEPTH, pack, types, unpack
from remit_daemon.gateway.dbus.wire import Malformed


def message(signature: str, body: bytes, *, big: bool = False) -> wire.Message:
    raw = wire.build(wire.RETURN, 1, reply=1, signature=signature, body=body, big=big)
    return wire.Parser().parse(raw)


@pytest.mark.parametrize(
    ("signature", "values"),
    [
        ("", []),
        ("ybnqiuxtd", [255, True, -32768, 65535, -1, 4294967295, -(1 << 63), (1 << 64) - 1, 0.5]),
        ("sog", ["Ünïcode \u202e", "/a/b", "a{sv}"]),
        ("as", [["a", "", "b"]]),
        ("ay", [[0, 1, 255]]),
        ("ax", [[]]),
        ("(i(sb))", [[1, ["x", False]]]),
        ("a{sv}", [{"k": {"signature": "ai", "value": [1, 2]}, "l": {"signature": "s", "value": ""}}]),
        ("a{us}yt", [{"7": "seven", "8": ""}, 1, 2]),
        ("a{bs}", [{"true": "t", "false": "f"}]),
        ("aa{s(xv)}", [[{}, {"q": [1, {"signature": "v", "value": {"signature": "y", "value": 3}}]}]]),
    ],
)
def test_what_goes_out_comes_back(signature: str, values: list[Any]) -> None:
    assert unpack(message(signature, pack(signature, values))) == values
    assert json.loads(json.dumps(values)) == values


@pytest.mark.parametrize(
    ("signature", "values", "said"),
    [
        ("s", [], "takes 1 arguments, not 0"),
        ("", [1], "takes 0 arguments, not 1"),
        ("z", [1], "no D-Bus signature"),
        ("a", [1], "no D-Bus signature"),
        ("{sv}", [{}], "no D-Bus signature"),
        ("y", [256], "argument 1"),
        ("y", [True], "argument 1"),
        ("b", [1], "true or false"),
        ("sx", ["", 1 << 63], "argument 2"),
        ("d", [float("nan")], "finite"),
        ("d", [10**400], "finite"),
        ("s", ["a\0b"], "NUL"),
        ("s", ["\ud800"], "Unicode"),
        ("o", ["a/b"], "object path"),
        ("v", [1], "variant"),
        ("v", [{"signature": "ss", "value": 1}], "one complete type"),
        ("a{sv}", [[]], "object"),
        ("a{us}", [{"x": ""}], "no key"),
        ("as", [{}], "list"),
        ("(ss)", [["a"]], "list of 2"),
        ("h", [0], "descriptors"),
        ("v", [{"signature": "h", "value": 0}], "descriptors"),
        ("s", ["x" * (MAX_BODY + 1)] * 1 + [], ""),
    ],
)
def test_what_does_not_fit_is_said(signature: str, values: list[Any], said: str) -> None:
    if not said:  # one text too long is seen at what follows it
        signature, values, said = signature + "y", [*values, 1], "bytes"
    with pytest.raises(ValueError, match=said):
        pack(signature, values)


def test_variants_do_not_nest_without_end() -> None:
    value: Any = {"signature": "y", "value": 1}
    for _ in range(MAX_DEPTH + 1):
        value = {"signature": "v", "value": value}
    with pytest.raises(ValueError, match="containers"):
        pack("v", [value])
    body = b"\x01v\0" * (MAX_DEPTH + 2) + b"\x01y\0\x01"
    with pytest.raises(Malformed, match="deep"):
        unpack(message("v", body))


def test_numbers_that_json_does_not_have_are_words() -> None:
    body = struct.pack("<ddd", float("inf"), float("-inf"), float("nan"))
    assert unpack(message("ddd", body)) == ["Infinity", "-Infinity", "NaN"]


def test_either_byte_order() -> None:
    assert unpack(message("ux", struct.pack(">Ixxxxq", 7, -7), big=True)) == [7, -7]


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        ("s", b"\x05\0\0\0abc\0"),
        ("s", b"\x03\0\0\0abcd"),
        ("s", b"\x01\0\0\0\xff\0"),
        ("as", b"\xff\xff\0\0"),
        ("ai", b"\x03\0\0\0\0\0\0\0"),
        ("v", b"\x02ss\0"),
        ("y", b"\x01\x02"),
        ("t", b"\x01"),
    ],
)
def test_nonsense_is_malformed(signature: str, body: bytes) -> None:
    with pytest.raises(Malformed):
        unpack(message(signature, body))


@given(st.text("aybns{}(v)xg", max_size=12), st.binary(max_size=200))
def test_any_bytes_give_values_or_malformed(signature: str, body: bytes) -> None:
    try:
        if not types(signature) or not body:
            return
    except ValueError:
        return
    try:
        json.dumps(unpack(message(signature, body)), allow_nan=False)
    except Malformed:
        pass
