"""``remit agent`` and ``remit adopt``: the agents that are known by name, and what each was seen to run."""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

from remit_daemon.cli.client import OK, NoDaemon, RpcError, approver, failed
from remit_daemon.cli.options import Parser, none
from remit_daemon.wire.escape import escape
from remit_daemon.wire.paths import PathsError
from remit_daemon.wire.words import LEVELS


def _agent_parser() -> Parser:
    top = Parser(prog="remit agent")
    subs = top.add_subparsers(dest="what", required=True, metavar="COMMAND")
    subs.add_parser("list", help="the agents that are known by name")
    subs.add_parser("show", help="what one was seen to run").add_argument("name")
    p = subs.add_parser("register", help="say that a program is this agent's")
    p.add_argument("name")
    one = p.add_mutually_exclusive_group(required=True)
    one.add_argument("--pid", type=int, help="the program that this process runs")
    one.add_argument("--exe", help="the program at this path")
    p.add_argument("--script", default="", help="with --exe, an interpreter: the script that it runs")
    p = subs.add_parser("update", help="what it was granted before its program changed: keep it or not")
    p.add_argument("name")
    word = p.add_mutually_exclusive_group(required=True)
    word.add_argument("--keep", action="store_true")
    word.add_argument("--drop", action="store_true")
    subs.add_parser("forget", help="the name, and what was granted to it").add_argument("name")
    return top


def _adopt_parser() -> Parser:
    p = Parser(
        prog="remit adopt",
        description="Call a running process an agent's until it ends. It is not confined by that: remit then tells who it is, no more.",
    )  # fmt: skip
    p.add_argument("pid", type=int, metavar="PID")
    p.add_argument("--agent", default="", help="the name; needed unless its program is known under one")
    return p


def _request(name: str, args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    if name == "adopt":
        return "adopt", {"pid": args.pid} | ({"agent": args.agent} if args.agent else {})
    if args.what == "list":
        return "agents", {}
    if args.what == "show":
        return "agent", {"name": args.name}
    if args.what == "update":
        return "agent.update", {"name": args.name, "keep": args.keep}
    if args.what == "forget":
        return "agent.forget", {"name": args.name}
    if args.pid:
        if args.script:
            raise ValueError("--script goes with --exe")
        return "agent.register", {"name": args.name, "pid": args.pid}
    params = {"name": args.name, "exe": os.path.abspath(args.exe)}
    return "agent.register", params | ({"script": os.path.abspath(args.script)} if args.script else {})


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _line(agent: dict[str, Any]) -> str:
    programs = agent["programs"]
    now = f"{programs[0]['digest'][:12]}  {escape(programs[0]['path'])}" if programs else "-"
    extra = f"  {agent['grants']} granted" if agent["grants"] else ""
    extra += "  ITS PROGRAM CHANGED: remit agent update" if agent["pending"] else ""
    extra += "  adopted: " + " ".join(map(str, agent["adopted"])) if agent["adopted"] else ""
    return f"{escape(agent['name'])}  {now}{extra}"


def _answers(grants: list[str]) -> str:
    return f"{len(grants)} remembered answer{'s' * (len(grants) != 1)}"


def _show(agent: dict[str, Any]) -> None:
    print(_line(agent))
    for p in agent["programs"]:
        print(f"  sha256 {p['digest']}  {escape(p['path'])}")
        by = f", run by {p['interpreter_digest'][:12]}" if p["interpreter_digest"] else ""
        note = f", {escape(p['publisher'])}" if p["publisher"] else ""
        print(f"    {p['how']} {_day(p['first_seen'])}, last seen {_day(p['last_seen'])}{by}{note}")


def run(name: str, args: list[str], *, json_out: bool) -> int:
    """Run the command ``name``, agent or adopt; returns the exit status."""
    parser = _agent_parser() if name == "agent" else _adopt_parser()
    try:
        options = parser.parse_args(args)
        found = approver(start=True).call(*_request(name, options))
    except SystemExit as e:  # argparse's --help
        return int(e.code or 0)
    except (ValueError, PathsError, NoDaemon, RpcError) as e:
        return failed(name, e, json_out=json_out)
    if json_out:
        print(json.dumps(found))
    elif name == "adopt":
        print(f"process {found['pid']} is {escape(found['agent'])} until it ends; {found['note']}")
        print(f"{found['assurance']}: {LEVELS[found['assurance']]}; {escape(found['program'])}")
    elif options.what == "list":
        for agent in found:
            print(_line(agent))
        if not found:
            none("no agent is known by name yet")
    elif options.what in ("show", "register"):
        _show(found)
    elif options.what == "forget":
        print(f"forgotten, with {_answers(found['revoked'])}")
    else:
        word = "kept" if options.keep else "dropped"
        print(f"{_answers(found[word])} {word}")
    return OK
