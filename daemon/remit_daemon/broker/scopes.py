"""What a prompt offers: scopes from narrow to broad, the rules they become, and which edits of them count.

For a file: the path itself, its siblings of the same extension, its directory, the tree below that, the project. An
offer is never broader than the home directory, and it is left out when a protected, guarded or
administrator's place lies inside: there a question must come of its own. An edited scope counts when it is an offer or
lies inside one; whether it still covers the asked path is the engine's word.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from posixpath import basename, dirname

from remit_daemon.broker.records import Grant, Scope
from remit_daemon.broker.resources import MEANINGS, resource_offers, resource_within
from remit_daemon.wire.words import term
from remit_policy.engine import Engine
from remit_policy.match import PatternError, escape, parse
from remit_policy.model import ADMIN, ALLOW, ASK, DENY, GRANT, GUARD, IMPLIED_BY, Rule, Snapshot
from remit_policy.resources import exact, is_path, key

MIN_TREE_DEPTH = (
    2  # components: outside the home a tree like /usr/** or /tmp/** is more than one question asks for
)
_WILD = "*?{"


def _below(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")


def _literal_head(pattern: str) -> tuple[str, bool]:
    """Return the text of ``pattern`` before its first wildcard, unescaped, and whether that is all of it."""
    out, at = "", 0
    while at < len(pattern):
        c = pattern[at]
        if c == "\\":
            at += 1
            out += pattern[at : at + 1]
        elif c in _WILD:
            return out, False
        else:
            out += c
        at += 1
    return out, True


def literal(pattern: str) -> str:
    """Return the text of ``pattern`` before its first wildcard, unescaped."""
    return _literal_head(pattern)[0]


def insists(rule: Rule) -> bool:
    """Tell whether ``rule`` wants a question of its own wherever it applies, whatever broader rule was granted."""
    return rule.protected or rule.layer == GUARD or (rule.layer == ADMIN and rule.verdict in (ASK, DENY))


def _about(rule: Rule, op: str) -> bool:
    return rule.op == op or IMPLIED_BY.get(op) == rule.op or IMPLIED_BY.get(rule.op) == op


def _touches(rule: Rule, top: str, kind: str, suffix: str) -> bool:
    """Tell whether ``rule``'s place may lie inside the offer of ``kind`` at directory ``top``; when unsure, yes."""
    pattern = rule.pattern
    if not pattern.startswith("/"):
        return False  # a floating pattern is more specific than any tree: the engine keeps asking there
    head, whole = _literal_head(pattern)
    if not head.startswith(top + "/"):
        if not whole and head.rstrip("/") == top:
            return True
        covers = pattern.endswith("/**") and not whole
        return covers and _below(top, head.rstrip("/"))
    if kind == "tree":
        return True
    first, slash, _ = head[len(top) + 1 :].partition("/")
    known = whole or bool(slash)
    return not (kind == "ext" and known and not first.endswith(suffix))


def offers(
    ops: Iterable[str],
    path: str,
    path2: str,
    *,
    home: str,
    project: str,
    rules: Iterable[Rule],
) -> tuple[Scope, ...]:
    """Return the scopes offered for ``ops`` on ``path`` (and ``path2``), narrow to broad; never none.

    ``home`` and ``project`` are absolute; ``rules`` those of the session's snapshot.
    """
    ops = set(ops)
    if not all(is_path(op, path) for op in ops):
        return resource_offers(next(iter(ops)), path)
    exact = Scope(escape(path), "exactly this" if not path2 else "exactly these two")
    if not path.startswith("/") or path == "/" or "connect" in ops:
        return (exact,)
    insisting = [r for r in rules if insists(r) and any(_about(r, op) for op in ops)]
    found = [exact]

    def offer(top: str, kind: str, pattern: str, label: str, suffix: str = "") -> None:
        depth = top.count("/") if top != "/" else 0
        inside_home = _below(top, home) and home != "/"
        if (
            depth == 0
            or (kind == "tree" and not inside_home and depth < MIN_TREE_DEPTH)
            or _below(home, top + "/x")
        ):
            return
        if top != home and _below(home, top):
            return  # broader than the home
        if path2 and not _fits(path2, top, kind, suffix):
            return
        if any(_touches(r, top, kind, suffix) for r in insisting):
            return
        if all(s.pattern != pattern for s in found):
            found.append(Scope(pattern, label))

    if "list" in ops:
        offer(path, "tree", escape(path) + "/**", "everything below it")
    top = dirname(path)
    stem, dot, ext = basename(path).rpartition(".")
    if dot and stem and ext:
        offer(top, "ext", f"{escape(top)}/*.{escape(ext)}", f"all .{ext} files in {top}", "." + ext)
    offer(top, "dir", escape(top) + "/*", f"all files in {top}")
    offer(top, "tree", escape(top) + "/**", f"everything below {top}")
    if project and project != home and _below(top, project):
        offer(project, "tree", escape(project) + "/**", "everything in the project")
    return tuple(found)


def _fits(path: str, top: str, kind: str, suffix: str) -> bool:
    if kind == "tree":
        return _below(path, top)
    return dirname(path) == top and path.endswith(suffix)


def within(edit: str, offered: Iterable[Scope]) -> bool:
    """Tell whether the pattern ``edit`` is one of ``offered`` or lies wholly inside one; when unsure, no."""
    try:
        parse(edit)
    except PatternError:
        return False
    for scope in offered:
        pattern = scope.pattern
        if edit == pattern:
            return True
        top, _, last = pattern.rpartition("/")
        if _literal_head(pattern)[1] or not edit.startswith(top + "/"):
            continue
        rest = edit[len(top) + 1 :]
        if last == "**":
            return True
        if "/" in rest or "**" in rest or "{" in rest or not rest:
            continue
        if last == "*" or rest.endswith(last[1:]):
            return True
    return False


