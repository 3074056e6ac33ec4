"""``remit token``: a program's own token inside a session; seeing, issuing and revoking them outside.

A token is read from standard input unless it stands on the command line, which every program of the machine can read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

from remit_daemon.cli.client import NEGATIVE, OK, Client, NoDaemon, RpcError, approver, failed
from remit_daemon.cli.options import Parser, none
from remit_daemon.wire.escape import escape
from remit_daemon.wire.paths import PathsError


def _parser(inside: bool) -> Parser:
    top = Parser(prog="remit token")
    subs = top.add_subparsers(dest="what", required=True, metavar="COMMAND")

    def wanted(p: Parser) -> None:
        p.add_argument("--scope", default="", help="names of scopes and roles, separated by blanks")
        p.add_argument(
            "--detail", action="append", default=[], metavar="TYPE:ACTION[,ACTION]=LOCATION",
            help="what for, as in files:read,write=/home/me/project/**; may be repeated",
        )  # fmt: skip

    p = subs.add_parser("issue", help="this session's token" if inside else "a token for a process")
    wanted(p)
    p.add_argument("--audience", default="")
    if not inside:
        p.add_argument("--agent", required=True, help="in whose name it acts")
        p.add_argument("--pid", type=int, required=True, help="the process that alone may present it")
    if inside:
        p = subs.add_parser("request", help="one that policy asks a person about; waits for the answer")
        wanted(p)
        p.add_argument("--audience", default="")
        p = subs.add_parser("refresh", help="another, for the refresh handle that came with one")
        p.add_argument("token", nargs="?", default="-", metavar="handle")
        p = subs.add_parser("exchange", help="a narrower one for a sub-agent")
        p.add_argument("token", nargs="?", default="-")
        p.add_argument("--agent", required=True)
        wanted(p)
    for name, text in (
        ("introspect", "what a token says, and whether it is good"),
        ("revoke", "end one, and all made from it"),
    ):
        p = subs.add_parser(name, help=text)
        p.add_argument("token", nargs="?", default="-")
        if name == "revoke" and not inside:
            p.add_argument("--jti", default="")
            p.add_argument("--grant", default="")
    if not inside:
        subs.add_parser("list", help="those that are good now")
        subs.add_parser("scopes", help="what there is to grant")
    return top


def details(texts: list[str]) -> list[dict[str, Any]]:
    """Return ``authorization_details`` of TYPE:ACTION[,ACTION]=LOCATION texts. Raises ValueError."""
    out = []
    for text in texts:
        what, equals, location = text.partition("=")
        kind, colon, actions = what.partition(":")
        if not (colon and kind and actions) or (equals and not location):
            raise ValueError(f"--detail {text!r}: TYPE:ACTION[,ACTION]=LOCATION is expected")
        out.append(
            {"type": kind, "actions": actions.split(",")} | ({"locations": [location]} if location else {})
        )
    return out


def _token(args: argparse.Namespace) -> str:
    return str(args.token) if args.token != "-" else sys.stdin.read().strip()  # noqa: S105 - a dash, for standard input


def _request(args: argparse.Namespace, inside: bool) -> tuple[str, dict[str, Any]]:
    asked: dict[str, Any] = {}
    if args.what in ("issue", "exchange", "request"):
        asked = {"scope": args.scope} if args.scope else {}
        if args.detail:
            asked["authorization_details"] = details(args.detail)
    if args.what == "refresh":
        return "token.refresh", {"refresh_token": _token(args)}
    if args.what in ("issue", "request"):
        asked |= {"audience": args.audience} if args.audience else {}
    if args.what == "request":
        return "token.request", asked
    if args.what == "issue":
        return (
            ("token", asked) if inside else ("token.issue", asked | {"agent": args.agent, "pid": args.pid})
        )
    if args.what == "exchange":
        return "token.exchange", asked | {"subject_token": _token(args), "agent": args.agent}
    if args.what == "revoke" and not inside and (args.jti or args.grant):
        return "token.revoke", {"jti": args.jti} if args.jti else {"grant": args.grant}
    if args.what in ("introspect", "revoke"):
        return f"token.{args.what}", {"token": _token(args)}
    return f"token.{args.what}", {}


def _answered(client: Client, asked: dict[str, Any]) -> Any:
    """Poll as RFC 8628 3.5 has it until a person has answered. Raises RpcError, NoDaemon."""
    print("remit: a person is asked; `remit prompts` shows it outside", file=sys.stderr)
    interval = float(asked["interval"])
    while True:
        time.sleep(interval)
        try:
            return client.call("token.poll", {"request": asked["request"]})
        except RpcError as e:
            if e.oauth == "slow_down":
                interval += 5
            elif e.oauth != "authorization_pending":
                raise


def _show(what: str, found: Any) -> int:
    if what in ("issue", "exchange", "request", "refresh"):
        print(found["access_token"])
        if handle := found.get("refresh_token"):
            print(f"remit: to go on: {handle}", file=sys.stderr)
    elif what == "introspect":
        if not found["active"]:
            print("not active: revoked, expired, another process's, or never issued")
            return NEGATIVE
        chain, act = [], found["act"]
        while act:
            chain.append(act["sub"])
            act = act.get("act")
        left = max(0, int(found["exp"] - time.time()))
        print(f"active for {left} s: {escape(' of '.join(chain))}, on behalf of {escape(found['sub'])}")
        print(f"scope {found['scope']}")
        for detail in found["authorization_details"]:
            print(
                f"  {detail['type']}:{','.join(detail['actions'])} {escape(' '.join(detail.get('locations', ['all that policy allows'])))}"
            )
    elif what == "revoke":
        gone = found.get("revoked")
        print("revoked" if gone is None else f"{len(gone)} revoked")
        return OK if gone is None or gone else NEGATIVE
    elif what == "list":
        if not found:
            none("no token is good now")
        for t in found:
            print(
                f"{t['jti']}  {escape(t['agent'])}  until {time.strftime('%H:%M:%S', time.localtime(t['expires']))}  {t['scope']}"
            )
    else:
        for name, scope in found["scopes"].items():
            only = "; an administrator's to grant" if scope["sensitive"] else ""
            print(f"{name:16} {scope['access']:5} {scope['risk']:6} it may {scope['sentence']}{only}")
        for name, words in found["roles"].items():
            print(f"{name:16} role         {' '.join(words)}")
    return OK


def run(args: list[str], *, json_out: bool) -> int:
    """Run the command; returns the exit status."""
    inside = os.environ.get("REMIT_SOCKET", "")
    try:
        options = _parser(bool(inside)).parse_args(args)
        method, params = _request(options, bool(inside))
        client = Client(inside) if inside else approver(start=True)
        found = client.call(method, params)
        if method == "token.request" and "request" in found:
            found = _answered(client, found)
    except SystemExit as e:  # argparse's --help
        return int(e.code or 0)
    except (ValueError, PathsError, NoDaemon, RpcError) as e:
        return failed("token", e, json_out=json_out)
    if json_out:
        print(json.dumps(found))
        return NEGATIVE if options.what == "introspect" and not found["active"] else OK
    return _show(options.what, found)
