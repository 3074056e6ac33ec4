"""Questions to the ledger. An act is shown with its final outcome: a later ``done`` row is joined to it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from remit_daemon.ledger.rows import BOOKKEEPING, COLUMNS, Row, load_text, store_text, to_entry
from remit_daemon.ledger.schema import CHANGES, TOOK_EFFECT

MAX_LIMIT = 10_000  # rows in one answer: about 4 MB as JSON, which is a line's limit on the wire
DEFAULT_LIMIT = 1000
_FEW = 5000  # up to so many rows of a path are worth fetching by index; for more, walking by seq is faster
MAX_USES = 10_000  # distinct things that one rule was used for
_MAX_HOPS = 32  # of renames that ``who`` follows back
NO_RECORD = "no record: a human or something outside remit"

FINAL = """CASE WHEN r.outcome IN ('pending','held') THEN COALESCE(
  (SELECT d.outcome FROM rows d WHERE d.act = r.seq ORDER BY d.seq DESC LIMIT 1), r.outcome)
  ELSE r.outcome END"""
_SELECT = (
    "SELECT "  # noqa: S608 - constants
    + ", ".join(FINAL if name == "outcome" else f"r.{name}" for name in COLUMNS)
    + " FROM rows r"
)
_REFUSED = "('refused','denied','expired')"
# NAME, NAME:PORT, or METHOD SCHEME://NAME[:PORT]/PATH; in the last, what follows the authority may hold anything.
_HOST = (
    "(r.op IN ('connect','resolve','listen','request') AND (r.path = ? OR substr(r.path, 1, ?) = ?"
    " OR (r.op = 'request' AND substr(r.path, instr(r.path, '://') + 3, ?) IN (?, ?))))"
)
_EFFECTIVE = ("ok", "passed", "allowed", "pending")


_STRETCH = 10_000  # rows that one page may look at: some 10 ms, in which nobody else is served
_STRETCH_INDEXED = 100_000  # the same where an index leads to those that matter


@dataclass(frozen=True, slots=True)
class Filter:
    """What to select; empty means any. Times are seconds since the epoch, ``since`` inclusive, ``until`` not.

    ``path`` selects itself and everything below it, ``host`` what was asked of that host at any port, ``rule`` the acts
    that this ``file:line`` decided, ``denied`` what was refused by whomever. With ``after`` the first ``limit`` rows behind
    that seq are meant (to page or follow), without it the newest ``limit``, of those before ``before`` if that is given.
    """

    actor: str = ""
    agent: str = ""
    session: str = ""
    path: str = ""
    op: str = ""
    outcome: str = ""
    host: str = ""
    rule: str = ""
    denied: bool = False
    since: float | None = None
    until: float | None = None
    after: int | None = None
    before: int | None = None
    limit: int = DEFAULT_LIMIT

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Filter:
        """Return the filter that ``params`` of the wire's ``log`` describe. Raises ValueError, naming the fault."""
        known = {f.name for f in fields(cls)}
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"no filter {name!r}")
            if name in ("since", "until"):
                right = value is None or (isinstance(value, (int, float)) and abs(value) < 1 << 33)
            elif name in ("after", "before", "limit"):
                right = (value is None and name != "limit") or (
                    isinstance(value, int) and 0 <= value < 1 << 62
                )
            else:
                right = isinstance(value, str) or name == "denied"
            if not right or isinstance(value, bool) != (name == "denied"):
                raise ValueError(f"the filter {name!r} cannot be {value!r}")
        return cls(**params)


def query(db: sqlite3.Connection, wanted: Filter) -> list[dict[str, Any]]:
    """Return the Entries that ``wanted`` selects, oldest first, at most MAX_LIMIT.

    ``done`` and ``count`` rows are returned only when asked for by ``op``.
    """
    limit = min(wanted.limit, MAX_LIMIT)
    entries = [to_entry(row) for row in _select(db, wanted, limit)]
    return entries if wanted.after is not None else entries[::-1]


