"""From documents to rules: which roles an agent has, and what they say once variables have their values."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from remit_policy.document import (
    FileRule,
    Limits,
    PolicyError,
    Problem,
    RequestRule,
    Role,
    Source,
    Traffic,
)
from remit_policy.engine import Engine
from remit_policy.match import DSTAR, Glob, PatternError, component, components, escape, expand, parse
from remit_policy.model import ADMIN, ALLOW, ASK, DENY, PACK, PROJECT, USER, Rule, Secret, Snapshot
from remit_policy.resources import is_path
from remit_policy.scoperoles import check_scopes, scope_roles
from remit_policy.scopes import RESOURCE
from remit_policy.scopes import expand as expand_scopes
from remit_policy.values import (
    VARIABLES,
    expand_variables,
    is_socket,
    parse_budget,
    parse_duration,
    parse_money,
    parse_rate,
    parse_window,
)

BASE_ROLES = ("base", "protected")  # of the packs: every agent has them
DEFAULT_ROLE = "default"  # for an agent for which no section names roles

Layered = Sequence[tuple[int, Source]]

_WORDS = (("allow", ALLOW), ("ask", ASK), ("deny", DENY))


def matches_name(pattern: str, name: str) -> bool:
    """Tell whether the glob ``pattern`` matches the agent name ``name``."""
    try:
        parts = [component(p) for p in expand(pattern)]
    except PatternError:
        return False
    return any(
        part.key(name) is not None if isinstance(part, Glob) else part is DSTAR or part == name
        for part in parts
    )


def _matches_exe(pattern: str, exe: str, variables: Mapping[str, str]) -> bool:
    try:
        expanded = [expand_variables(p, dict(variables)) for p in expand(pattern)]
    except PatternError:
        return False
    real = [p for p in expanded if not any(c in p for c in "*?\\")]
    rules = [Rule(USER, ALLOW, "execute", p) for p in expanded]
    rules += [Rule(USER, ALLOW, "execute", escape(os.path.realpath(p))) for p in real]
    return Engine(Snapshot("", tuple(rules))).decide("execute", exe).verdict == ALLOW


def agent_fits(
    section: str, source: Source, name: str, exe: str, sha256: str, variables: Mapping[str, str]
) -> bool:
    """Tell whether ``[agent.SECTION]`` of ``source`` is about this agent: all that it names must fit."""
    match = source.document.agent[section].match
    if name != section and not (match.name is not None and matches_name(match.name, name)):
        bare = match.name is None and (match.exe is not None or match.sha256 is not None)
        if not bare:
            return False
    if match.sha256 is not None and match.sha256 != sha256:
        return False
    return match.exe is None or _matches_exe(match.exe, exe, variables)


def roles_for(
    sources: Layered, name: str, exe: str, sha256: str, variables: Mapping[str, str]
) -> list[tuple[int, str]]:
    """Return (layer of the section, role) of this agent, without what roles inherit.

    A person's own section that names roles replaces the packs' for the agent; an admin's adds to either. An agent that no
    section gives a role has ``default``. The packs' ``base`` and ``protected`` always apply.
    """
    found: list[tuple[int, str]] = []
    for layer, source in sources:
        for section, agent in source.document.agent.items():
            if agent_fits(section, source, name, exe, sha256, variables):
                found += [(layer, role) for role in agent.roles]
    if any(layer == USER for layer, _ in found):
        found = [(layer, role) for layer, role in found if layer != PACK]
    elif not any(layer == PACK for layer, _ in found):
        found.append((PACK, DEFAULT_ROLE))
    return list(dict.fromkeys([*((PACK, role) for role in BASE_ROLES), *found]))


def started_with(
    sources: Layered, name: str, exe: str, sha256: str, variables: Mapping[str, str], program: str
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the arguments and the variables that policy has this agent started with.

    Packs come first, the person's last, so that theirs counts where a program heeds the last. Arguments are for the agent's
    own program: a wrapper (a shell, ``npx``) named ``program`` would take them for its own.
    """
    arguments: list[str] = []
    env: dict[str, str] = {}
    for wanted in (PACK, ADMIN, USER):
        for layer, source in sources:
            for section, agent in source.document.agent.items() if layer == wanted else ():
                if agent_fits(section, source, name, exe, sha256, variables):
                    env |= agent.env
                    if agent_fits(section, source, program, exe, sha256, variables):
                        arguments += agent.arguments
    return tuple(arguments), env


