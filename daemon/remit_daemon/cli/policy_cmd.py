"""``remit policy``: check, why, show, schema and test. It needs no daemon: it reads the files itself.

Exit status: 0 done, or allowed; 1 denied or asked for, or a test that failed; 2 wrong use or a broken policy.
"""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections.abc import Callable
from typing import Any

from remit_daemon.supervisor import unix
from remit_policy import hosts
from remit_policy.document import PolicyError, Problem
from remit_policy.engine import Engine
from remit_policy.explain import explain, explain_text, explain_view, rule_line, rule_view, shown
from remit_policy.layers import PolicyDirs, PolicySet, check_file, load, read_source
from remit_policy.match import PatternError
from remit_policy.model import ADMIN, ALLOW, DENY, LAYERS, OPS, PACK, USER, VERDICTS, Decision, Snapshot
from remit_policy.reading import read_bytes, syntax_problem
from remit_policy.resources import APPS, EXAMPLES, UNSPECIFIED, host_of, is_path, key
from remit_policy.rules import is_implied
from remit_policy.scopes import RESOURCE, SCOPES
from remit_policy.values import expand_variables

OK, NEGATIVE, WRONG = 0, 1, 2
NAMED = 3  # patterns of one line of a file that `hits` names; the file has them all

USAGE = """usage: remit policy COMMAND [ARGUMENT]...

  check [FILE]...              what is wrong with the policy, or these files
  why AGENT OP RESOURCE        what is decided, by which rule; for exec a path,
                               and the arguments follow
  show [AGENT]                 the rules in force
  hits AGENT                   how often each decided in the last 30 days
  diff FILE [AGENT]            what gets stricter and what looser with FILE in
                               the place of yours of its name
  schema                       the JSON Schema of policy files
  test FILE...                 run [[case]] tables of agent, op, path, expect

options: --project DIR, --policy FILE, --json"""


class _Usage(Exception):
    """Wrong use; the text says how."""


class _NoResource(Exception):
    """What was given is no resource of its operation; the text says what would be."""


class _Options:
    def __init__(self, args: list[str]) -> None:
        self.rest: list[str] = []
        self.project = ""
        self.files: list[str] = []
        queue = list(args)
        while queue:
            word = queue.pop(0)
            name, equals, value = word.partition("=")
            if word == "--":
                self.rest += queue
                break
            if name in ("--project", "--policy"):
                if not equals:
                    if not queue:
                        raise _Usage(f"{name} needs a value")
                    value = queue.pop(0)
                if name == "--project":
                    if not os.path.isdir(value):
                        raise _Usage(f"there is no directory '{value}'")
                    self.project = value
                else:
                    self.files.append(os.path.abspath(value))
            elif word.startswith("-") and len(self.rest) < 3:
                raise _Usage(f"unknown option '{word}'")
            else:
                self.rest.append(word)


def run(args: list[str], *, json_out: bool = False) -> int:
    """Run ``remit policy ARGS``; returns the exit status."""
    asked = args[:1] == ["help"] or any(a in ("-h", "--help") for a in args[:2])
    if not args or asked:
        (sys.stdout if asked else sys.stderr).write(USAGE + "\n")
        return OK if asked else WRONG
    commands: dict[str, Callable[[_Options, bool], int]] = {
        "check": _check, "why": _why, "show": _show, "schema": _schema, "test": _test, "hits": _hits, "diff": _diff,
    }  # fmt: skip
    command = commands.get(args[0])
    try:
        if command is None:
            raise _Usage(f"unknown command '{args[0]}'")
        return command(_Options(args[1:]), json_out)
    except _Usage as e:
        sys.stderr.write(f"remit policy: {shown(str(e))}\n{USAGE}\n")
        return WRONG
    except _NoResource as e:
        sys.stderr.write(f"remit policy: {shown(str(e))}\n")
        return WRONG
    except PolicyError as e:
        _problems(e.problems, [], json_out)
        return WRONG