def page(db: sqlite3.Connection, wanted: Filter, size: int) -> dict[str, Any]:
    """Return ``{entries, next, size}``: the Entries of one page, oldest first, and where the next one begins.

    With ``after`` it goes on to newer rows, else back from ``before`` (or the end of a ledger of ``size`` rows). So
    that a rare row is found without anybody waiting for it, a page may hold fewer than ``limit`` Entries, or none, and
    still not be the last: the last one's ``next`` is None, any other's is the next page's ``after`` or ``before``.
    """
    stretch = _STRETCH_INDEXED if wanted.session or wanted.actor in ("human", "remit") else _STRETCH
    limit = max(1, min(wanted.limit, MAX_LIMIT))
    if wanted.after is not None:
        end = wanted.after + stretch
        found = list(_select(db, replace(wanted, before=end + 1), limit))
        on = found[-1].seq if len(found) == limit else end
        return {
            "entries": [to_entry(row) for row in found],
            "next": on if on < size else None,
            "size": size,
        }
    top = size + 1 if wanted.before is None else min(wanted.before, size + 1)
    low = max(top - 1 - stretch, 0)
    found = list(_select(db, replace(wanted, before=top), limit, floor=low))
    on = found[-1].seq if len(found) == limit else low + 1
    return {"entries": [to_entry(row) for row in found[::-1]], "next": on if on > 1 else None, "size": size}


def find(db: sqlite3.Connection, time: float) -> int | None:
    """Return the seq of the first row of ``time`` (seconds since the epoch) or later; None when all are earlier."""
    found = db.execute(
        "SELECT seq FROM rows WHERE time_ns >= ? ORDER BY time_ns, seq LIMIT 1", (round(time * 1e9),)
    ).fetchone()
    return None if found is None else int(found[0])


def every(db: sqlite3.Connection, wanted: Filter) -> Iterator[Row]:
    """Yield all rows that ``wanted`` selects, oldest first, whatever its limit (``after`` counts)."""
    yield from _select(db, replace(wanted, after=wanted.after or 0), -1)


def _select(
    db: sqlite3.Connection, wanted: Filter, limit: int, *, floor: int | None = None
) -> Iterator[Row]:
    """Yield what is selected, newest first unless ``after`` is given; only seqs above ``floor``."""
    terms: list[str] = []
    values: list[Any] = []
    if floor is not None:
        terms.append("r.seq > ?")
        values.append(floor)
    for name in ("actor", "agent", "session", "op", "rule"):
        if not (value := getattr(wanted, name)):
            continue
        if name == "agent":
            # And what it did on behalf of others, whose names follow: "x of " up to, not including, "x of!".
            terms.append("(r.agent = ? OR (r.agent > ? AND r.agent < ?))")
            values += [store_text(value), store_text(value + " of "), store_text(value + " of!")]
        else:
            terms.append(f"r.{name} = ?")
            values.append(store_text(value))
    if wanted.actor in ("human", "remit"):
        terms.append("r.actor <> 'agent'")  # so that the index of just these is used
    if not wanted.op:
        terms.append(f"r.op NOT IN {BOOKKEEPING}")
    if wanted.outcome:
        # Its first word: what completed an act may say more after it.
        word = store_text(wanted.outcome + " ")
        terms.append(f"substr({FINAL} || ' ', 1, ?) = ?")
        values += [len(word), word]
    if wanted.denied:
        terms.append(f"(r.verdict = 'deny' OR {FINAL} IN {_REFUSED})")
    if wanted.host:
        host = store_text(wanted.host)
        terms.append(_HOST)
        values += [host, len(host) + 1, host + ":", len(host) + 1, host + "/", host + ":"]
    for bound, sign in ((wanted.since, ">="), (wanted.until, "<")):
        if bound is not None:
            terms.append(f"r.time_ns {sign} ?")
            values.append(round(bound * 1e9))
    if wanted.after is not None:
        terms.append("r.seq > ?")
        values.append(wanted.after)
    if wanted.before is not None:
        terms.append("r.seq < ?")
        values.append(wanted.before)
    if wanted.path:
        term, more = _path_term(db, wanted.path)
        terms.append(term)
        values += more
    order = "DESC" if wanted.after is None else "ASC"
    where = f" WHERE {' AND '.join(terms)}" if terms else ""
    for row in db.execute(f"{_SELECT}{where} ORDER BY r.seq {order} LIMIT ?", (*values, limit)):
        yield Row(*row)


