"""What one session did, summed up from its rows: for the person, after it or while it runs.

Rows are read by the session's index, one by one, within a time: a session of some million acts is summed up as far as that
went, and says so (``at_least``).
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Iterable
from posixpath import dirname
from typing import Any

from remit_daemon.ledger.queries import FINAL
from remit_daemon.ledger.rows import BOOKKEEPING, load_text, store_text

TOP = 10  # directories, hosts, and denied things named
NAMED = 50  # files named of those that were changed or deleted
STEPS = 60  # columns of the time line
TERMINAL_PATH = 100  # characters of a path in the few lines at a session's end; the report has it whole

_FILES = {
    "read",
    "write",
    "create",
    "delete",
    "execute",
    "list",
    "metadata",
    "rename",
    "link",
    "symlink",
    "exec",
}
_WRITES = {"write", "create", "rename", "link", "symlink", "metadata"}
_NO_FILES = ("/dev/", "/proc/")  # what is written there changes no file
_DONE = ("ok", "passed", "allowed", "pending", "held")
_REFUSED = {"denied": "denied", "expired": "missed", "refused": "denied"}

_ROWS = (
    "SELECT time_ns, actor, op, path, path2, verdict, "  # noqa: S608 - constants
    f"{FINAL}, rule, prompt, note FROM rows r WHERE session = ? AND op NOT IN {BOOKKEEPING} ORDER BY seq"
)


class _Files:
    def __init__(self) -> None:
        self.paths: dict[str, None] = {}

    def view(self) -> dict[str, Any]:
        return {"number": len(self.paths), "paths": list(self.paths)[:NAMED]}


def build(db: sqlite3.Connection, session: str, within: float) -> dict[str, Any]:
    """Return the report of ``session`` as the wire has it, without what is known of the session itself.

    ``within`` is seconds; ``first`` and ``last`` are the times of its rows, None when there is none.
    """
    acts: Counter[str] = Counter()
    human: Counter[str] = Counter()
    directories: Counter[str] = Counter()
    changes: Counter[str] = Counter()
    hosts: Counter[str] = Counter()
    denied: Counter[tuple[str, str, str]] = Counter()
    asked: dict[str, str] = {}
    answers: list[dict[str, Any]] = []
    changed, deleted = _Files(), _Files()
    made: set[str] = set()
    seconds: Counter[int] = Counter()
    refusals: Counter[int] = Counter()
    first = last = None
    at_least = False
    end = time.monotonic() + within
    db.set_progress_handler(lambda: time.monotonic() > end, 10_000)
    try:
        for time_ns, actor, op, path, path2, verdict, outcome, rule, prompt, note in db.execute(
            _ROWS, (store_text(session),)
        ):
            at = time_ns / 1e9
            first = at if first is None else min(first, at)
            last = at if last is None else max(last, at)
            if actor == "human":
                human[op] += 1
                if op == "answer":
                    answers.append(
                        {"prompt": prompt, "verdict": verdict, "rule": load_text(note), "time": at}
                    )
                continue
            if actor != "agent" or op == "end":
                continue
            acts[op] += 1
            seconds[int(at)] += 1
            word = outcome.split(" ")[0]
            done = word in _DONE and verdict != "deny"
            if (
                verdict == "deny" or word in _REFUSED
            ):  # an error of Linux's own (ENOENT) is nobody's refusal
                denied[op, load_text(path), load_text(rule)] += 1
                refusals[int(at)] += 1
            if prompt:
                otherwise = "missed" if word == "gone" else "denied" if verdict == "deny" else "allowed"
                asked[prompt] = _REFUSED.get(word, otherwise)
            if op in ("connect", "resolve", "request") and path[:1] not in ("/", "@"):
                hosts[_host(op, load_text(path))] += 1
            elif op in _FILES:
                where = load_text(path2 if op in ("rename", "link") and path2 else path)
                if where.startswith(_NO_FILES):
                    continue
                directories[dirname(where)] += 1
                if not done:
                    continue
                if op == "delete":
                    changed.paths.pop(where, None)
                    if (
                        where not in made
                    ):  # what the session made itself and removed again is no file of anybody's
                        deleted.paths[where] = None
                elif op in _WRITES:
                    changes[dirname(where)] += 1
                    if op == "create" and where not in deleted.paths:
                        made.add(where)
                    elif op == "rename":
                        changed.paths.pop(load_text(path), None)
                    changed.paths[where] = None
                    deleted.paths.pop(where, None)
    except sqlite3.OperationalError:  # interrupted
        at_least = True
    finally:
        db.set_progress_handler(None, 0)
    counted = db.execute("SELECT op, n FROM counts WHERE session = ?", (store_text(session),))
    return {
        "acts": dict(acts),
        "counted": {load_text(op): n for op, n in counted},
        "human": dict(human),
        "changed": changed.view(),
        "deleted": deleted.view(),
        "directories": [
            {"path": path, "acts": n, "changes": changes[path]} for path, n in directories.most_common(TOP)
        ],
        "hosts": [{"host": host, "acts": n} for host, n in hosts.most_common(TOP)],
        "denied": {
            "number": denied.total(),
            "what": [
                {"op": op, "path": path, "rule": rule, "number": n}
                for (op, path, rule), n in denied.most_common(TOP)
            ],
        },
        "asked": {
            "number": len(asked),
            **{end: list(asked.values()).count(end) for end in ("allowed", "denied", "missed")},
        },
        "answers": answers,
        "timeline": _timeline(seconds, refusals, first, last),
        "first": first,
        "last": last,
        "at_least": at_least,
    }


def _host(op: str, resource: str) -> str:
    """Return the host that a network act was about, without port, method and path."""
    if op == "request":
        return (
            resource.partition("://")[2].partition("/")[0].rpartition("@")[2].partition(":")[0] or resource
        )
    host, colon, port = resource.rpartition(":")
    return host if colon and port.isdigit() else resource


def _timeline(
    acts: Counter[int], denied: Counter[int], first: float | None, last: float | None
) -> dict[str, Any]:
    """Return how many acts, and how many refusals, each of at most STEPS equal steps of the session had."""
    if first is None or last is None:
        return {"start": None, "step": 0, "acts": [], "denied": []}
    start = int(first)
    step = max(1, -(-(int(last) - start + 1) // STEPS))

    def columns(counts: Counter[int]) -> list[int]:
        out = [0] * ((int(last) - start) // step + 1)
        for second, n in counts.items():
            out[(second - start) // step] += n
        return out

    return {"start": start, "step": step, "acts": columns(acts), "denied": columns(denied)}


def few_lines(report: dict[str, Any], escape: Any) -> list[str]:
    """Return what a person should hear at the session's end in a few lines: none when there is nothing to say.

    ``escape`` makes an agent's text safe to show.
    """
    lines = []
    least = "at least " if report["at_least"] else ""
    done = [
        f"{least}{report[what]['number']} {_files(report[what]['number'])} {what}"
        for what in ("changed", "deleted")
        if report[what]["number"]
    ]
    if done:
        lines.append(", ".join(done))
    if denied := report["denied"]["number"]:
        some = [
            f"{d['op']} {_short(escape(d['path']))} ({d['number']}x)" for d in report["denied"]["what"][:2]
        ]
        more = " and others" if len(report["denied"]["what"]) > 2 else ""
        lines.append(f"{least}{denied} denied: {', '.join(some)}{more}")
    if number := report["asked"]["number"]:
        ends = ", ".join(
            f"{report['asked'][end]} {end}"
            for end in ("allowed", "denied", "missed")
            if report["asked"][end]
        )
        lines.append(f"{number} asked: {ends}")
    return lines


def _files(number: int) -> str:
    return "files" if number != 1 else "file"


def _short(text: str) -> str:
    return text if len(text) <= TERMINAL_PATH else f"{text[:30]}…{text[30 - TERMINAL_PATH :]}"


def lines(report: dict[str, Any], escape: Any) -> Iterable[str]:
    """Yield the whole report for a terminal, after what is known of the session itself."""
    least = "at least " if report["at_least"] else ""
    acts = (
        ", ".join(f"{n} {op}" for op, n in sorted(report["acts"].items(), key=lambda i: -i[1])) or "nothing"
    )
    yield f"the agent: {least}{acts}"
    if report["counted"]:
        yield "  and, counted only: " + ", ".join(f"{n} {op}" for op, n in report["counted"].items())
    if report["human"]:
        yield "you: " + ", ".join(f"{n} {op}" for op, n in report["human"].items())
    for what in ("changed", "deleted"):
        found = report[what]
        if found["number"]:
            yield f"{what}: {found['number']} {_files(found['number'])}"
            yield from (f"  {escape(path)}" for path in found["paths"])
            if found["number"] > len(found["paths"]):
                yield f"  and {found['number'] - len(found['paths'])} more"
    if report["directories"]:
        yield "most used directories:"
        yield from (f"  {d['acts']:6} {escape(d['path'])}" for d in report["directories"])
    if report["hosts"]:
        yield "hosts:"
        yield from (f"  {h['acts']:6} {escape(h['host'])}" for h in report["hosts"])
    if report["denied"]["number"]:
        yield f"denied: {report['denied']['number']}"
        yield from (
            f"  {d['number']:6} {d['op']} {escape(d['path'])}  by {escape(d['rule'])}"
            for d in report["denied"]["what"]
        )
    if report["asked"]["number"]:
        asked = report["asked"]
        yield f"asked: {asked['number']}: " + ", ".join(
            f"{asked[e]} {e}" for e in ("allowed", "denied", "missed")
        )
    yield from (f"  {a['prompt']}: {escape(a['rule'])}" for a in report["answers"])
