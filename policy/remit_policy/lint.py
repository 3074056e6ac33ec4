"""Rules that are legal and yet hardly what was meant: too broad, never reached, never matching."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from remit_policy.compile import literal_root
from remit_policy.document import Problem, Source
from remit_policy.engine import Engine
from remit_policy.match import DSTAR, PatternError, components, expand
from remit_policy.model import ADMIN, ALLOW, DENY, PACK, Rule, Snapshot
from remit_policy.resources import is_path
from remit_policy.rules import BASE_ROLES, DEFAULT_ROLE, inherited, is_implied, program_paths, role_rules
from remit_policy.values import expand_variables

_WRITING = ("write", "create", "delete", "metadata")


def lint(
    layer: int, source: Source, everything: Sequence[tuple[int, Source]], values: dict[str, str]
) -> list[Problem]:
    """Return warnings about the rules written in ``source``.

    ``everything`` is all documents in force, ``source`` among them; ``values`` gives the variables.
    """
    out: list[Problem] = []
    named = {r for _, s in everything for a in s.document.agent.values() for r in a.roles}
    used = set(inherited(everything, [*named, *BASE_ROLES, DEFAULT_ROLE]))
    for name, role in source.document.role.items():
        if name not in used:
            out.append(
                source.problem(("role", name), f"no agent has the role '{name}'", "an agent that names it")
            )
        for program in role.exec:
            try:
                paths = program_paths(program, values)
            except PatternError:
                continue
            literal = [p for p in paths if not any(c in p for c in "*?\\")]
            if len(literal) == len(paths) and not any(os.path.exists(p) for p in paths):
                out.append(
                    source.problem(
                        ("role", name, "exec", program),
                        f"there is no program '{program}'",
                        "a program that exists",
                    )
                )
        out += _requests(source, name)
        rules = role_rules([(layer, source)], [name], values)
        out += _broad(rules) + _shadowed(rules)
        out += _examples_of_nothing(source, name)
    out += _secrets(source, everything, values)
    out += _bereft(source, everything)
    return list(dict.fromkeys(out))


def _bereft(source: Source, everything: Sequence[tuple[int, Source]]) -> list[Problem]:
    """Agents that a pack knows and that are given roles without the pack's: what they keep and whom they talk to is then asked."""
    packed = {
        name: a.roles for layer, s in everything if layer == PACK for name, a in s.document.agent.items()
    }
    out = []
    for name, agent in source.document.agent.items():
        lost = set(packed.get(name, ())) - set(inherited(everything, agent.roles))
        if agent.roles and lost:
            role = min(lost)
            out.append(
                source.problem(
                    ("agent", name, "roles"),
                    f"without the built-in role '{role}' the agent's own files and its maker's hosts are asked about",
                    f"'{role}' among the roles, or to be asked",
                )
            )
    return out


# RFC 9110 and 5789, WebDAV (RFC 4918, 3253, 3744), and what stands for an upgrade to a web socket.
_METHODS = frozenset(
    [
        "*",
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "DELETE",
        "PATCH",
        "OPTIONS",
        "TRACE",
        "CONNECT",
        "WEBSOCKET",
        "PROPFIND",
        "PROPPATCH",
        "MKCOL",
        "COPY",
        "MOVE",
        "LOCK",
        "UNLOCK",
        "REPORT",
        "SEARCH",
        "ACL",
        "MKCALENDAR",
        "CHECKOUT",
        "CHECKIN",
        "MERGE",
        "BIND",
        "QUERY",
        "PURGE",
        "LINK",
        "UNLINK",
    ]
)


def _requests(source: Source, role: str) -> list[Problem]:
    """Methods that no client sends, and paths that are written with a query."""
    out = []
    for host, methods in source.document.role[role].net.requests.items():
        for method, table in methods.items():
            where = ("role", role, "net", "requests", host, method)
            if method not in _METHODS:
                near = get_close_matches(method, _METHODS, 1)
                out.append(
                    source.problem(
                        where, f"'{method}' is no usual method", near[0] if near else "GET, POST …"
                    )
                )
            for word in ("allow", "ask", "deny"):
                for number, text in enumerate(getattr(table, word)):
                    if "?" in text and "=" in text.partition("?")[2]:
                        out.append(
                            source.problem(
                                (*where, word, number),
                                f"'{text}' has a query, and paths are matched without one ('?' is any one character)",
                                "the path alone",
                            )
                        )
    return out


def _secrets(
    source: Source, everything: Sequence[tuple[int, Source]], values: dict[str, str]
) -> list[Problem]:
    """Secrets whose value is not there, which go everywhere, or which share a variable; rules about secrets that are none."""
    out = []
    variables: dict[str, str] = {}
    for name, table in source.document.secret.items():
        where = ("secret", name)
        origin = table.from_
        if origin.file is not None:
            path = expand_variables(origin.file, values)
            if not os.path.isfile(path):
                out.append(
                    source.problem((*where, "from"), f"there is no file '{path}'", "a file with the secret")
                )
        elif origin.env is not None and not os.environ.get(origin.env):
            out.append(
                source.problem(
                    (*where, "from"),
                    f"'{origin.env}' is not set here",
                    "a variable that is set where `remit run` is started",
                )
            )
        elif origin.command is not None and not shutil.which(os.path.expanduser(origin.command[0])):
            out.append(
                source.problem(
                    (*where, "from"),
                    f"there is no program '{origin.command[0]}'",
                    "a program that prints the secret",
                )
            )
        for number, host in enumerate(table.hosts):
            if host == "*":
                out.append(
                    source.problem(
                        (*where, "hosts", number),
                        "'*' gives the secret to every host",
                        "the host it is for",
                    )
                )
        if table.env in variables:
            said = f"'{table.env}' is the variable of '{variables[table.env]}' too"
            out.append(source.problem((*where, "env"), said, "one variable for each secret"))
        variables.setdefault(table.env, name)
    known = {n for _, s in everything for n in s.document.secret}
    for role_name, role in source.document.role.items():
        rule = role.secrets.use
        for word in ("allow", "ask", "deny") if rule else ():
            for number, text in enumerate(getattr(rule, word)):
                if text not in known and not any(c in text for c in "*?{"):
                    at = ("role", role_name, "secrets", "use", word, number)
                    out.append(
                        source.problem(at, f"there is no secret '{text}'", "the NAME of a [secret.NAME]")
                    )
    return out


