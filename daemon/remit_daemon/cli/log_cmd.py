"""Ledger entries as lines for a terminal. The caller fetches them, and prints JSON itself.

A line never shortens what it shows: whoever reads a path or a rule must see all of it. Who acted is told by words
and capitals; colour only repeats it. Whatever an agent may have chosen is escaped.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from remit_daemon.wire.escape import escape
from remit_daemon.wire.words import LEVELS, NO_RULE, rule_name

NO_RECORD = "no record: a human or something outside remit"

_RESET = "\x1b[0m"
_DIM = "\x1b[2m"
_ACTOR_COLOUR = {"human": "\x1b[1;32m", "agent": "\x1b[1;36m", "remit": "\x1b[1;35m"}
_GOOD = ("ok", "passed", "allowed", "EINPROGRESS", "")
_OPEN = ("pending", "held", "gone")
# A connection that does not block is under way when its call returns.
_OUTCOME_WORD = {"pending": "unfinished", "gone": "caller gone", "EINPROGRESS": "started"}


def _paint(text: str, colour: str, on: bool) -> str:
    return f"{colour}{text}{_RESET}" if on and text else text


def _word(text: str) -> str:
    """Escape ``text`` and quote it where it would not read as one word."""
    shown = escape(text)
    return '"' + shown.replace('"', '\\"') + '"' if not shown or " " in shown or '"' in shown else shown


def format_actor(entry: Mapping[str, Any]) -> str:
    """Return who acted: ``HUMAN``, ``remit``, or ``agent NAME/SESSION``. Only a human is in capitals."""
    actor = str(entry.get("actor", ""))
    agent, session = str(entry.get("agent", "")), str(entry.get("session", ""))
    about = "/".join(_word(part) for part in (agent, session) if part)
    if actor == "human":
        return f"HUMAN (for {about})" if about else "HUMAN"
    if actor == "remit":
        return f"remit (for {about})" if about else "remit"
    return f"agent {about}" if actor == "agent" else "unknown"


def format_time(seconds: float) -> str:
    """Return local time with its offset, to the millisecond; ``seconds`` since the epoch."""
    millis = round(seconds * 1000)
    local = time.localtime(millis // 1000)
    return time.strftime("%Y-%m-%d %H:%M:%S", local) + f".{millis % 1000:03d}" + time.strftime("%z", local)


def format_entry(entry: Mapping[str, Any], *, colour: bool) -> str:
    """Return one wire Entry as one line, without a line end.

    Time, who, operation, outcome, path (``->`` second path), then what there is of arguments, rule, prompt and note.
    """
    # What completed an act may say more after a blank: ``ok to api.example.org``, ``EHOSTUNREACH no nameserver answers``.
    outcome, _, more = str(entry.get("outcome", "")).partition(" ")
    verdict = str(entry.get("verdict", ""))
    result = _OUTCOME_WORD.get(outcome, outcome) or verdict
    tint = (
        "\x1b[32m"
        if outcome in _GOOD and verdict != "deny"
        else "\x1b[33m"
        if outcome in _OPEN
        else "\x1b[31m"
    )
    parts = [
        _paint(format_time(float(entry["time"])), _DIM, colour),
        _paint(format_actor(entry), _ACTOR_COLOUR.get(str(entry.get("actor", "")), ""), colour),
        escape(str(entry.get("op", ""))),
    ]
    if result:
        parts.append(_paint(escape(result), tint, colour))
    if path := str(entry.get("path", "")):
        parts.append(_word(path))
    if path2 := str(entry.get("path2", "")):
        parts.append("-> " + _word(path2))
    if argv := entry.get("argv"):
        parts.append("argv [" + " ".join(_word(str(word)) for word in argv) + "]")
    notes = ", ".join(part for part in (str(entry.get("note", "")), more) if part)
    for name, text in (
        ("rule", entry.get("rule", "")),
        ("prompt", entry.get("prompt", "")),
        ("note", notes),
    ):
        if text := str(text):
            said = rule_name(text) if name == "rule" else f"{name} {_word(text)}"
            parts.append(_paint(said if said == NO_RULE else f"{name} {_word(text)}", _DIM, colour))
    return " ".join(parts)


def format_who(answer: Mapping[str, Any], subject: str, *, colour: bool) -> str:
    """Return the wire's answer to ``who`` about ``subject`` (what was asked for) as lines, without a last line end."""
    entries = answer.get("entries") or []
    if not answer.get("actor") and not entries:
        return f"{escape(subject)}: {answer.get('text') or NO_RECORD}"
    said = [f"  {escape(str(answer['text']))}"] if answer.get("text") else []
    who = _paint(format_actor(answer), _ACTOR_COLOUR.get(str(answer.get("actor", "")), ""), colour)
    if level := str(answer.get("assurance", "")):
        who += f" ({level}: {LEVELS.get(level, 'unknown')})"
    if note := str(answer.get("note", "")):
        who += f", {escape(note)}"
    return "\n".join(
        [f"{escape(subject)}: {who}", *said, *("  " + format_entry(e, colour=colour) for e in entries)]
    )
