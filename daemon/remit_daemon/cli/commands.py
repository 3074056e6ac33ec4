"""The commands that ask remitd: one function each, in one table.

Exit status: 0 done or allowed, 1 a negative answer, 2 wrong use, 3 no daemon. What an agent may have chosen is
escaped on the terminal; ``--json`` prints what remitd said.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from remit_daemon.cli import grants_cmd
from remit_daemon.cli.client import NEGATIVE, OK, USAGE, Client, NoDaemon, RpcError, approver, failed
from remit_daemon.cli.log_cmd import format_entry, format_who
from remit_daemon.cli.options import Parser, Wrong, none
from remit_daemon.cli.who_cmd import subject_of, title
from remit_daemon.wire.escape import escape
from remit_daemon.wire.paths import PathsError, find
from remit_daemon.wire.words import NO_RULE, OUTSIDE, moment_text, span, verbs

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_FOLLOW = 0.5


def _say(text: str) -> None:
    # Bytes of a path that are no UTF-8 were escaped before; what is left must not stop us.
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")
    sys.stdout.flush()


def _json(value: object) -> None:
    _say(json.dumps(value))


def seconds(text: str) -> int:
    """Return the seconds that ``text`` (90s, 30m, 2h, 7d, or bare seconds) stands for. Raises ValueError."""
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    if not number.isascii() or not number.isdigit():
        raise ValueError(f"{text!r} is no time; write 90s, 30m, 2h or 7d")
    return int(number) * _UNITS[unit]


def moment(text: str, now: float) -> float:
    """Return the time that ``text`` means: epoch seconds, a time ago (2h), a day or a date, local. Raises ValueError."""
    try:
        return now - seconds(text) if text[-1:] in _UNITS else float(text)
    except ValueError:
        pass
    if text in ("today", "yesterday"):
        day = time.localtime(now)
        return time.mktime((*day[:2], day.tm_mday - (text == "yesterday"), 0, 0, 0, 0, 0, -1))
    for form in ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%H:%M"):
        try:
            found = time.strptime(text, form)
        except ValueError:
            continue
        if form == "%H:%M":
            day = time.localtime(now)
            return time.mktime((*day[:3], found.tm_hour, found.tm_min, 0, 0, 0, -1))
        return time.mktime((*found[:6], 0, 0, -1))
    raise ValueError(f"{text!r} is no time; write 2h, yesterday, 18:00, 2026-01-31 or '2026-01-31 18:00'")


def _status(client: Client, args: argparse.Namespace) -> int:
    found = client.call("status")
    if args.json:
        _json(found)
        return OK
    _say(f"remitd {found['version']}, process {found['pid']}")
    sessions, prompts, rows = found["sessions"], found["prompts"], found["ledger"]["rows"]
    _say(
        f"{sessions} session{'s' * (sessions != 1)}, {prompts} prompt{'s wait' if prompts != 1 else ' waits'},"
        f" {rows} rows in the ledger"
    )
    for text in found["limits"]:
        _say(f"limit: {escape(text)}")
    for name in found["agents"]["pending"]:
        _say(f"{escape(name)}'s program has changed: what it was granted waits (remit agent update)")
    if adopted := found["agents"]["adopted"]:
        _say(f"adopted, and unconfined: process{'es' * (len(adopted) > 1)} {', '.join(map(str, adopted))}")
    if found["senders"] != "pidfd":
        _say("who writes to remit's sockets is told by process number alone: this kernel does not say more")
    if found["quiet"]:
        _say(grants_cmd.quiet_line(found["quiet"]))
    if found["review"]["due"]:
        n, out = found["review"]["due"], found["review"]["suspended"]
        suspended = f", {out} of them suspended" if out else ""
        _say(f"{n} grant{'s want' if n != 1 else ' wants'} a look{suspended}: `remit review`")
    for e in found["policy"]["errors"]:
        _say(f"policy: {escape(str(e['file']))}:{e['line']}:{e['column']}: {escape(e['message'])}")
    if found["policy"]["errors"]:
        _say("the last good policy stays in force")
    return OK


def _sessions(client: Client, args: argparse.Namespace) -> int:
    found = client.call("sessions")
    if args.json:
        _json(found)
        return OK
    shown = [s for s in found if args.all or s["ended"] is None]
    if not shown:
        none("no session runs; --all lists those that ended" if found else "no session yet")
    for s in shown:
        state = s["state"] if s["status"] is None else f"{s['state']} with {s['status']}"
        extra = f", {s['waiting']} waiting" if s["waiting"] else ""
        extra += ", network unmediated" if s["net_all"] else ""
        extra += f", {s['assurance']}"
        extra += f", ask={s['ask']}" if s["ask"] != "prompt" else ""
        extra += "" if s["confined"] else ", unconfined"
        _say(
            f"{s['id']}  {escape(s['agent'])}  {state}{extra}  {moment_text(s['started'])}  {escape(s['project'])}"
        )
    return OK


def _session(client: Client, args: argparse.Namespace) -> int:
    from remit_daemon.ledger.report import lines

    found = client.call("report", {"session": args.session})
    if args.json:
        _json(found)
        return OK
    ended = "runs" if found["ended"] is None else f"ended with {found['status']}"
    took = span((found["ended"] or time.time()) - found["started"])
    _say(f"{found['session']}  {escape(found['agent'])}  {moment_text(found['started'])}, {took}, {ended}")
    _say("  " + " ".join(map(escape, found["argv"])))
    _say("  in " + escape(found["project"]))
    for line in lines(found, escape):
        _say(line)
    return OK


def _learn(client: Client, args: argparse.Namespace) -> int:
    from remit_daemon.cli import learn_cmd

    return learn_cmd.learn(client, args)


def _steer(name: str) -> Callable[[Client, argparse.Namespace], int]:
    def command(client: Client, args: argparse.Namespace) -> int:
        result = client.call(name, {"session": args.session})
        if args.json:
            _json(result)
        return OK

    return command


# Kinds of files that a person should be told of.
NOTEWORTHY = {
    "key": "a key, or a store of keys",
    "credential": "a credential",
    "history": "a history of what was typed",
    "later": "run later, outside the session",
}


def describe_prompt(p: dict[str, Any]) -> str:
    """Return a prompt as lines: every text of an agent's choosing escaped, none shortened."""
    what = f"{escape(p['agent'])} wants to {', '.join(map(escape, verbs(p['ops'])))} {escape(p['path'])}"
    if p["path2"]:
        what += f" -> {escape(p['path2'])}"
    where = f"session {p['session']}, project {escape(p['project'])}" if p["session"] else OUTSIDE
    answer = f" ({p['answer']['verdict']} by {p['answer']['by']})" if p["answer"] else ""
    lines = [
        f"{p['id']}  {p['state']}{answer}  {span(time.time() - p['created'])} ago, asked {p['count']}x, {p['holding']} waiting",
        f"    {what}",
        f"    program {escape(p['exe'])} (process {p['pid']}), {where}",
        f"    because of {escape(p['source'])}" if p["source"] != "default" else f"    because {NO_RULE}",
    ]
    if not p["confined"]:
        lines.insert(2, "    unconfined: it is told your answer, and nothing holds it to that")
    if p["chain"]:
        lines.append(
            "    started by " + ", by ".join(f"{escape(c['comm'])} ({c['pid']})" for c in p["chain"])
        )
    known = [f"{n}x {how}" for how, n in p["before"].items() if n]
    if known:
        lines.append("    asked before: " + ", ".join(known))
    if p["kind"] in NOTEWORTHY:
        lines.append(f"    this is {NOTEWORTHY[p['kind']]}")
    if p["argv"]:
        lines.insert(
            2, "    command " + " ".join(escape(a) if " " not in a else f'"{escape(a)}"' for a in p["argv"])
        )
    lines[2:2] = [f"    {f['label']} {escape(f['text'])}" for f in p["facts"]]
    if p.get("limit"):
        lines.append(f"    limit {escape(p['limit'])}")
    lines += [
        f"    scope {i}: {escape(s['scope'])}  ({escape(s['label'])})" for i, s in enumerate(p["scopes"], 1)
    ]
    if p["purpose"]:
        lines.append(f"    it claims: {escape(p['purpose'])}")
    return "\n".join(lines)