def _warn(rule: Rule, message: str, expected: str = "") -> Problem:
    file, _, line = rule.source.rpartition(":")
    return Problem(file, int(line), 1, message, expected)


def _broad(rules: Iterable[Rule]) -> list[Problem]:
    out = []
    for rule in rules:
        if rule.verdict != ALLOW or rule.layer == PACK:
            continue
        if not is_path(rule.op, rule.pattern):
            out += _broad_resource(rule)
            continue
        for one in expand(rule.pattern):
            parts = components(one)
            plain = [p for p in parts if isinstance(p, str)]
            floating = bool(parts) and parts[0] is DSTAR
            if floating and len(parts) == 1:
                out.append(_warn(rule, f"'{rule.text}' allows {rule.op} everywhere", "a smaller tree"))
            elif floating and rule.op in _WRITING:
                out.append(
                    _warn(
                        rule,
                        f"'{rule.text}' allows {rule.op} in every directory",
                        "a pattern below one place",
                    )
                )
            elif rule.op in (*_WRITING, "execute") and rule.text in ("~/**", "$HOME/**", "~", "${HOME}/**"):
                out.append(
                    _warn(
                        rule,
                        f"'{rule.text}' allows {rule.op} in the whole home directory",
                        "the directories that are meant",
                    )
                )
            elif rule.op in _WRITING and parts[-1:] == [DSTAR] and len(plain) <= 1:
                out.append(
                    _warn(
                        rule,
                        f"'{rule.text}' allows {rule.op} in a whole part of the system",
                        "a smaller tree",
                    )
                )
    return out


def _broad_resource(rule: Rule) -> list[Problem]:
    host = rule.text.rpartition(" ")[2] if rule.op == "request" else rule.text
    if rule.op in ("connect", "request") and host[:1] == "*" and host[1:2].isalnum():
        bare = host[1:]
        return [
            _warn(rule, f"'{host}' covers 'x{bare}' as well, which anybody may own", f"*.{bare}, or {bare}")
        ]
    if rule.op == "connect" and rule.text == "*":
        return [_warn(rule, "'*' allows connections to every name there is", "the hosts that are meant")]
    if rule.op == "connect" and rule.text == "localhost":
        return [_warn(rule, "'localhost' allows every service on this machine", "localhost:PORT")]
    if rule.op in ("call", "own") and rule.text.split(" ")[0] in ("*", "system:*"):
        return [
            _warn(rule, f"'{rule.text}' allows {rule.op} on every service", "the service that is meant")
        ]
    return []


def _shadowed(rules: Sequence[Rule]) -> list[Problem]:
    """Rules of one table that never decide: repeated, inside a final deny, or taken out by an exception."""
    out = []
    seen: dict[tuple[object, ...], Rule] = {}
    finals = [r for r in rules if r.final and r.verdict == DENY]
    for rule in rules:
        if is_implied(rule):
            continue  # two rules may well bring the same with them
        key = (rule.op, rule.pattern, rule.argv)
        first = seen.setdefault(key, rule)
        if first is not rule and first.source == rule.source and first.text == rule.text:
            continue
        if first is not rule and first.argv == rule.argv:
            said = (
                "is written twice"
                if first.verdict == rule.verdict
                else "is also written with another verdict"
            )
            out.append(_warn(rule, f"'{rule.text}' {said} (first at {first.source}); the stricter counts"))
        if rule.op == "exec" or not is_path(rule.op, rule.pattern):
            continue
        final = next((f for f in finals if f is not rule and f.op == rule.op and _covers(f, rule)), None)
        if final is not None:
            out.append(
                _warn(rule, f"'{rule.text}' is never reached: the final deny at {final.source} covers it")
            )
        elif any(_covers(Rule(rule.layer, DENY, rule.op, e), rule) for e in rule.excepts):
            out.append(_warn(rule, f"'{rule.text}' never matches: its own exception covers it"))
    return out


def _covers(outer: Rule, inner: Rule) -> bool:
    """Tell whether every path that ``inner`` matches is matched by ``outer`` (sure cases only)."""
    if outer.excepts:
        return False
    engine = Engine(Snapshot("", (Rule(ADMIN, DENY, outer.op, outer.pattern),)))
    for one in expand(inner.pattern):
        root = literal_root(one)
        parts = components(one)
        if root is None:
            if any(not isinstance(p, str) for p in parts):
                return False
            if engine.decide(outer.op, "/" + "/".join(str(p) for p in parts)).verdict != DENY:
                return False
        elif engine.uniform(outer.op, root) != DENY:
            return False
    return True


def _examples_of_nothing(source: Source, role: str) -> list[Problem]:
    out = []
    for op, table in source.document.role[role].files.__dict__.items():
        for word in ("allow", "ask", "deny"):
            for number, text in enumerate(getattr(table, word, ())):
                if "{}" in text or "{,}" in text:
                    out.append(
                        source.problem(
                            ("role", role, "files", op, word, number),
                            f"an empty brace in '{text}'",
                            "alternatives, as in {a,b}",
                        )
                    )
    return out