def is_single(op: str, pattern: str) -> bool:
    """Tell whether ``pattern`` stands for one single resource of ``op``."""
    if is_path(op, pattern):
        return _literal_head(pattern)[1]
    return bool(key(op, pattern)) and exact(op, pattern) == pattern


def grant_within(grant: Grant, scope: str, edit: str) -> bool:
    """Tell whether ``edit`` covers no more than ``grant``, whose scope is written ``scope``; when unsure, no."""
    offered = (Scope(scope, ""),)
    if grant.argv is not None:
        return exec_within(edit, literal(grant.patterns[0]), offered)
    if is_path(grant.ops[0], scope):
        return within(edit, offered)
    if resource_within(grant.ops[0], edit, offered):
        return True
    if not is_single(grant.ops[0], edit):
        return False
    found = Engine(Snapshot(grant.agent, rules_of(grant))).decide(grant.ops[0], edit)
    return found.rule is not None and found.rule.layer == GRANT


# Programs whose arguments are programs: "any arguments" would be everything.
_RUNNERS = (
    "sh", "bash", "dash", "zsh", "fish", "ksh", "busybox", "env", "xargs", "find", "python", "node", "bun", "deno", "perl",
    "ruby", "php", "lua", "awk", "gawk", "sed", "sudo", "su", "ssh", "nohup", "timeout", "nice", "setsid", "watch", "make",
)  # fmt: skip


def _word(token: str) -> str:
    plain = token and not any(c.isspace() or c in "'\"\\" for c in token)
    return token if plain else shlex.quote(token)


def exec_scope(exe: str, tokens: Iterable[str]) -> str:
    """Return the scope that stands for running ``exe`` (a pattern) with arguments that fit ``tokens``."""
    return " ".join(_word(t) for t in (exe, *tokens))


def exec_tokens(scope: str, exe: str) -> tuple[str, ...]:
    """Return the argument patterns of ``scope``. Raises PatternError when it is not one for the program ``exe``."""
    try:
        words = shlex.split(scope)
    except ValueError as e:
        raise PatternError(f"the scope cannot be read: {e}", "PROGRAM ARGUMENT...") from None
    if not words or words[0] != escape(exe):
        raise PatternError("the scope is for another program", f"{exe} and patterns of arguments")
    return tuple(words[1:])


def exec_offers(exe: str, argv: Sequence[str]) -> tuple[Scope, ...]:
    """Return the scopes offered for running ``exe`` with ``argv`` (argv[0] included), narrow to broad."""
    program, args = escape(exe), [escape(a) for a in argv[1:]]
    found = [Scope(exec_scope(program, args), "exactly this command")]
    name = basename(exe).rstrip("0123456789.")
    if name in _RUNNERS:
        return tuple(found)
    if len(args) > 1 and not args[0].startswith("-"):
        found.append(
            Scope(exec_scope(program, (args[0], "**")), f"{basename(exe)} {argv[1]} with any arguments")
        )
    found.append(Scope(exec_scope(program, ("**",)), f"{basename(exe)} with any arguments"))
    return tuple(s for i, s in enumerate(found) if s.pattern not in [f.pattern for f in found[:i]])


def exec_within(edit: str, exe: str, offered: Iterable[Scope]) -> bool:
    """Tell whether ``edit`` is one of ``offered`` or begins with all its arguments but a last ``**``."""
    try:
        tokens = exec_tokens(edit, exe)
        allowed = [exec_tokens(s.pattern, exe) for s in offered]
    except PatternError:
        return False
    return any(
        tokens == some or (some[-1:] == ("**",) and tokens[: len(some) - 1] == some[:-1])
        for some in allowed
    )


def rules_of(grant: Grant, base: Iterable[Rule] = ()) -> tuple[Rule, ...]:
    """Return the policy rules that ``grant`` is beside ``base``: one for each operation and pattern, of layer GRANT.

    A pattern with wildcards does not cover the places that insist on a question of their own.
    """
    verdict = ALLOW if grant.verdict == "allow" else DENY
    insisting = [r for r in base if insists(r)] if verdict == ALLOW else []
    out = []
    for op in grant.ops:
        kept = tuple(dict.fromkeys(r.pattern for r in insisting if _about(r, op) and r.op != "exec"))
        for pattern in grant.patterns:
            excepts = () if _literal_head(pattern)[1] else kept
            out.append(
                Rule(
                    GRANT,
                    verdict,
                    op,
                    pattern,
                    argv=grant.argv,
                    excepts=excepts,
                    source=f"grant:{grant.id}",
                )
            )
    return tuple(out)


def describe(
    verdict: str,
    ops: Iterable[str],
    patterns: Iterable[str],
    agent: str,
    duration: str,
    tokens: Sequence[str] | None = None,
) -> str:
    """Return the one line that a person reads before and after it is stored."""
    if tokens is not None:
        what = " ".join(f"`{exec_scope(p, tokens)}`" for p in patterns)
    else:
        what = " and ".join(f'"{p}"' for p in patterns)
    meant = "; ".join(MEANINGS[p] for p in patterns if p in MEANINGS) if verdict == "allow" else ""
    when = {"once": "once", "session": "for this session", "always": "always"}.get(
        duration, f"for {term(int(duration))}" if duration.isdigit() else f"for {duration}"
    )
    said = f"{verdict} {agent} {', '.join(ops)} on {what}, {when}"
    return f"{said} ({meant})" if meant else said
