"""The policy in force: the files of all layers, and a session's snapshot made of them.

Loading never fails. A file with an error keeps its last good version in force; one that has none, and was
there when the policy was first read, makes every snapshot refuse, since nobody can know what it forbade.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from remit_policy.document import PolicyError, Problem, Source
from remit_policy.links import linked
from remit_policy.match import escape
from remit_policy.model import ADMIN, ALLOW, PACK, PROJECT, USER, Rule, Snapshot
from remit_policy.quotas import quotas_of
from remit_policy.reading import read_bytes, read_document
from remit_policy.rules import (
    DEFAULT_ROLE,
    agent_fits,
    check_examples,
    check_programs,
    check_references,
    inherited,
    matches_name,
    resource_tables,
    role_rules,
    roles_for,
    secrets_of,
    sensitive_rules,
    started_with,
    with_trailers,
)
from remit_policy.scoperoles import scope_roles

__all__ = ["PolicyDirs", "PolicyError", "PolicySet", "Problem", "agent_name_for", "check_file", "load"]

MAX_FILES = 256  # policy files of one directory
_INTERPRETERS = (
    "node",
    "nodejs",
    "python*",
    "bun",
    "deno",
    "ruby",
    "perl",
    "sh",
    "bash",
    "dash",
    "env",
    "npx",
    "uvx",
)


@dataclass(frozen=True)
class PolicyDirs:
    """Where policy files are. ``admin_owner`` is whose the administrator's must be."""

    admin: str = "/etc/remit/policy.d"
    user: str = ""
    admin_owner: int = 0


@dataclass
class PolicySet:
    """All policy files, read. ``problems`` is what is wrong with the files as they are now."""

    sources: list[tuple[int, Source]]
    problems: list[Problem] = field(default_factory=list)
    missing: list[Problem] = field(default_factory=list)  # of files that never had a good version

    def name(self, exe: str, argv: Sequence[str]) -> str:
        """Return the name of the agent that ``exe`` with ``argv`` is, by the policy or by the program."""
        names = [os.path.basename(argv[0])] if argv and argv[0] else []
        names.append(os.path.basename(exe))
        if any(matches_name(p, n) for p in _INTERPRETERS for n in names):
            names += [os.path.basename(a) for a in argv[1:] if not a.startswith("-")][:1]
        for wanted in (USER, ADMIN, PACK):
            for layer, source in self.sources:
                for section, agent in source.document.agent.items() if layer == wanted else ():
                    glob = agent.match.name
                    if any(n == section or (glob and matches_name(glob, n)) for n in names) or (
                        agent.match.exe
                        and agent_fits(section, source, section, exe, agent.match.sha256 or "", _home())
                    ):
                        return section
        return agent_name_for(exe, argv[0] if argv else "")

    def roles(
        self, agent_name: str, exe: str = "", sha256: str = "", variables: Mapping[str, str] | None = None
    ) -> list[str]:
        """Return the roles that apply to an agent, inherited ones included."""
        some = roles_for(self.sources, agent_name, exe, sha256, variables or {})
        return inherited(self.sources, [role for _, role in some])

    def agents(self) -> list[str]:
        """Return the names of the agent sections, each once."""
        return list(dict.fromkeys(name for _, s in self.sources for name in s.document.agent))

    def scope_roles(self) -> dict[str, tuple[str, ...]]:
        """Return the roles over scopes that the files define, with all their scopes."""
        return scope_roles(self.sources)

    def snapshot(
        self,
        agent_name: str,
        exe: str,
        sha256: str,
        variables: dict[str, str],
        *,
        program: str = "",
        extra_files: Sequence[str] = (),
        project_file: str | None = None,
        grants: Sequence[Rule] = (),
        launch_dirs: Sequence[str] = (),
        guard: Sequence[Rule] = (),
    ) -> Snapshot:
        """Return what an enforcement point needs for this agent, whose program is started by the name of ``program``.

        ``extra_files`` count as the user's; ``project_file`` is a trusted project's own, which may only
        narrow; what is below ``launch_dirs`` may be read and executed. Raises PolicyError.
        """
        if self.missing:
            raise PolicyError(self.missing)
        sources = list(self.sources)
        for path in extra_files:
            sources.append((USER, read_source(path)))
        if problems := check_references(sources):
            raise PolicyError(problems)
        values = dict(variables)
        chosen = roles_for(sources, agent_name, exe, sha256, values)
        roles = inherited(sources, [role for _, role in chosen])
        secrets, uses = secrets_of(sources, agent_name, values)
        rules = [*guard, *role_rules(sources, roles, values), *uses, *sensitive_rules(sources)]
        limits = quotas_of(sources, agent_name, exe, sha256, values, roles)
        if project_file is not None:
            own = read_source(project_file)
            narrowing, its_roles = _narrowing(own, agent_name, exe, sha256, values)
            rules += narrowing
            limits += quotas_of([(PROJECT, own)], agent_name, exe, sha256, values, its_roles)
        for place in launch_dirs:
            for op in ("read", "list", "execute"):
                pattern = escape(place.rstrip("/")) + "/**"
                rules.append(Rule(PACK, ALLOW, op, pattern, source="remit: the agent's own program"))
        # Agents look upwards from the project for a repository or a configuration, and node from where it is installed.
        for place in sorted(_above(values.get("PROJECT", "/"), *launch_dirs)):
            rules.append(Rule(PACK, ALLOW, "list", escape(place), source="remit: above the project"))
        rules += linked(rules)
        rules += grants
        used = [s.document.role[r] for _, s in sources for r in roles if r in s.document.role]
        said = {role.reads for role in used}
        net_all = any(role.net.all for role in used)
        clash = next(
            (
                r
                for r in rules
                if net_all and r.op in ("connect", "request") and r.layer in (ADMIN, USER, PROJECT)
            ),
            None,
        )
        if clash is not None:
            file, _, line = clash.source.rpartition(":")
            raise PolicyError(
                [Problem(file, int(line), 1, "a connect rule for an agent with 'net.all = true'",
                         "one of them: what is unmediated obeys no rule")]
            )  # fmt: skip
        arguments, env = started_with(sources, agent_name, exe, sha256, values, program)
        return Snapshot(
            agent_name,
            tuple(rules),
            reads="fixed" if "fixed" in said and "ask" not in said else "ask",
            net_all=net_all,
            variables=values,
            secrets=tuple(secrets),
            arguments=arguments,
            env=env,
            limits=tuple(limits),
            signs=tuple(dict.fromkeys(host for role in used for host in role.net.sign)),
            signs_as=next((a for role in used[::-1] if (a := role.net.signature_agent)), ""),
            trailers=with_trailers(sources, agent_name, exe, sha256, values),
        )