def variables(project: str) -> dict[str, str]:
    """Return what a session started in ``project`` (the working directory if "") would give variables."""
    home = os.path.realpath(os.path.expanduser("~"))
    env = os.environ
    return {
        "HOME": home,
        "PROJECT": os.path.realpath(project or "."),
        "TMPDIR": env.get("TMPDIR") or "/tmp/remit-session",  # noqa: S108 - a stand-in for the session's own
        "XDG_CONFIG_HOME": env.get("XDG_CONFIG_HOME") or home + "/.config",
        "XDG_STATE_HOME": env.get("XDG_STATE_HOME") or home + "/.local/state",
        "XDG_DATA_HOME": env.get("XDG_DATA_HOME") or home + "/.local/share",
        "XDG_CACHE_HOME": env.get("XDG_CACHE_HOME") or home + "/.cache",
        "XDG_RUNTIME_DIR": env.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}",
    }


def policy_dirs() -> PolicyDirs:
    """Return where this person's policy files are."""
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return PolicyDirs(user=f"{config}/remit/policy.d")


def _print(value: Any) -> None:
    text = value if isinstance(value, str) else json.dumps(value, indent=2)
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + "\n")


def _problems(errors: list[Problem], warnings: list[Problem], json_out: bool) -> None:
    if json_out:
        view = [
            {"level": level, "file": p.file, "line": p.line, "column": p.column, "message": p.message, "expected": p.expected}
            for level, some in (("error", errors), ("warning", warnings))
            for p in some
        ]  # fmt: skip
        _print({"ok": not errors, "problems": view})
        return
    for p in errors:
        sys.stderr.write(shown(f"{p.file}:{p.line}:{p.column}: error: {p.message}") + _expected(p) + "\n")
    for p in warnings:
        sys.stderr.write(shown(f"{p.file}:{p.line}:{p.column}: warning: {p.message}") + _expected(p) + "\n")


def _expected(problem: Problem) -> str:
    return f"; expected {shown(problem.expected)}" if problem.expected else ""


def _in_force(options: _Options) -> PolicySet:
    """Return the policy in force with the files of ``--policy``. Raises PolicyError."""
    found = load(policy_dirs(), None)
    if found.missing:
        raise PolicyError(found.problems)
    for path in options.files:
        found.sources.append((USER, read_source(path)))
    return found


def _snapshot(found: PolicySet, agent: str, options: _Options) -> Snapshot:
    return found.snapshot(agent, "", "", variables(options.project))


def _check(options: _Options, json_out: bool) -> int:
    from remit_policy.lint import lint

    found = load(policy_dirs(), None)
    values = variables(options.project)
    errors: list[Problem] = []
    warnings: list[Problem] = []
    if options.rest:
        mine = []
        for path in map(os.path.abspath, options.rest):
            wrong = check_file(path, found)
            errors += wrong
            if not wrong:
                mine.append((USER, read_source(path)))
        known = {os.path.realpath(s.file) for _, s in mine}
        everything = [*(x for x in found.sources if os.path.realpath(x[1].file) not in known), *mine]
    else:
        errors = list(found.problems)
        mine = [(layer, s) for layer, s in found.sources if layer != PACK]
        everything = found.sources
    for layer, source in mine:
        try:
            warnings += lint(layer, source, everything, values)
        except PolicyError as e:
            errors += e.problems
    _problems(errors, warnings, json_out)
    if not json_out and not errors:
        count = f"{len(mine)} file{'s' if len(mine) != 1 else ''}"
        _print(f"{count} checked, {len(warnings)} warning{'s' if len(warnings) != 1 else ''}")
    return WRONG if errors else OK


