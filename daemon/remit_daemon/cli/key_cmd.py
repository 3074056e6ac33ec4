"""``remit key``: organisation keys, for programs that nobody can approve each time."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from remit_daemon.cli.client import OK, NoDaemon, RpcError, approver, failed
from remit_daemon.cli.options import Parser, none
from remit_daemon.cli.token_cmd import details
from remit_daemon.wire.escape import escape
from remit_daemon.wire.paths import PathsError
from remit_policy.values import parse_duration, parse_rate


def _parser() -> Parser:
    top = Parser(prog="remit key")
    subs = top.add_subparsers(dest="what", required=True, metavar="COMMAND")
    p = subs.add_parser("create", help="make a key; it is shown this once")
    p.add_argument("--name", required=True, help="in whose name its tokens act")
    p.add_argument("--scope", default="", help="names of scopes and roles, separated by blanks")
    p.add_argument(
        "--detail", action="append", default=[], metavar="TYPE:ACTION[,ACTION]=LOCATION", help="what for; may be repeated"
    )  # fmt: skip
    p.add_argument("--audience", default="")
    p.add_argument("--expires", default="", metavar="90d", help="its end")
    p.add_argument("--review", default="", metavar="30d", help="until when a person looks at it again")
    p.add_argument("--rate", default="", metavar="30/min", help="how often it is used at most")
    subs.add_parser("list", help="the keys, and when each was last used")
    p = subs.add_parser("review", help="it was looked at, and stays")
    p.add_argument("id")
    p.add_argument("again", metavar="30d", help="until when it is looked at again")
    p = subs.add_parser("revoke", help="end a key, and every token made with it")
    p.add_argument("id")
    return top


def _request(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    if args.what == "create":
        if not (args.expires or args.review):
            raise ValueError(
                "a key needs an end (--expires 90d) or a date to look at it again (--review 30d)"
            )
        asked: dict[str, Any] = {"name": args.name}
        for name in ("scope", "audience"):
            if getattr(args, name):
                asked[name] = getattr(args, name)
        if args.detail:
            asked["authorization_details"] = details(args.detail)
        for name in ("expires", "review"):
            if text := getattr(args, name):
                asked[name + "_in"] = _seconds(f"--{name}", text)
        if args.rate:
            asked["rate"] = list(_parsed("--rate", args.rate, parse_rate))
        return "key.create", asked
    if args.what == "review":
        return "key.review", {"id": args.id, "review_in": _seconds("the time", args.again)}
    return f"key.{args.what}", {"id": args.id} if args.what == "revoke" else {}


def _parsed(what: str, text: str, parse: Any) -> Any:
    try:
        return parse(text)
    except ValueError:
        raise ValueError(
            f"{what} {text!r}: a number and a unit are expected, as in 90d or 30/min"
        ) from None


def _seconds(what: str, text: str) -> int:
    return int(_parsed(what, text, parse_duration))


def _day(seconds: float | None) -> str:
    return "never" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _line(key: dict[str, Any]) -> str:
    ends = f"expires {_day(key['expires'])}" if key["expires"] else ""
    review = f"review by {_day(key['review'])}" if key["review"] else ""
    dates = ", ".join(d for d in (ends, review) if d)
    state = "" if key["state"] == "good" else f"  NO GOOD: {key['state']}"
    uses, seconds = key["rate"]
    what = key["scope"] or " ".join(
        f"{d['type']}:{','.join(d['actions'])}" for d in key["authorization_details"]
    )
    return (
        f"{key['id']}  {escape(key['name'])}{state}  {escape(what)}\n"
        f"    {dates}, at most {uses} times in {seconds} s, used {key['uses']} times, last {_day(key['last_used'])}"
    )


def _show(what: str, found: Any) -> None:
    if what == "create":
        print(found["key"])
        print(f"remit: {found['id']}; it is not shown again", file=sys.stderr)
    elif what == "list":
        for key in found:
            print(_line(key))
        if not found:
            none("there is no key")
    elif what == "review":
        print(_line(found))
    else:
        print(f"revoked, with {found['tokens']} token{'' if found['tokens'] == 1 else 's'}")


def run(args: list[str], *, json_out: bool) -> int:
    """Run the command; returns the exit status."""
    try:
        options = _parser().parse_args(args)
        method, params = _request(options)
        found = approver(start=True).call(method, params)
    except SystemExit as e:  # argparse's --help
        return int(e.code or 0)
    except (ValueError, PathsError, NoDaemon, RpcError) as e:
        return failed("key", e, json_out=json_out)
    if json_out:
        print(json.dumps(found))
    else:
        _show(options.what, found)
    return OK
