"""Ledger rows, sessions, grants and agents as lines of (style, text): one line in a list, and whole in a detail.

A list's line may clip; a detail never does. Who acted is told by a sign and a word, and colour is not needed:
``◆ HUMAN``, ``○ agent NAME``, ``· remit``.
"""

from __future__ import annotations

import time

from remit_daemon.wire.words import LEVELS, UNCONFINED, rule_name, term
from remit_tui.frame import Line, waiting
from remit_tui.records import Entry, Grant, Session
from remit_tui.standing import Limit
from remit_tui.text import clip, command, fold, shown, span, width_of, wrap
from remit_tui.words import field

_OUTCOMES = {
    "pending": "unfinished",
    "gone": "caller gone",
    "EINPROGRESS": "started",
    "passed": "ok",
}
# What remitd marks in a grant, for who reads one.
_MARKS = {
    "unused": "it was never used",
    "stale": "it was not used for long",
    "never-narrowed": "it is broader than its use; what would do is above",
    "dead": "what it is for is not there any more",
    "due": "nobody looked at it for long",
}
_ANSWERS = {"allow": "allowed", "deny": "denied"}
REFUSED = ("refused", "denied", "expired")


def pad(text: str, width: int) -> str:
    """Return ``text`` (already escaped) in just ``width`` cells."""
    text = clip(text, width)
    return text + " " * (width - width_of(text))


def when(seconds: float) -> str:
    """Return local date and time to the second, without the year."""
    return time.strftime("%m-%d %H:%M:%S", time.localtime(seconds))