def asks_on_change(sources: Layered, name: str, exe: str, variables: Mapping[str, str]) -> bool:
    """Tell whether a section about this agent, under whatever digest, wants its grants withheld when its program has changed.

    The strictest section decides, so that a person can ask for more than an administrator does and not for less.
    """
    return any(
        agent.on_change == "ask"
        and agent_fits(section, source, name, exe, agent.match.sha256 or "", variables)
        for _, source in sources
        for section, agent in source.document.agent.items()
    )


def with_trailers(sources: Layered, name: str, exe: str, sha256: str, variables: Mapping[str, str]) -> bool:
    """Say whether this agent's commits are to get trailers: unless the person or an administrator says that they are not."""
    return all(
        agent.trailers or not agent_fits(section, source, name, exe, sha256, variables)
        for layer, source in sources
        if layer in (PACK, ADMIN, USER)
        for section, agent in source.document.agent.items()
    )


def inherited(sources: Layered, roles: Iterable[str]) -> list[str]:
    """Return ``roles`` and all that they inherit, each once."""
    out: dict[str, None] = {}
    todo = list(roles)
    while todo:
        role = todo.pop(0)
        if role not in out:
            out[role] = None
            for _, source in sources:
                if role in source.document.role:
                    todo += source.document.role[role].inherits
    return list(out)


def check_references(sources: Layered) -> list[Problem]:
    """Return the roles that nobody defines and the circles in inheritance."""
    known = {role for _, s in sources for role in s.document.role} | {DEFAULT_ROLE}
    parents: dict[str, list[str]] = {}
    for _, source in sources:
        for name, role in source.document.role.items():
            parents.setdefault(name, []).extend(role.inherits)
    out = []
    for _, source in sources:
        doc = source.document
        named: list[tuple[tuple[str, str, str, int], str]] = []
        for name, agent in doc.agent.items():
            named += [(("agent", name, "roles", i), r) for i, r in enumerate(agent.roles)]
        for name, role in doc.role.items():
            named += [(("role", name, "inherits", i), r) for i, r in enumerate(role.inherits)]
        for path, wanted in named:
            if wanted not in known:
                out.append(source.problem(path, f"unknown role '{wanted}'", "a role that is defined"))
            elif path[0] == "role" and path[1] in _reach(parents, wanted):
                out.append(source.problem(path, f"role '{path[1]}' inherits itself", "no circle"))
    for layer, source in sources:
        if layer in (USER, PROJECT):
            for name in source.document.sensitive:
                where = ("sensitive", name)
                out.append(
                    source.problem(where, "a sensitive table in this file", "an administrator's file")
                )
        if layer == PROJECT:
            for name, agent in source.document.agent.items():
                for key in ("env", "arguments", "on_change"):
                    if getattr(agent, key):
                        text = f"{key} of an agent in a project's policy"
                        out.append(source.problem(("agent", name, key), text, "a person's own file"))
            for name in source.document.secret:
                out.append(
                    source.problem(
                        ("secret", name), "a secret in a project's policy", "a person's own file"
                    )
                )
    return out + check_scopes(sources)


def _reach(parents: Mapping[str, Sequence[str]], role: str) -> set[str]:
    seen: set[str] = set()
    todo = [role]
    while todo:
        one = todo.pop()
        if one not in seen:
            seen.add(one)
            todo += parents.get(one, ())
    return seen