def _path_term(db: sqlite3.Connection, path: str) -> tuple[str, list[Any]]:
    stored = store_text(path)
    base = stored.rstrip("/")
    # "0" follows "/": what lies between is everything below the path, component-wise.
    values = [stored if base == "" else base, base + "/", base + "0"]
    places = [
        f"{column} = ?{extra}" if kind == "is" else f"{column} >= ? AND {column} < ?{extra}"
        for column, extra in (("path", ""), ("path2", " AND path2 <> ''"))
        for kind in ("is", "below")
    ]
    found = " UNION ALL ".join(f"SELECT seq FROM rows WHERE {place}" for place in places)  # noqa: S608 - constants
    (many,) = db.execute(
        f"SELECT count(*) FROM (SELECT 1 FROM ({found}) LIMIT {_FEW})",  # noqa: S608 - constants
        values * 2,
    ).fetchone()
    if many < _FEW:
        return f"r.seq IN ({found})", values * 2
    each = [f"(r.{column} = ? OR (r.{column} >= ? AND r.{column} < ?))" for column in ("path", "path2")]
    return f"({' OR '.join(each)})", values * 2


def denials(db: sqlite3.Connection, session: str, limit: int) -> list[dict[str, Any]]:
    """Return the last ``limit`` refused acts of ``session`` ("" for all), oldest first.

    Refused by a rule, denied by a person, or expired while it was held.
    """
    where = f"r.verdict IN ('ask','deny') AND r.actor = 'agent' AND (r.verdict = 'deny' OR {FINAL} IN {_REFUSED})"
    values: list[Any] = []
    if session:
        where += " AND r.session = ?"
        values.append(store_text(session))
    found = db.execute(
        f"{_SELECT} WHERE {where} ORDER BY r.seq DESC LIMIT ?",
        (*values, max(0, min(limit, MAX_LIMIT))),
    )
    return sorted((to_entry(Row(*row)) for row in found.fetchall()[::-1]), key=lambda entry: entry["time"])


def uses_of(db: sqlite3.Connection, rule: str, since: float) -> list[tuple[str, tuple[str, ...]]]:
    """Return the resources, each once and with the arguments of a program, that agents used by ``rule`` after ``since``.

    Both paths of an act count. Of more than MAX_USES the rest is left out, which leaves too few to say what would
    suffice: then nothing is returned.
    """
    found = db.execute(
        "SELECT DISTINCT path, path2, CASE WHEN op = 'exec' THEN argv ELSE '[]' END FROM rows"
        " WHERE rule = ? AND substr(rule, 1, 6) = 'grant:' AND actor = 'agent' AND time_ns >= ? LIMIT ?",
        (store_text(rule), round(since * 1e9), MAX_USES + 1),
    ).fetchall()
    if len(found) > MAX_USES:
        return []
    out: dict[tuple[str, tuple[str, ...]], None] = {}
    for path, path2, argv in found:
        words = tuple(load_text(word) for word in json.loads(argv))
        out |= dict.fromkeys((load_text(p), words) for p in (path, path2) if p)
    return list(out)


def hits(db: sqlite3.Connection, agent: str, since: float) -> dict[str, tuple[int, float]]:
    """Return for each rule how many acts of ``agent`` it decided after ``since``, and when the last of them was."""
    found = db.execute(
        "SELECT rule, count(*), max(time_ns) FROM rows WHERE time_ns >= ? AND agent = ? AND actor = 'agent'"
        " AND op NOT IN ('done', 'count') GROUP BY rule",
        (round(since * 1e9), store_text(agent)),
    )
    return {load_text(rule): (n, at / 1e9) for rule, n, at in found}