def _above(project: str, *places: str) -> set[str]:
    """Return the directories that hold ``project``, and those that hold a ``node_modules`` of ``places``."""
    found = set()
    for path in (project, *(p for p in places if os.path.basename(p) == "node_modules")):
        while path != "/":
            path = os.path.dirname(path)
            found.add(path)
    return found


def _home() -> dict[str, str]:
    return {"HOME": os.path.expanduser("~")}


def agent_name_for(exe: str, argv0: str) -> str:
    """Return the name of an agent that no policy names: that of its program, without an extension."""
    name = os.path.basename(argv0) or os.path.basename(exe) or "agent"
    stem, _, extension = name.rpartition(".")
    return stem if stem and extension in ("py", "js", "mjs", "cjs", "sh", "rb", "pl") else name


def read_source(path: str, *, owner: int | None = None, name: str | None = None) -> Source:
    """Read and check the one policy file ``path``. Raises PolicyError."""
    source = read_document(name or path, read_bytes(path, owner=owner))
    if problems := [*check_examples(source), *check_programs(source)]:
        raise PolicyError(problems)
    return source


def packs() -> list[tuple[int, Source]]:
    """Return the built-in packs. They are part of the program: an error in one is a bug and raises."""
    out = []
    for entry in sorted(resources.files("remit_policy.packs").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".toml"):
            source = read_document(f"built-in {entry.name}", entry.read_bytes(), pack=True)
            out.append((PACK, source))
    return out


def check_file(path: str, others: PolicySet) -> list[Problem]:
    """Return what is wrong with ``path`` as one more policy file beside ``others``; nothing is: []."""
    try:
        source = read_source(path)
    except PolicyError as e:
        return e.problems
    sources = [
        (layer, s) for layer, s in others.sources if os.path.realpath(s.file) != os.path.realpath(path)
    ]
    return [p for p in check_references([*sources, (USER, source)]) if p.file == path]