def check_examples(source: Source) -> list[Problem]:
    """Return the ``match`` and ``not_match`` examples of a document that do not hold."""
    values = {name: f"/\x01{name}" for name in VARIABLES}
    out = []
    for name, role in source.document.role.items():
        for op, table in role.files.__dict__.items():
            if not isinstance(table, FileRule) or not (table.match or table.not_match):
                continue
            engine = Engine(Snapshot("", tuple(file_rules(USER, source, name, op, table, values))))
            for key, wanted in (("match", True), ("not_match", False)):
                for number, example in enumerate(getattr(table, key)):
                    path: tuple[str | int, ...] = ("role", name, "files", op, key, number)
                    try:
                        real = _example(example, values)
                    except PatternError as e:
                        out.append(source.problem(path, str(e), e.expected))
                        continue
                    if bool(engine.explain(op, real).matches) != wanted:
                        said = "matches no pattern here" if wanted else "matches a pattern here"
                        out.append(source.problem(path, f"'{example}' {said}", "an example that holds"))
    return out


def _example(text: str, values: Mapping[str, str]) -> str:
    head, slash, tail = text.partition("/")
    name = "HOME" if head == "~" else head[1:] if head.startswith("$") else ""
    if name in values:
        return values[name] + slash + tail
    if not text.startswith("/"):
        raise PatternError(f"'{text}' is not a path", "an absolute path, ~/x or $PROJECT/x")
    return text


def file_rules(
    layer: int, source: Source, role: str, op: str, table: FileRule, values: dict[str, str]
) -> list[Rule]:
    """Return the rules of one operation. Patterns whose variable has no value are left out only for allow
    and ask of packs. Raises PolicyError."""
    path = ("role", role, "files", op)
    excepts: list[str] = []
    for number, text in enumerate(table.except_):
        excepts += _expanded(text, values, source, (*path, "except", number))
    out = []
    for word, verdict in _WORDS:
        for number, text in enumerate(getattr(table, word)):
            where = (*path, word, number)
            for pattern in _expanded(text, values, source, where, lenient=layer == PACK):
                out.append(
                    _rule(layer, verdict, op, pattern, table, source, role, where, text, tuple(excepts))
                )
    return out


def _expanded(
    text: str, values: dict[str, str], source: Source, path: tuple[str | int, ...], lenient: bool = False
) -> list[str]:
    try:
        # a brace may hold the variable itself, as in {~,$PROJECT}/x
        heads = expand(text) if text.startswith("{") else [text]
        out = [expand_variables(one, values) for one in heads]
        for one in out:
            parse(one)
    except PatternError as e:
        if lenient:
            return []
        raise PolicyError([source.problem(path, str(e), e.expected)]) from None
    return out


def _rule(
    layer: int,
    verdict: int,
    op: str,
    pattern: str,
    table: Limits,
    source: Source,
    role: str,
    path: tuple[str | int, ...],
    text: str,
    excepts: tuple[str, ...] = (),
    argv: tuple[str, ...] | None = None,
) -> Rule:
    limited = verdict != DENY  # an ask limits what its answers allow
    return Rule(
        layer,
        verdict,
        op,
        pattern,
        excepts=excepts,
        argv=argv,
        final=table.final and verdict != ALLOW,
        protected=table.protected and verdict != ALLOW,
        rate=parse_rate(table.rate) if limited and table.rate else None,
        window=parse_window(table.window) if limited and table.window else None,
        budget=parse_budget(table.budget)
        if limited and isinstance(table, Traffic) and table.budget
        else None,
        hold=parse_duration(table.hold) if table.hold else None,
        source=source.at(*path),
        role=role,
        text=text,
        cost=parse_money(table.cost) if limited and isinstance(table, RequestRule) and table.cost else 0,
    )


