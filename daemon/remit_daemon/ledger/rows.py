"""A ledger row: its fields, the bytes that are hashed, and the Entry that others see.

A row is written once and never changed. Its leaf is the row as RFC 8785 canonical JSON: keys sorted, no
white space, text as UTF-8. ``time_ns`` is text there since RFC 8785 numbers are IEEE doubles (its appendix
D says so too); ``seq``, ``pid`` and ``act`` stay far below 2**53.

Text in a row is *stored text*: neither SQLite nor RFC 8785 takes a lone surrogate, which is how Python holds the bytes
of a path that are no UTF-8. So a backslash is stored as ``\\\\``, such a byte as ``\\xNN``, any other surrogate as ``\\uNNNN`` and NUL as
``\\x00`` (forms of ``wire.escape``); everything else stands as it is. One to one, and a prefix stays a prefix.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring as _quote
from typing import Any, NamedTuple

from remit_daemon.wire.escape import unescape

ACTORS = ("human", "agent", "remit")
# Rows that complete, sum up or follow from other rows; asked for by name, otherwise not listed.
BOOKKEEPING = ("done", "count", "left")
# An act's outcome that a later ``done`` row replaces.
UNSETTLED = ("pending", "held")

MAX_PID = 1 << 53  # RFC 8785 numbers are doubles


class Row(NamedTuple):
    """One row, in the columns' order, text as stored text. ``act`` is the seq that a ``done`` completes."""

    seq: int
    time_ns: int
    actor: str
    agent: str
    session: str
    pid: int
    proc: str
    exe: str
    sha256: str
    op: str
    path: str
    path2: str
    verdict: str
    outcome: str
    rule: str
    prompt: str
    note: str
    argv: str  # a JSON array of stored texts
    act: int | None


COLUMNS = Row._fields
_TEXTS = tuple(name for name in COLUMNS if name not in ("seq", "time_ns", "pid", "argv", "act"))


def store_text(text: str) -> str:
    """Return ``text`` as stored text."""
    if "\\" not in text and "\0" not in text:
        if text.isascii():
            return text
        try:
            text.encode()
            return text
        except UnicodeEncodeError:
            pass
    return "".join(map(_store_one, text))


def _store_one(char: str) -> str:
    code = ord(char)
    if char == "\\":
        return "\\\\"
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if 0xD800 <= code <= 0xDFFF:
        return f"\\u{code:04x}"
    return char if code else "\\x00"


def load_text(stored: str) -> str:
    """Return the text that ``store_text`` was given. Raises ValueError on what it never writes."""
    return unescape(stored)


def store_argv(argv: Iterable[str]) -> str:
    """Return the ``argv`` column."""
    return "[" + ",".join([_quote(store_text(word)) for word in argv]) + "]"


def leaf_bytes(row: Row) -> bytes:
    """Return the canonical JSON (RFC 8785) of ``row``.

    Raises TypeError or ValueError when a column holds what no row can.
    """
    q = _quote
    (seq, time_ns, actor, agent, session, pid, proc, exe, sha256, op, path, path2, verdict, outcome, rule,
     prompt, note, argv, act) = row  # fmt: skip
    return (
        f'{{"act":{"null" if act is None else act},"actor":{q(actor)},"agent":{q(agent)},"argv":{argv}'
        f',"exe":{q(exe)},"note":{q(note)},"op":{q(op)},"outcome":{q(outcome)},"path":{q(path)}'
        f',"path2":{q(path2)},"pid":{pid},"proc":{q(proc)},"prompt":{q(prompt)},"rule":{q(rule)}'
        f',"seq":{seq},"session":{q(session)},"sha256":{q(sha256)},"time_ns":"{time_ns}"'
        f',"verdict":{q(verdict)}}}'
    ).encode()


def from_mapping(entry: Mapping[str, Any], seq: int, now_ns: int) -> Row:
    """Return the row of ``entry``, whose keys are those of a wire Entry (``seq`` is ignored) or ``time_ns``.

    What is missing is empty; ``time`` (seconds) defaults to ``now_ns``. Raises ValueError on an unknown
    key, an unknown actor, an empty op, or a value of the wrong type.
    """
    fields: dict[str, Any] = dict.fromkeys(_TEXTS, "")
    fields |= {"seq": seq, "time_ns": now_ns, "pid": 0, "argv": "[]", "act": None}
    for name, value in entry.items():
        if name == "seq":
            continue
        if name in ("time", "time_ns"):
            fields["time_ns"] = int(value) if name == "time_ns" else round(value * 1e9)
        elif name == "pid":
            fields["pid"] = int(value or 0)
        elif name == "argv":
            fields["argv"] = store_argv(value)
        elif name == "act":
            if entry.get("op") != "done":
                raise ValueError("only a done row completes an act")
            fields["act"] = int(value)
        elif name in _TEXTS:
            if not isinstance(value, str):
                raise ValueError(f"a row's {name} is text, not {type(value).__name__}")
            fields[name] = store_text(value)
        else:
            raise ValueError(f"a row has no {name}")
    if fields["actor"] not in ACTORS:
        raise ValueError(f"no actor {fields['actor']!r}")
    if not fields["op"]:
        raise ValueError("a row without an op")
    if not 0 <= fields["pid"] < MAX_PID:
        raise ValueError(f"no pid {fields['pid']}")
    return Row(**fields)


def to_entry(row: Row) -> dict[str, Any]:
    """Return ``row`` as a wire Entry (``wire.rpc``); a ``done`` row also names its ``act``."""
    entry: dict[str, Any] = {
        "seq": row.seq,
        "time": row.time_ns / 1e9,
        "actor": row.actor,
        "agent": load_text(row.agent),
        "session": load_text(row.session),
        "pid": row.pid,
        "proc": row.proc,
        "exe": load_text(row.exe),
        "sha256": row.sha256,
        "op": load_text(row.op),
        "path": load_text(row.path),
        "path2": load_text(row.path2),
        "verdict": row.verdict,
        "outcome": row.outcome,
        "rule": load_text(row.rule),
        "prompt": load_text(row.prompt),
        "note": load_text(row.note),
        "argv": [load_text(word) for word in json.loads(row.argv)],
    }
    if row.act is not None:
        entry["act"] = row.act
    return entry