def load(dirs: PolicyDirs, previous: PolicySet | None = None) -> PolicySet:
    """Read all policy files; ``previous`` is what was in force until now. Never raises for what is in them."""
    good = {source.file: (layer, source) for layer, source in previous.sources} if previous else {}
    sources = packs()
    problems: list[Problem] = []
    missing: list[Problem] = []
    never = {p.file for p in previous.missing} if previous else set()

    def keep(layer: int, file: str, found: Iterable[Problem]) -> None:
        found = list(found)
        problems.extend(found)
        if file in good and good[file][0] == layer:
            sources.append(good[file])
        elif previous is None or file in never:
            missing.extend(found)

    for layer, folder, owner in ((ADMIN, dirs.admin, dirs.admin_owner), (USER, dirs.user, None)):
        if not folder:
            continue
        try:
            files = _files(folder, owner)
        except PolicyError as e:
            keep(layer, folder, e.problems)
            sources += [s for f, s in good.items() if s[0] == layer and os.path.dirname(f) == folder]
            continue
        for file in files:
            try:
                sources.append((layer, read_source(file, owner=owner)))
            except PolicyError as e:
                keep(layer, file, e.problems)
    # A file that names roles which are not there falls back as well; its fall may take others with it.
    while wrong := check_references(sources):
        for file in {p.file for p in wrong}:
            at = next(i for i, (_, s) in enumerate(sources) if s.file == file)
            layer, source = sources.pop(at)
            mine = [p for p in wrong if p.file == file]
            if good.get(file, (None, None))[1] is source:
                good.pop(file)
            keep(layer, file, mine)
    return PolicySet(sources, problems, missing)


def _files(folder: str, owner: int | None) -> list[str]:
    """Return the policy files of a directory, sorted. Raises PolicyError."""
    try:
        info = os.stat(folder)
        names = sorted(n for n in os.listdir(folder) if n.endswith(".toml") and not n.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as e:
        text = f"cannot be read: {e.strerror}".lower()
        raise PolicyError([Problem(folder, 1, 1, text, "a directory of policy files")]) from None
    if owner is not None and (info.st_uid != owner or info.st_mode & 0o022):
        text = "others may change this directory"
        raise PolicyError(
            [Problem(folder, 1, 1, text, "a directory owned by root that only root may write")]
        )
    if len(names) > MAX_FILES:
        raise PolicyError([Problem(folder, 1, 1, "too many policy files", f"at most {MAX_FILES}")])
    return [f"{folder}/{name}" for name in names]


def _narrowing(
    source: Source, agent_name: str, exe: str, sha256: str, values: dict[str, str]
) -> tuple[list[Rule], list[str]]:
    """Return a project's own rules, denies and asks of its ``default`` role and of its roles for this agent; and
    these roles."""
    own = [(PROJECT, source)]
    problems = check_references(own)
    for name, role in source.document.role.items():
        tables: list[tuple[tuple[str | int, ...], Any]] = [
            (("files", k), t) for k, t in role.files.__dict__.items() if t is not None
        ]
        tables += [(("exec", k), t) for k, t in role.exec.items()]
        tables += [(p[2:], t) for _, p, t, _ in resource_tables(role, name)]
        for path, table in tables:
            if table.allow:
                where = ("role", name, *path, "allow")
                problems.append(source.problem(where, "an allow in a project's policy", "ask or deny"))
        if role.net.all or role.reads == "fixed":
            where = ("role", name, *(("net", "all") if role.net.all else ("reads",)))
            problems.append(source.problem(where, "this would widen what is allowed", "ask or deny"))
        if role.net.sign or role.net.signature_agent:
            where = ("role", name, "net", "sign" if role.net.sign else "signature_agent")
            problems.append(source.problem(where, "signing in a project's policy", "a person's own file"))
    if problems:
        raise PolicyError(problems)
    roles = [DEFAULT_ROLE]
    for section, agent in source.document.agent.items():
        if agent_fits(section, source, agent_name, exe, sha256, values):
            roles += agent.roles
    roles = inherited(own, roles)
    return role_rules(own, roles, values), roles