def _prompts(client: Client, args: argparse.Namespace) -> int:
    if args.watch:
        from remit_daemon.cli import watch

        return watch.run(client, json_out=args.json)
    found = client.call("prompts", {"all": args.all, "missed": args.missed})
    if args.json:
        _json(found)
        return OK
    for p in found:
        _say(describe_prompt(p))
    if not found:
        none("no prompt was missed" if args.missed else "nothing waits")
    return OK


def _answer(client: Client, args: argparse.Namespace) -> int:
    duration: str | int = args.duration
    if duration not in ("once", "session", "always"):
        duration = seconds(args.duration)
    scope = args.scope
    if scope.isdigit():
        scopes = client.call("prompt", {"id": args.id})["scopes"]
        if not 1 <= int(scope) <= len(scopes):
            raise Wrong(f"prompt {args.id} offers scopes 1 to {len(scopes)}")
        scope = scopes[int(scope) - 1]["scope"]
    params = {
        "id": args.id,
        "verdict": args.verdict,
        "for": duration,
        "scope": scope,
        "message": args.message,
        "via": "cli",
    }
    if args.preview:
        del params["message"], params["via"]
        result = client.call("preview", params)
    else:
        result = client.call("answer", params)
    if args.json:
        _json(result)
    else:
        _say(escape(result["rule"]))
        if args.preview and args.verdict == "allow":
            for line in reach_lines(client.call("reach", {"id": args.id, "scope": scope})):
                _say(line)
        others = [i for i in result.get("settled", ()) if i != args.id]
        if result.get("grant"):
            _say(f"remembered as {result['grant']}; `remit revoke {result['grant']}` takes it back")
        if others:
            _say(f"this settled {', '.join(others)} as well")
    return OK