def _resource(op: str, text: str, values: dict[str, str]) -> str:
    if not text or "\0" in text:
        raise _NoResource("an empty resource; a path, a host or a program")
    if not is_path(op, text) and not (op == "connect" and text[:1] in "~$"):
        full = text
        if op == "connect" and not key(op, text):
            full = text + ":443"
        elif op == "request":
            full = text.partition("?")[0]  # rules are about paths
        elif op == "use" and text in APPS:
            full = "app:" + text
        elif op == "listen" and text.rpartition(":")[0] in UNSPECIFIED:
            full = "*:" + text.rpartition(":")[2]
        if not key(op, full):
            raise _NoResource(f"'{text}' is no resource of {op}; expected one {EXAMPLES[op]}")
        if full.startswith("app:") and full[4:] not in APPS:
            raise _NoResource(f"there is no app permission '{full[4:]}'; one of {', '.join(APPS)}")
        if full.startswith(RESOURCE) and full.removeprefix(RESOURCE) not in SCOPES:
            raise _NoResource(
                f"there is no scope '{full.removeprefix(RESOURCE)}'; `remit token scopes` lists them"
            )
        return full
    if op == "exec" and "/" not in text:
        for place in ("/usr/local/bin", "/usr/bin", "/bin", values["HOME"] + "/.local/bin"):
            if os.access(f"{place}/{text}", os.X_OK):
                return os.path.realpath(f"{place}/{text}")
        raise _NoResource(f"there is no program '{text}'")
    head, slash, tail = text.partition("/")
    if head.startswith(("~", "$")):
        try:
            root = expand_variables(head, None) and values.get(
                "HOME" if head == "~" else head.strip("${}"), ""
            )
        except PatternError as e:
            raise _NoResource(str(e)) from None
        text = f"{root}{slash}{tail}"
    path = os.path.normpath(os.path.abspath(text))
    return "/" + path.lstrip("/")


def _why(options: _Options, json_out: bool) -> int:
    if len(options.rest) < 3 or (len(options.rest) > 3 and options.rest[1] != "exec"):
        raise _Usage("why AGENT OP RESOURCE")
    agent, op, text = options.rest[:3]
    if op not in OPS:
        raise _Usage(f"unknown operation '{op}'; one of {', '.join(OPS)}")
    snapshot = _snapshot(_in_force(options), agent, options)
    resource = _resource(op, text, snapshot.variables)
    op, resource, decision, note = _decided(snapshot, op, resource, options.rest[3:])
    if json_out:
        _print(explain_view(agent, op, resource, decision) | ({"note": note} if note else {}))
    else:
        _print(explain_text(op, resource, decision) + (f"\n{shown(note)}" if note else ""))
    return OK if decision.verdict == ALLOW else NEGATIVE


def _decided(snapshot: Snapshot, op: str, resource: str, args: list[str]) -> tuple[str, str, Decision, str]:
    """Return the operation and the resource that are really decided, the decision, and a remark."""
    engine = Engine(snapshot)
    note = _unknown_name(op, resource, snapshot)
    if op == "request" and (there := host_of(resource)) and not engine.has_requests(*there):
        # Nobody looks into what goes to such a host: its connections are what is decided.
        op, resource = "connect", hosts.join(*there)
        note = "no rule is about requests to this host: what counts is the connection"
    app = unix.app_of(resource) if op == "connect" and resource[:1] in "/@" else ""
    if app and engine.decide(op, resource).rule is None:
        # No rule names this socket: what it is for decides, as the supervisor has it.
        note = f"{resource} is reached by the app permission '{app}'"
        op, resource = "use", "app:" + app
    decision = explain(engine, op, resource, [resource, *args])
    if op == "connect" and decision.rule is None and unix.is_helper(resource):
        decision = Decision(DENY, unix.HELPER, (unix.HELPER,))
    return op, resource, decision, note


def _unknown_name(op: str, resource: str, snapshot: Snapshot) -> str:
    """Return what to say of a secret that the agent does not have, or of a sensitive scope; "" of anything else."""
    kind, _, name = resource.partition(":")
    if op == "use" and kind == "token" and SCOPES[name].sensitive:
        return "a sensitive scope: an administrator's file allows it, or nobody does; a person is not asked"
    if op != "use" or kind != "secret" or any(s.name == name for s in snapshot.secrets):
        return ""
    known = ", ".join(s.name for s in snapshot.secrets) or "none"
    return f"no [secret.{name}] is there for this agent; there is: {known}"


