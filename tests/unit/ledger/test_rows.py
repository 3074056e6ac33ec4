from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit_daemon.ledger import rows

texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=30)
BASE = {"actor": "agent", "op": "write"}


@given(texts)
def test_stored_text_is_clean_and_comes_back(text: str) -> None:
    stored = rows.store_text(text)
    assert "\0" not in stored
    stored.encode()
    assert rows.load_text(stored) == text


@given(texts, texts)
def test_what_is_below_a_path_is_so_when_stored(path: str, rest: str) -> None:
    stored = rows.store_text(f"{path}/{rest}")
    assert stored == f"{rows.store_text(path)}/{rows.store_text(rest)}"


@given(texts, st.lists(texts, max_size=3), st.integers(0, 2**31), st.none() | st.integers(1, 2**40))
def test_leaf_bytes_are_canonical_json(text: str, argv: list[str], pid: int, act: int | None) -> None:
    row = rows.from_mapping(BASE | {"path": text, "argv": argv, "pid": pid}, 7, 10**18)._replace(act=act)
    raw = rows.leaf_bytes(row)
    value = json.loads(raw)
    # For ASCII keys, integers below 2**53 and well-formed text, RFC 8785 is what this writes.
    assert raw == json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    assert set(value) == set(rows.COLUMNS)
    assert value["time_ns"] == str(10**18)
    assert rows.load_text(value["path"]) == text
    assert [rows.load_text(word) for word in value["argv"]] == argv


def test_strings_as_in_rfc_8785() -> None:
    # Its section 3.2.2.2 and the example of 3.2.4; the solidus and all above ASCII stand as they are.
    text = "\u20ac$\u000f\u000aA'\u0042\u0022\"/\u007f\u2028"
    row = rows.from_mapping(BASE | {"note": text}, 1, 0)
    assert '"note":"\u20ac$\\u000f\\nA\'B\\"\\"/\u007f\u2028",'.encode() in rows.leaf_bytes(row)


def test_an_entry_has_the_wire_shape_and_the_exact_strings() -> None:
    entry = {
        "actor": "agent", "agent": "claude", "session": "s1", "pid": 3, "proc": "77", "exe": "/b\udcff", "sha256": "00",
        "op": "exec", "path": "/a\\b", "path2": "\u202e", "verdict": "ask", "outcome": "ok", "rule": "f:1",
        "prompt": "p1", "note": "n\n", "argv": ["\udc80", ""], "time": 1.5,
    }  # fmt: skip
    assert rows.to_entry(rows.from_mapping(entry, 9, 0)) == entry | {"seq": 9}


@pytest.mark.parametrize(
    "entry",
    [
        {"op": "x"}, {"actor": "god", "op": "x"}, {"actor": "human"}, BASE | {"colour": ""}, BASE | {"path": b"/a"},
        BASE | {"pid": -1}, BASE | {"pid": 1 << 60}, BASE | {"act": 3},
    ],
)  # fmt: skip
def test_what_is_no_entry_is_refused(entry: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        rows.from_mapping(entry, 1, 0)


@given(texts, texts)
def test_rows_that_differ_have_different_leaves(one: str, other: str) -> None:
    a = rows.from_mapping(BASE | {"path": one, "path2": other}, 1, 0)
    b = rows.from_mapping(BASE | {"path": other, "path2": one}, 1, 0)
    assert (rows.leaf_bytes(a) == rows.leaf_bytes(b)) == (one == other)