def reach_lines(found: dict[str, Any]) -> list[str]:
    """Return what else a scope would permit, as lines."""
    lines = []
    past, disk = found["ledger"], found["disk"]
    if past["number"]:
        least = "at least " if past["at_least"] else ""
        lines.append(
            f"it would have allowed {least}{past['number']} act{'s' * (past['number'] != 1)} of the last 30 days"
        )
    if disk is not None:
        least = "at least " if disk["at_least"] else ""
        lines.append(
            f"it is about {least}{disk['number']} file{'s' * (disk['number'] != 1)} that are there now"
        )
        lines += [f"    among them {escape(path)}" for path in disk["secrets"]]
    return lines


def _revoke(client: Client, args: argparse.Namespace) -> int:
    chosen = {"id": args.id, "agent": args.agent, "all": args.all}
    params = {k: v for k, v in chosen.items() if v}
    if len(params) != 1:
        raise Wrong("revoke takes a grant's id, --agent NAME or --all")
    result = client.call("revoke", params)
    if args.json:
        _json(result)
    else:
        _say("revoked: " + (", ".join(result["revoked"]) or "nothing"))
    return OK


def _limits(client: Client, args: argparse.Namespace) -> int:
    found = client.call("limits", {"agent": args.agent} if args.agent else {})
    if args.json:
        _json(found)
        return OK
    if not found:
        none("no limit is set")
    for one in found:
        part = int(100 * one["used"] / one["amount"])
        of = f"session {one['session']} of " if one["session"] else ""
        _say(f"{of}{escape(one['agent'])}  {escape(one['limit'])}  {part} %")
        _say(f"    {escape(one['text'])}; {escape(one['source'])}")
    return OK


def _filter(args: argparse.Namespace) -> dict[str, Any]:
    now = time.time()
    names = ("actor", "agent", "session", "op", "outcome", "host", "rule", "denied")
    out: dict[str, Any] = {n: v for n in names if (v := getattr(args, n))}
    if args.path:
        out["path"] = os.path.abspath(args.path)
    for name in ("since", "until"):
        if getattr(args, name):
            out[name] = moment(getattr(args, name), now)
    if args.limit is not None:
        out["limit"] = args.limit
    return out


def _entries(found: list[dict[str, Any]], json_out: bool) -> None:
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for entry in found:
        if json_out:
            _json(entry)
        else:
            _say(format_entry(entry, colour=colour))


def _log(client: Client, args: argparse.Namespace) -> int:
    if args.what == "verify":
        return _verify(client, args)
    wanted = _filter(args)
    if args.what == "export":
        return _export(client, args, wanted)
    if args.follow:
        client.call("watch", {"log": {k: v for k, v in wanted.items() if k != "limit"}})
    found = client.call("log", wanted)
    if args.json and not args.follow:
        _json(found)
        return OK
    _entries(found, args.json)
    if not (found or args.follow):
        none("nothing recorded that matches")
    last = found[-1]["seq"] if found else 0
    while args.follow:
        message = client.notification(None)
        if message and message.get("method") == "entry" and message["params"]["seq"] > last:
            last = message["params"]["seq"]
            _entries([message["params"]], args.json)
    return OK


def _verify(client: Client, args: argparse.Namespace) -> int:
    report = client.call("log.verify")
    if args.json:
        _json(report)
    elif report["ok"]:
        _say(f"the ledger is whole: {report['rows']} rows, {report['checkpoints']} checkpoints")
    else:
        _say("THE LEDGER IS DAMAGED")
        for error in report["errors"]:
            _say("  " + escape(error))
    return OK if report["ok"] else NEGATIVE