def _show(options: _Options, json_out: bool) -> int:
    if len(options.rest) > 1:
        raise _Usage("show [AGENT]")
    found = _in_force(options)
    agents = options.rest or [*found.agents(), "(any other)"]
    view = []
    for agent in agents:
        snapshot = _snapshot(found, agent, options)
        roles = found.roles(agent, variables=snapshot.variables)
        view.append({
            "agent": agent, "roles": roles, "reads": snapshot.reads, "net_all": snapshot.net_all,
            "rules": [rule_view(r) for r in snapshot.rules],
        })  # fmt: skip
        if json_out:
            continue
        net = "open, unmediated" if snapshot.net_all else "by rules"
        _print(f"agent {shown(agent)}: roles {', '.join(roles)}; reads {snapshot.reads}; network {net}")
        if not options.rest:
            continue
        for layer in (ADMIN, USER, PACK):
            some = [r for r in snapshot.rules if r.layer == layer and not is_implied(r)]
            if some:
                _print(f"{LAYERS[layer]}:")
            for line in dict.fromkeys(
                map(rule_line, some)
            ):  # one rule on git is one for each place that it is in
                _print("  " + line)
    if json_out:
        _print({"agents": view, "problems": [str(p) for p in found.problems]})
    return OK


def _hits(options: _Options, json_out: bool) -> int:
    from remit_daemon.cli.client import NoDaemon, RpcError, approver, failed

    if len(options.rest) != 1:
        raise _Usage("hits AGENT")
    params = {"agent": options.rest[0]} | (
        {"project": os.path.realpath(options.project)} if options.project else {}
    )
    try:
        found = approver(start=True).call("policy.effective", params)
    except (NoDaemon, RpcError) as e:
        return failed("policy hits", e, json_out=json_out)
    if json_out:
        _print(found)
        return OK
    least = "at least " if found["at_least"] else ""
    for line in hit_lines(found["rules"]):
        _print(least + line)
    idle = sum(1 for r in found["rules"] if not r["hits"] and r["layer"] == "user")
    if idle:
        _print(
            f"{idle} rules of yours decided nothing that is listed (reads in whole trees are counted only)"
        )
    return OK


def hit_lines(rules: list[dict[str, Any]]) -> list[str]:
    """Return what decided, a line of a file each: the ledger knows a rule by its ``file:line``, whatever else stands there."""
    by_line: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for rule in rules:
        if rule["hits"]:
            by_line.setdefault((rule["verdict"], rule["source"]), []).append(rule)
    out = []
    for (verdict, source), some in by_line.items():
        ops = ", ".join(dict.fromkeys(r["op"] for r in some))
        texts = list(dict.fromkeys(shown(r["text"]) for r in some))
        more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
        what = f"{verdict} {ops} {' '.join(texts[:NAMED])}{more}"
        out.append(f"{some[0]['hits']:8}  {what}  ({some[0]['layer']}, {shown(source)})")
    return out