def program_paths(program: str, values: dict[str, str]) -> list[str]:
    """Return the patterns of the executables that ``program`` of an exec table means.

    A bare name is looked up in a fixed path, not the caller's: each place where it is, links followed;
    where it is nowhere, each place where it could be. Raises PatternError.
    """
    if not program:
        raise PatternError("an empty name", "the name or the path of a program")
    if "/" in program or program.startswith(("~", "$")):
        return [expand_variables(p, values) for p in expand(program)]
    places = ["/usr/local/bin", "/usr/bin", "/bin", values.get("HOME", "") + "/.local/bin"]
    if component(program) != program:
        return [escape(place) + "/" + program for place in places]
    files = [f"{place}/{program}" for place in places]
    found = [os.path.realpath(f) for f in files if os.access(f, os.X_OK)]
    return [escape(f) for f in dict.fromkeys([*found, *files])]


def check_programs(source: Source) -> list[Problem]:
    """Return the programs of exec tables that are neither a name nor a path pattern."""
    out = []
    values = {name: f"/\x01{name}" for name in VARIABLES}
    for name, role in source.document.role.items():
        for program in role.exec:
            try:
                for one in program_paths(program, values):
                    components(one)
            except PatternError as e:
                out.append(
                    source.problem(("role", name, "exec", program), f"{e} in '{program}'", e.expected)
                )
    return out


def role_rules(sources: Layered, roles: Iterable[str], values: dict[str, str]) -> list[Rule]:
    """Return all rules of ``roles``, in the layers of the files that they are written in. Raises PolicyError."""
    out: list[Rule] = []
    own = scope_roles(sources)
    for name in roles:
        for layer, source in sources:
            role = source.document.role.get(name)
            if role is None:
                continue
            for op, table in role.files.__dict__.items():
                if isinstance(table, FileRule):
                    out += file_rules(layer, source, name, op, table, values)
            out += _resource_rules(layer, source, name, role, values, own)
            for program, argvs in role.exec.items():
                try:
                    paths = program_paths(program, values)
                except PatternError as e:
                    raise PolicyError(
                        [source.problem(("role", name, "exec", program), str(e), e.expected)]
                    ) from None
                for word, verdict in _WORDS:
                    for number, text in enumerate(getattr(argvs, word)):
                        where = ("role", name, "exec", program, word, number)
                        for tokens in _tokens(text):
                            for path in paths:
                                out.append(
                                    _rule(
                                        layer, verdict, "exec", path, argvs, source, name, where,
                                        f"{program} {text}".rstrip(), (), tokens,
                                    )
                                )  # fmt: skip
    return out


Where = tuple[str | int, ...]


def _resource_rules(
    layer: int, source: Source, name: str, role: Role, values: dict[str, str], own: Mapping[str, tuple[str, ...]]
) -> list[Rule]:  # fmt: skip
    out: list[Rule] = []
    for op, path, table, write in resource_tables(role, name):
        for word, verdict in _WORDS:
            for number, text in enumerate(getattr(table, word)):
                where = (*path, word, number)
                found = (
                    [RESOURCE + scope for scope in sorted(expand_scopes([text], own))]
                    if path[2] == "tokens"
                    else _resource_patterns(op, write(text), values, source, where, layer)
                )
                for pattern in found:
                    out.append(_rule(layer, verdict, op, pattern, table, source, name, where, pattern))
                    out += _implied(out[-1])
    return out


def resource_tables(role: Role, name: str) -> Iterator[tuple[str, Where, Limits, Callable[[str], str]]]:
    """Yield (operation, key path, table, how an entry becomes a pattern) of all that is neither file nor program."""

    def same(text: str) -> str:
        return text

    for op in ("connect", "resolve", "listen"):
        if (table := getattr(role.net, op)) is not None:
            yield op, ("role", name, "net", op), table, same
    for host, methods in role.net.requests.items():
        for method, table in methods.items():
            yield "request", ("role", name, "net", "requests", host, method), table, _request(method, host)
    for service, rules in role.dbus.items():
        for op, table in rules.__dict__.items():
            if isinstance(table, Limits):
                yield op, ("role", name, "dbus", service, op), table, _member(op, service)
    for kind, prefix in (("apps", "app:"), ("secrets", "secret:"), ("tokens", RESOURCE)):
        if (table := getattr(role, kind).use) is not None:
            yield "use", ("role", name, kind, "use"), table, prefix.__add__