def _export(client: Client, args: argparse.Namespace, wanted: dict[str, Any]) -> int:
    from remit_daemon.ledger.export import lines
    from remit_daemon.ledger.queries import Filter
    from remit_daemon.ledger.schema import LedgerError, open_reader

    client.call("log", {"limit": 1})  # so that the journals have been read
    try:
        db = open_reader(find().ledger)
    except LedgerError as e:
        sys.stderr.write(f"remit: {e}\n")
        return USAGE
    try:
        for line in lines(db, args.format, Filter.of(wanted), host=os.uname().nodename):
            _say(line)
    finally:
        db.close()
    return OK


def _who(client: Client, args: argparse.Namespace) -> int:
    asked = subject_of(args.subject)
    found = client.call("who", asked)
    if args.json:
        _json(found)
    else:
        subject = title(args.subject, asked)
        _say(format_who(found, subject, colour=sys.stdout.isatty() and not os.environ.get("NO_COLOR")))
    return OK


def _denials(client: Client, args: argparse.Namespace) -> int:
    params = {"limit": args.limit}
    if args.session and not os.environ.get("REMIT_SOCKET"):
        params["session"] = args.session
    found = client.call("denials", params)
    if args.json:
        _json(found)
    else:
        _entries(found, False)
        if not found:
            none("nothing was refused")
    return OK


def _trust(client: Client, args: argparse.Namespace) -> int:
    from hashlib import sha256

    directory = os.path.realpath(args.dir)
    path = os.path.join(directory, ".remit.toml")
    try:
        with open(path, "rb") as f:
            data = f.read()
    except OSError as e:
        sys.stderr.write(f"remit: cannot read {escape(path)}: {e.strerror}\n")
        return USAGE
    digest = sha256(data).hexdigest()
    client.call("trust", {"dir": directory, "digest": digest})
    if args.json:
        _json({"dir": directory, "digest": digest})
        return OK
    _say(f"{escape(path)} (sha256 {digest}) now narrows what agents may do in this project:")
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        _say("  " + escape(line))
    return OK


def _reload(client: Client, args: argparse.Namespace) -> int:
    found = client.call("reload")
    if args.json:
        _json(found)
    for e in found["errors"]:
        if not args.json:
            _say(f"{escape(str(e['file']))}:{e['line']}:{e['column']}: {escape(e['message'])}")
    return USAGE if found["errors"] else OK


Command = Callable[[Client, argparse.Namespace], int]

# name → (what serves it, whether a daemon is started for it)
COMMANDS: dict[str, tuple[Command, bool]] = {
    "status": (_status, False),
    "sessions": (_sessions, False),
    "session": (_session, True),
    "stop": (_steer("stop"), False),
    "pause": (_steer("pause"), False),
    "resume": (_steer("resume"), False),
    "prompts": (_prompts, False),
    "answer": (_answer, True),
    "grants": (grants_cmd.grants, True),
    "grant": (grants_cmd.grant, True),
    "review": (grants_cmd.review, True),
    "quiet": (grants_cmd.quiet, True),
    "learn": (_learn, True),
    "revoke": (_revoke, True),
    "limits": (_limits, True),
    "log": (_log, True),
    "who": (_who, True),
    "denials": (_denials, True),
    "trust": (_trust, True),
    "reload": (_reload, False),
}


# What --help says of each.
_ABOUT = {
    "status": "Say whether remitd runs, and what wants your attention.",
    "sessions": "List the sessions that run.",
    "session": "Show what a session did: files, hosts, denials, prompts and your answers.",
    "stop": "End a session and every process of it.",
    "pause": "Halt every process of a session.",
    "resume": "Let a paused session go on.",
    "prompts": "List the prompts that wait for your answer.",
    "answer": "Answer a prompt.",
    "grants": "List what you allowed for longer than once.",
    "grant": "Change a grant: narrow ID SCOPE, extend ID TIME, or keep ID.",
    "review": "Go through the grants that want a look. Exit status 1 while there are any and nobody can be asked.",
    "quiet": "Be left in peace for a while: prompts are held, or denied. Without arguments: say whether that is so.",
    "learn": "Propose rules from what a session started with `remit run --learn` was let through with.",
    "revoke": "Take grants back.",
    "limits": "Show what agents have spent of their limits.",
    "log": "Show the ledger, the last 1000 rows that match; verify finds changes to it, export writes it all.",
    "who": "Say who did it: you, or which agent for you.",
    "denials": "List what was refused, and by which rule. Inside a session: its own.",
    "trust": "Accept a project's .remit.toml as it is now; it can only narrow.",
    "reload": "Read the policy files anew, now.",
}