def learnt(db: sqlite3.Connection, session: str) -> list[tuple[str, str, int]]:
    """Return (operation, resource, how often) of what ``session`` was let through with because it learnt."""
    found = db.execute(
        "SELECT note, path, count(*) FROM rows WHERE session = ? AND op = 'learn' AND actor = 'remit'"
        " AND verdict = 'allow' GROUP BY note, path",
        (store_text(session),),
    )
    return [(op, load_text(path), n) for note, path, n in found for op in load_text(note).split()]


def recent_acts(
    db: sqlite3.Connection, agent: str, ops: Sequence[str], since: float, below: str
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield (operation, resource, arguments) of what ``agent`` did, or tried, after ``since``.

    ``below`` is a directory that the resources lie in; without one ("") the newest come first. Acts that are no operation of a policy (a rename)
    are none of ``ops``.
    """
    where = ["actor = 'agent'", "agent = ?", f"op IN ({', '.join('?' * len(ops))})"]
    values: list[Any] = [store_text(agent), *ops]
    if below:
        base = store_text(below).rstrip("/")
        where += [
            "path >= ?",
            "path < ?",
            "+time_ns >= ?",
        ]  # by path: few lie there, many are of the last month
        values += [base + "/", base + "0"]
    else:
        where.append("time_ns >= ?")
    values.append(round(since * 1e9))
    order = "" if below else " ORDER BY time_ns DESC"
    sql = f"SELECT op, path, argv FROM rows WHERE {' AND '.join(where)}{order}"  # noqa: S608 - constants
    for op, path, argv in db.execute(sql, values):
        yield load_text(op), load_text(path), tuple(load_text(word) for word in json.loads(argv))


def who(db: sqlite3.Connection, path: str, before: int | None = None) -> dict[str, Any]:
    """Return who last gave ``path`` its content or its name, as the ledger knows it (as of row ``before``, itself not counted).

    ``{actor, agent, session, entries, text}``: ``entries`` begins with the latest act and goes back along renames
    (of the path or a directory above it) and hard links to the act that wrote what got the new name. Without a record
    ``actor`` is empty and ``text`` says what that means.
    """
    at = store_text(path)
    at = at.rstrip("/") or at
    before = 1 << 62 if before is None else before
    entries: list[dict[str, Any]] = []
    for _ in range(_MAX_HOPS):
        row, rest = _latest(db, at, before)
        if row is None:
            break
        entries.append(to_entry(row))
        if row.op not in ("rename", "link") or row.path2 + rest != at:
            break  # it did not bring a name to here: it wrote, made, removed or moved away what was here
        at = row.path + rest
        before = row.seq
    if not entries:
        return {"actor": "", "agent": "", "session": "", "entries": [], "text": NO_RECORD}
    first = entries[0]
    return {name: first[name] for name in ("actor", "agent", "session")} | {"entries": entries, "text": ""}


def _latest(db: sqlite3.Connection, path: str, before: int) -> tuple[Row | None, str]:
    """Return the last effective act on ``path`` before a seq, and what of the path is below what was renamed."""
    best: Row | None = None
    rest = ""
    above = path
    while above:
        # Renames and links lead to path2; a symlink's path2 is what it points to, which it leaves as it was.
        for column, guard in (("path", f"{CHANGES} AND {TOOK_EFFECT}"), ("path2", "path2 <> ''")):
            if above != path:
                guard += " AND op = 'rename'"
            elif column == "path2":
                guard += " AND op IN ('rename','link')"
            row = _last(db, column, guard, above, best.seq if best else 0, before)
            if row is not None:
                best, rest = row, path[len(above) :]
        above = above.rpartition("/")[0]
    return best, rest


def _last(
    db: sqlite3.Connection, column: str, guard: str, path: str, after: int, before: int
) -> Row | None:
    # ``r.outcome`` is the row's own; a held act that was denied later must not count, hence the second look.
    found = db.execute(
        f"{_SELECT} WHERE r.{column} = ? AND {guard} AND r.seq > ? AND r.seq < ? ORDER BY r.seq DESC",
        (path, after, before),
    )
    for values in found:
        row = Row(*values)
        if row.outcome in _EFFECTIVE:
            return row
    return None
