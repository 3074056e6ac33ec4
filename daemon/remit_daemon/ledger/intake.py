"""From a journal's bytes to what the ledger has to write: pure, so the store does it in one transaction.

What is not right in a journal is never passed over: it becomes a row by ``remit`` with op ``damage``.
Bytes that are no record, or a record that is no act, done or count, end the reading of that journal for
good (what follows cannot be trusted to be cut right). A gap or a repetition in the numbering, and a
``done`` without an open act, are noted and reading goes on, since the records themselves are whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from remit_daemon.ledger.rows import MAX_PID, UNSETTLED, Row, store_argv, store_text
from remit_daemon.wire.journal import ACT_FIELDS, unpack

_FIXED = len(ACT_FIELDS)
_EFFECT = ("ok", "passed")


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """Whose acts a journal holds. ``agent`` is the agent's name, ``actor`` who acts (an agent, as a rule)."""

    id: str
    agent: str
    actor: str = "agent"


@dataclass(slots=True)
class Batch:
    """What one stretch of a journal amounts to.

    ``changed`` are the (row, object name) of the acts that were completed with effect, in their order, the name "" where none
    was given. ``rows`` have the sequence numbers that they will get. ``opened`` maps an act's journal number to its row where
    no ``done`` was seen, ``closed`` are the numbers of earlier acts that were closed. ``end`` is the offset
    behind the last whole record, ``next_number`` the number expected then (-1: any), ``damaged`` says that reading
    of this journal has ended.
    """

    rows: list[Row] = field(default_factory=list)
    opened: dict[int, int] = field(default_factory=dict)
    closed: list[int] = field(default_factory=list)
    changed: list[tuple[int, str]] = field(default_factory=list)
    records: int = 0
    end: int = 0
    next_number: int = -1
    damaged: bool = False


def read_batch(
    raw: bytes,
    session: SessionInfo,
    *,
    offset: int,
    first_seq: int,
    next_number: int,
    open_acts: Callable[[int], int | None],
    now_ns: int,
) -> Batch:
    """Turn ``raw``, the journal's bytes from ``offset`` on, into a Batch.

    ``first_seq`` is the seq of the next row, ``open_acts(number)`` the row of an act of an earlier batch
    that still waits for its ``done``. Raises nothing on bad input: that becomes a ``damage`` row.
    """
    batch = Batch(end=offset, next_number=next_number)
    rows = batch.rows
    here: dict[int, int] = {}  # journal number -> index in rows, for acts of this batch that wait
    counts: dict[str, int] = {}
    agent, sid, actor = store_text(session.agent), store_text(session.id), session.actor

    def remark(
        op: str, note: str, *, outcome: str = "", act: int | None = None, path: str = "", at: int = 0
    ) -> None:
        who = "remit" if op == "damage" else actor
        rows.append(
            Row(first_seq + len(rows), at or now_ns, who, agent, sid, 0, "", "", "", op, path, "", "", outcome,
                "", "", store_text(note), "[]", act)
        )  # fmt: skip

    def number(seq: int, at: int) -> None:
        expected = batch.next_number
        if (seq != expected and expected >= 0) or (expected < 0 and seq > 1):
            remark("damage", f"the journal goes from record {expected - 1} to {seq}", at=at)
        batch.next_number = seq + 1

    def act(fields: list[str]) -> None:
        (_, seq_text, time_text, op, verdict, outcome, pid, proc, exe, digest,
         path, path2, rule, prompt, note) = fields[:_FIXED]  # fmt: skip
        seq, time_ns, process = int(seq_text), int(time_text), int(pid or 0)
        if not 0 <= process < MAX_PID or not 0 <= time_ns < 1 << 63 or not op:
            raise ValueError("an act's pid, time or op is out of range")
        number(seq, time_ns)
        if outcome in UNSETTLED:
            here[seq] = len(rows)
        rows.append(
            Row(first_seq + len(rows), time_ns, actor, agent, sid, process, store_text(proc), store_text(exe),
                store_text(digest), store_text(op), store_text(path), store_text(path2), store_text(verdict),
                store_text(outcome), store_text(rule), store_text(prompt), store_text(note),
                store_argv(fields[_FIXED:]) if len(fields) > _FIXED else "[]", None)
        )  # fmt: skip

    def done(seq_text: str, time_text: str, outcome: str, object: str = "") -> None:
        seq, time_ns = int(seq_text), int(time_text)
        index = here.pop(seq, None)
        if index is not None:
            rows[index] = rows[index]._replace(outcome=store_text(outcome))
            if outcome in _EFFECT:
                batch.changed.append((rows[index].seq, store_text(object)))
            return
        opened = None if seq in batch.closed else open_acts(seq)
        if opened is None:
            remark("damage", f"record {seq} is closed ({outcome}) but was not open", at=time_ns)
            return
        batch.closed.append(seq)
        if outcome in _EFFECT:
            batch.changed.append((opened, store_text(object)))
        remark("done", "", outcome=store_text(outcome), act=opened, at=time_ns)

    try:
        for fields, end in unpack(raw):
            kind = fields[0]
            if kind == "act" and len(fields) >= _FIXED:
                act(fields)
            elif kind == "done" and 4 <= len(fields) <= 5:
                done(*fields[1:])
            elif kind == "count" and len(fields) == 5:
                number(int(fields[1]), int(fields[2]))
                counts[fields[3]] = counts.get(fields[3], 0) + int(fields[4])
            else:
                raise ValueError(f"a record of kind {kind!r} with {len(fields)} fields")
            batch.end = offset + end
            batch.records += 1
    except ValueError as e:
        batch.damaged = True
        remark("damage", f"the journal cannot be read on from offset {batch.end}: {e}")
    for op, uses in counts.items():
        remark("count", str(uses), path=store_text(op))
    batch.opened = {seq: rows[index].seq for seq, index in here.items()}
    return batch