def _parser(name: str) -> Parser:
    p = Parser(prog=f"remit {name}", description=_ABOUT[name])
    if name == "sessions":
        p.add_argument("--all", action="store_true", help="those that ended as well")
    elif name == "session":
        p.add_argument("what", choices=("show",))
        p.add_argument("session", metavar="ID")
    elif name in ("stop", "pause", "resume", "learn"):
        p.add_argument("session", metavar="ID", help="as `remit sessions` lists it")
    elif name == "prompts":
        p.add_argument("--all", action="store_true", help="the missed and settled as well")
        p.add_argument(
            "--missed",
            action="store_true",
            help="those that nobody answered; `answer ID VERDICT --for always` makes a rule of one",
        )
        p.add_argument("--watch", action="store_true", help="show and answer them as they come")
    elif name == "answer":
        p.add_argument("id", metavar="ID", help="as `remit prompts` lists it")
        p.add_argument("verdict", choices=("allow", "deny"))
        p.add_argument(
            "--for", dest="duration", default="once", help="once, session, always, or a time such as 2h"
        )
        p.add_argument("--scope", default="", help="a pattern, or the number of an offered scope")
        p.add_argument("--message", default="", help="what to tell the agent")
        p.add_argument("--preview", action="store_true", help="only show the rule that would be stored")
    elif name == "grant":
        p.add_argument("action", choices=("narrow", "extend", "keep"))
        p.add_argument("id", metavar="ID", help="as `remit grants` lists it")
        p.add_argument(
            "value",
            nargs="?",
            default="",
            metavar="SCOPE|TIME",
            help="what to narrow to, or how long from now it is to last",
        )
    elif name == "quiet":
        p.add_argument("time", nargs="?", default="", metavar="TIME|off", help="for how long, such as 30m")
        p.add_argument("mode", nargs="?", choices=("deny", "hold"), default="hold")
    elif name == "revoke":
        p.add_argument(
            "id", nargs="?", default="", metavar="ID", help="one grant, as `remit grants` lists it"
        )
        p.add_argument("--agent", default="", metavar="NAME", help="all that this agent was granted")
        p.add_argument("--all", action="store_true", help="every grant there is")
    elif name == "limits":
        p.add_argument("--agent", default="", help="only those of this agent")
    elif name == "log":
        p.add_argument("what", nargs="?", choices=("show", "verify", "export"), default="show")
        p.add_argument("--actor", choices=("human", "agent", "remit"), default="", help="who acted")
        for option, value, text in (
            ("agent", "NAME", "only this agent's, and what it did for others"),
            ("session", "ID", "only this session's"),
            ("path", "PATH", "only what is about this path or below it"),
            ("op", "OP", "only this operation: read, write, connect, commit…"),
            ("outcome", "WORD", "only what ended so: ok, passed, denied, expired, ENOENT…"),
            ("host", "HOST", "only what is about this host"),
            ("rule", "FILE:LINE", "only what this rule decided"),
            ("since", "TIME", "from then on: 2h (ago), yesterday, 18:00, 2026-01-31"),
            ("until", "TIME", "before then"),
        ):
            p.add_argument(f"--{option}", default="", metavar=value, help=text)
        p.add_argument("--denied", action="store_true", help="only what was refused")
        p.add_argument("--limit", type=int, metavar="N", help="so many rows at most, the last ones")
        p.add_argument(
            "--follow", "-f", action="store_true", help="go on with what is recorded from now on"
        )
        p.add_argument("--format", choices=("jsonl", "ocsf"), default="jsonl", help="of export")
    elif name == "who":
        p.add_argument("subject", metavar="PATH|PID|BUSNAME|COMMIT")
    elif name == "denials":
        p.add_argument("--session", default="", metavar="ID", help="only this session's")
        p.add_argument("--limit", type=int, default=100, metavar="N", help="so many at most, the last ones")
    elif name == "trust":
        p.add_argument(
            "dir", nargs="?", default=".", metavar="DIR", help="the project; else the current directory"
        )
    return p


def run(name: str, args: list[str], json_out: bool) -> int:
    """Run the command ``name`` (a key of COMMANDS) with ``args``; returns the exit status."""
    command, start = COMMANDS[name]
    try:
        options = _parser(name).parse_args(args)
        options.json = json_out
        inside = os.environ.get("REMIT_SOCKET", "") if name == "denials" else ""
        client = Client(inside) if inside else approver(start=start)
        return command(client, options)
    except SystemExit as e:  # argparse's --help
        return int(e.code or 0)
    except (ValueError, NoDaemon, PathsError, RpcError) as e:
        return failed(name, e, json_out=json_out)