def exactly(seconds: float) -> str:
    """Return local date and time to the millisecond, with the offset."""
    millis = round(seconds * 1000)
    local = time.localtime(millis // 1000)
    return time.strftime("%Y-%m-%d %H:%M:%S", local) + f".{millis % 1000:03d} " + time.strftime("%z", local)


def actor(entry: Entry) -> str:
    """Return who acted, as a sign and words."""
    if entry.actor == "human":
        return "◆ HUMAN"
    if entry.actor == "remit":
        return "· remit"
    return f"○ agent {shown(entry.agent)}" if entry.actor == "agent" else "? unknown"


def outcome(entry: Entry) -> str:
    """Return how it ended, in a word."""
    if entry.actor == "agent" and entry.verdict == "deny" and entry.outcome in ("", "refused"):
        return "DENIED"
    if entry.op == "answer" and entry.outcome == "answered" and entry.verdict in _ANSWERS:
        return _ANSWERS[entry.verdict]
    if entry.outcome in REFUSED:
        return entry.outcome.upper()
    return shown(_OUTCOMES.get(entry.outcome, entry.outcome) or entry.verdict)


def entry_row(entry: Entry, width: int, on: bool) -> Line:
    """Return a ledger row's line in the list."""
    head = f"{'▸' if on else ' '} {when(entry.time)}  {pad(actor(entry), 16)}  {pad(shown(entry.op), 8)} {pad(outcome(entry), 10)} "
    what = shown(entry.path) + (f" → {shown(entry.path2)}" if entry.path2 else "")
    what = what or shown(entry.note)
    text = head + clip(what, max(width - width_of(head), 3))
    style = "reverse" if on else "bold" if entry.actor == "human" else ""
    return [(style, pad(text, width))]


def entry_detail(entry: Entry, width: int) -> list[Line]:
    """Return all that a ledger row says, in lines of at most ``width`` cells."""
    about = f", for {shown(entry.agent)}" if entry.actor != "agent" and entry.agent else ""
    session = f", session {shown(entry.session)}" if entry.session else ""
    more = f": {shown(entry.more)}" if entry.more else ""
    lines: list[Line] = [[("bold", part)] for part in fold(f"{actor(entry)}{about}{session}", width)]
    lines += field("when", f"{exactly(entry.time)}, row {entry.seq}", width)
    lines += field("did", f"{shown(entry.op)}: {outcome(entry)}{more}", width)
    if entry.path:
        lines += field("what", shown(entry.path), width, "bold")
    if entry.path2:
        lines += field("to", shown(entry.path2), width, "bold")
    if entry.argv:
        lines += field("command", command(entry.argv), width)
    if entry.exe or entry.pid:
        lines += field("program", f"{shown(entry.exe) or 'unknown'} (process {entry.pid})", width)
    if entry.verdict or entry.rule:
        said = f"{shown(entry.verdict) or 'decided'}: {shown(rule_name(entry.rule))}"
        lines += field("rule", said, width)
    for label, text in (("prompt", entry.prompt), ("note", entry.note)):
        if text:
            lines += field(label, shown(text), width)
    return lines


def family(sessions: tuple[Session, ...]) -> tuple[tuple[int, Session], ...]:
    """Return ``sessions`` in their order, each followed by those that it started, with how deep they are."""
    ids = {s.id for s in sessions}
    below: dict[str, list[Session]] = {}
    for s in sessions:
        below.setdefault(s.parent if s.parent in ids and s.parent != s.id else "", []).append(s)
    out: list[tuple[int, Session]] = []
    waiting = [(0, s) for s in reversed(below.get("", ()))]
    while waiting:
        depth, one = waiting.pop()
        out.append((depth, one))
        waiting += [(depth + 1, s) for s in reversed(below.pop(one.id, ()))]
    return tuple(out)


def limits_of(session: Session, limits: tuple[Limit, ...]) -> tuple[Limit, ...]:
    """Return which of ``limits`` ``session`` draws on: its own, those of its agent, and for a sub-session those of whom it is of."""
    names = session.agent.split(" of ")
    return tuple(
        limit
        for limit in limits
        if limit.session == session.id or (not limit.session and limit.agent in (session.agent, *names))
    )


def session_row(
    session: Session, wall: float, width: int, on: bool, depth: int = 0, spent: bool = False
) -> Line:
    """Return a session's line in the list, ``depth`` below the one that was started by the person; ``wall`` in s since the epoch."""
    ran = (session.ended or wall) - session.started
    status = "" if session.status is None else f" ({session.status})"
    waits = f"{session.waiting} wait" if session.waiting else ""
    marks = ("" if session.confined else "[unconfined] ") + ("[limit] " if spent else "")
    # Below the one that started it, a sub-session needs its own name alone.
    own = session.agent.partition(" of ")[0] if depth else session.agent
    name = "  " * (depth - 1) + "└ " * (depth > 0) + shown(own)
    head = (
        f"{'▸' if on else ' '} {pad(shown(session.id), 7)} {pad(name, 20 if width >= 100 else 14)}"
        f" {pad(session.state + status, 10)} {when(session.started)[: None if width >= 100 else -3]} {pad(span(ran), 6)}"
        f" {pad(waits, 6)} {marks}"
    )
    room = width - width_of(head)
    return [
        (
            "reverse" if on else "",
            pad(head + (clip(shown(session.project), room) if room > 3 else ""), width),
        )
    ]


def session_detail(session: Session, wall: float, width: int, limits: tuple[Limit, ...] = ()) -> list[Line]:
    """Return all that is known of a session, and of the ``limits`` that it draws on."""
    title = f"{shown(session.agent)}, session {shown(session.id)}: {shown(session.state)}"
    lines: list[Line] = [[("bold", part)] for part in fold(title, width)]
    if session.parent:
        lines += field("within", f"session {shown(session.parent)}, which it cannot do more than", width)
    if not session.confined:
        lines += field("NOTE", UNCONFINED, width)
    for limit in limits:
        lines += field(
            "LIMIT" if limit.spent else "limit",
            shown(limit.text),
            width,
            "bold" if limit.spent else "",
            wrap,
        )
    lines += field("started", f"{exactly(session.started)}, {span(wall - session.started)} ago", width)
    if session.ended is not None:
        lines += field("ended", f"{exactly(session.ended)}, with status {session.status}", width)
    if session.argv:
        lines += field("command", command(session.argv), width)
    if session.project:
        lines += field("project", shown(session.project), width)
    lines += field("process", str(session.pid), width)
    lines += field("asks", shown(session.ask), width)
    lines += field("waiting", waiting(session.waiting), width)
    if session.net_all:
        lines += field("network", "open, unmediated", width)
    level = LEVELS.get(session.assurance)
    lines += field("assured", shown(session.assurance) + (f": {level}" if level else ""), width)
    if session.enforced:
        lines += field("enforced", "; ".join(map(shown, session.enforced)), width)
    return lines


def _used(grant: Grant, wall: float) -> str:
    if grant.last_used is None:
        return "never"
    return f"{span(wall - grant.last_used)} ago"


def _lasts(grant: Grant) -> str:
    return term(int(grant.lasts)) if grant.lasts.isdigit() else grant.lasts


def marked(grant: Grant) -> tuple[str, ...]:
    """Return what there is to look at in a grant, in words."""
    own = (*(("suspended",) if grant.suspended else ()), *(("withheld",) if grant.withheld else ()))
    return tuple(dict.fromkeys((*own, *grant.marks, *(("due",) if grant.due and not grant.marks else ()))))


def grant_row(grant: Grant, wall: float, width: int, on: bool) -> Line:
    """Return a grant's line in the list."""
    marks = "".join(f"[{shown(m)}] " for m in marked(grant))
    head = (
        f"{'▸' if on else ' '} {pad(shown(grant.agent), 12)} {pad(shown(grant.verdict), 5)}"
        f" {pad(', '.join(map(shown, grant.ops)), 10)} {pad(shown(_lasts(grant)), 7)} {pad(f'{grant.uses} uses', 9)}"
        f" {pad(_used(grant, wall), 10)} {marks}"
    )
    text = head + clip(shown(grant.scope), max(width - width_of(head), 3))
    return [("reverse" if on else "", pad(text, width))]


def grant_detail(grant: Grant, wall: float, width: int) -> list[Line]:
    """Return all that is known of a grant, its rule first."""
    lines: list[Line] = [[("bold", part)] for part in fold(shown(grant.rule), width)]
    lines += field("scope", shown(grant.scope), width)
    via = f" through {shown(grant.via)}" if grant.via else ""
    lines += field("given", f"{exactly(grant.created)} by {shown(grant.by) or 'unknown'}{via}", width)
    lines += field(
        "holds", f"for session {shown(grant.session)}" if grant.session else "in every session", width
    )
    never = "with its session" if grant.session else "never"
    end = never if grant.expires is None else f"{exactly(grant.expires)}, in {span(grant.expires - wall)}"
    lines += field("expires", end, width)
    refusals = f", {grant.denials} of them refusals" if grant.denials else ""
    lines += field("used", f"{grant.uses} times, last {_used(grant, wall)}{refusals}", width)
    if grant.suffices:
        lines += field("would do", shown(grant.suffices), width)
    if grant.withheld:
        lines += field("state", "withheld: its agent's program has changed; the agents view says so", width)
    if grant.suspended:
        lines += field("state", "suspended: unused for long, it is asked again", width)
    if marks := marked(grant):
        lines += field("look at", "; ".join(_MARKS.get(m, shown(m)) for m in marks), width, cut=wrap)
    return lines