def _request(method: str, host: str) -> Callable[[str], str]:
    return lambda path: f"{method} {host}{path if path[0] == '/' else '/' + path}"


def _member(op: str, service: str) -> Callable[[str], str]:
    return lambda text: service if op in ("see", "own") else f"{service} {text}"


def _resource_patterns(
    op: str, text: str, values: dict[str, str], source: Source, where: Where, layer: int
) -> list[str]:
    if op == "connect" and is_socket(text):
        return _expanded(text, values, source, where, lenient=layer == PACK)
    return [text]


def _implied(rule: Rule) -> list[Rule]:
    """Return the rules that come with one: who may call a service sees it, and who may send requests to a host, or reach
    one of its ports, may connect and look it up."""
    op, pattern = "", ""
    if rule.verdict == DENY:
        return []
    if rule.op == "request":
        op, pattern = "connect", rule.pattern.partition(" ")[2].partition("/")[0]
    elif rule.op in ("call", "own"):
        op, pattern = "see", rule.pattern.partition(" ")[0]
    elif rule.op == "connect" and rule.verdict == ALLOW and not is_socket(rule.pattern):
        host, colon, port = rule.pattern.rpartition(":")
        if colon and port.isdigit() and "]" not in rule.pattern and ":" not in host and "/" not in host:
            op, pattern = "resolve", host
    if not op:
        return []
    implied = Rule(rule.layer, ALLOW, op, pattern, source=rule.source, role=rule.role, text=rule.text)
    return [implied, *(_implied(implied) if op == "connect" else [])]


def is_implied(rule: Rule) -> bool:
    """Tell whether ``rule`` was not written, but comes with one that was."""
    return rule.text != rule.pattern and not is_path(rule.op, rule.pattern)


def sensitive_rules(sources: Layered) -> list[Rule]:
    """Return the administrator's asks that only an administrator may answer."""
    out = []
    for layer, source in sources:
        for name, table in source.document.sensitive.items() if layer == ADMIN else ():
            for number, host in enumerate(table.hosts):
                at = source.at("sensitive", name, "hosts", number)
                out.append(
                    Rule(ADMIN, ASK, "connect", host, final=True, source=at, role=f"sensitive {name}")
                )
    return out


def secrets_of(sources: Layered, agent: str, values: dict[str, str]) -> tuple[list[Secret], list[Rule]]:
    """Return the secrets that ``agent`` may use, and the rules that let it. Raises PolicyError."""
    found: dict[str, Secret] = {}
    rules = []
    for layer, source in sources:
        for name, table in source.document.secret.items():
            if not any(matches_name(a, agent) for a in table.agents):
                continue
            at, origin = source.at("secret", name), table.from_
            place: tuple[str, ...]
            if origin.file is not None:
                kind, place = (
                    "file",
                    tuple(_expanded(origin.file, values, source, ("secret", name, "from", "file"))),
                )
            elif origin.env is not None:
                kind, place = "env", (origin.env,)
            elif origin.command is not None:
                kind, place = "command", tuple(origin.command)
            else:
                kind, place = "keyring", tuple(x for pair in (origin.keyring or {}).items() for x in pair)
            found[name] = Secret(
                name, kind, place, table.env, tuple(table.hosts), table.as_, table.user, at
            )
            rules.append(Rule(layer, ALLOW, "use", f"secret:{escape(name)}", source=at))
    return list(found.values()), rules


def _tokens(text: str) -> list[tuple[str, ...]]:
    """Return the token patterns of an argument pattern, braces expanded."""
    return [tuple(one.split()) for one in expand(text)]