def _diff(options: _Options, json_out: bool) -> int:
    from remit_policy.compare import LOOSER, compare

    if len(options.rest) not in (1, 2):
        raise _Usage("diff FILE [AGENT]")
    file, found = options.rest[0], _in_force(options)
    fresh = read_source(file)
    mine = os.path.join(policy_dirs().user, os.path.basename(file))
    others = PolicySet([(layer, s) for layer, s in found.sources if s.file != mine])
    if problems := check_file(file, others):
        raise PolicyError(problems)
    changed = PolicySet([*others.sources, (USER, fresh)])
    agents = options.rest[1:] or list(dict.fromkeys([*found.agents(), *changed.agents(), "(any other)"]))
    view = []
    for agent in agents:
        for it in compare(_snapshot(found, agent, options), _snapshot(changed, agent, options)):
            view.append({
                "agent": agent, "way": it.way, "op": it.op, "pattern": it.pattern, "example": it.example,
                "before": VERDICTS[it.before.verdict], "after": VERDICTS[it.after.verdict], "by": it.after.source,
            })  # fmt: skip
    looser = any(d["way"] == LOOSER for d in view)
    if json_out:
        _print({"differences": view})
        return NEGATIVE if looser else OK
    for agent in agents:
        some = [d for d in view if d["agent"] == agent]
        if some:
            _print(f"agent {shown(agent)}:")
        for d in some:
            said = (
                f"{d['before']} -> {d['after']}"
                if d["before"] != d["after"]
                else f"{d['after']}, other limits"
            )
            _print(
                f"  {d['way']:8}  {d['op']} {shown(str(d['pattern']))}: {said}  (by {shown(str(d['by']))})"
            )
    if not view:
        _print("nothing is decided otherwise, at any place that a pattern of either names")
    return NEGATIVE if looser else OK


def _schema(options: _Options, json_out: bool) -> int:
    from remit_policy.schema import schema

    if options.rest:
        raise _Usage("schema takes no arguments")
    _print(schema())
    return OK


def _test(options: _Options, json_out: bool) -> int:
    if not options.rest:
        raise _Usage("test FILE...")
    found = _in_force(options)
    results: list[dict[str, Any]] = []
    for file in options.rest:
        for number, case in enumerate(_cases(file), 1):
            snapshot = _snapshot(found, case["agent"], options)
            resource = _resource(case["op"], case["path"], snapshot.variables)
            _, resource, decision, _ = _decided(snapshot, case["op"], resource, case.get("args", []))
            got = VERDICTS[decision.verdict]
            results.append({
                "file": file, "case": number, "agent": case["agent"], "op": case["op"], "path": resource,
                "expect": case["expect"], "got": got, "by": decision.source, "ok": got == case["expect"],
            })  # fmt: skip
    failed = [r for r in results if not r["ok"]]
    if json_out:
        _print({"ok": not failed, "cases": results})
        return NEGATIVE if failed else OK
    for r in failed:
        what = shown(f"{r['file']}: case {r['case']}: {r['agent']} {r['op']} {r['path']}")
        _print(f"{what}: expected {r['expect']}, got {r['got']} by {shown(r['by'])}")
    _print(f"{len(results) - len(failed)} of {len(results)} cases hold")
    return NEGATIVE if failed else OK


def _cases(file: str) -> list[dict[str, Any]]:
    """Return the cases of a test file. Raises PolicyError."""

    def wrong(message: str, expected: str = "a TOML file of [[case]] tables") -> PolicyError:
        return PolicyError([Problem(file, 1, 1, message, expected)])

    text = read_bytes(file).decode("utf-8", "replace")
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise PolicyError([Problem(file, *syntax_problem(str(e), text), "TOML")]) from None
    except (ValueError, RecursionError):
        raise wrong("nested too deeply, or a number is too long") from None
    cases = raw.get("case")
    if not isinstance(cases, list) or not cases or set(raw) != {"case"}:
        raise wrong("no [[case]] tables, or more than these")
    for number, case in enumerate(cases, 1):
        words = isinstance(case, dict) and all(
            isinstance(case.get(k), str) for k in ("agent", "op", "path", "expect")
        )
        args = case.get("args", []) if isinstance(case, dict) else None
        if not words or set(case) - {"agent", "op", "path", "expect", "args"} or not isinstance(args, list):
            raise wrong(f"case {number} is not complete", "agent, op, path, expect, and args for exec")
        if (
            case["op"] not in OPS
            or case["expect"] not in VERDICTS
            or not all(isinstance(a, str) for a in args)
        ):
            raise wrong(
                f"case {number} has an unknown op or verdict", "an operation, and allow, ask or deny"
            )
    return cases
