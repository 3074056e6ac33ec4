"""What others are shown of the broker's records: the objects of ``wire.rpc``."""

from __future__ import annotations

from typing import Any

from remit_daemon.broker.limits import extension
from remit_daemon.broker.records import Grant, Prompt, Session, Standing
from remit_daemon.broker.scopes import describe, exec_scope, exec_tokens
from remit_daemon.broker.states import PromptState
from remit_policy.match import escape
from remit_policy.resources import exact


def session_view(session: Session, waiting: int) -> dict[str, Any]:
    """Return the wire Session; ``waiting`` is the number of its open prompts."""
    return {
        "id": session.id,
        "agent": session.agent,
        "parent": session.parent or None,
        "pid": session.pid,
        "project": session.project,
        "argv": list(session.argv),
        "started": session.started,
        "ended": session.ended,
        "state": session.state.value,
        "status": session.status,
        "ask": session.ask,
        "net_all": session.net_all,
        "waiting": waiting,
        "assurance": session.assurance,
        "confined": session.confined,
        "enforced": list(session.enforced),
    }


def prompt_view(
    prompt: Prompt, holding: int, looking: bool, confined: bool, whom: str = "", limit: str = ""
) -> dict[str, Any]:
    """Return the wire Prompt; ``holding`` is the number of operations that wait for it now, ``confined`` its session's, ``whom`` a rule for
    longer would be for ("": who asks), ``limit`` the state of the limit that is spent."""
    answer, about = prompt.answer, prompt.consent
    if about is not None and prompt.state is PromptState.OPEN:
        holding = len(about.requests)
    scopes = []
    for scope in prompt.scopes:
        if prompt.limit:
            rule = extension(prompt, scope.pattern, "allow")
            scopes.append({"scope": scope.pattern, "label": scope.label, "rule": rule})
            continue
        ops, patterns, tokens = meaning(prompt, scope.pattern)
        rule = describe("allow", ops, patterns, whom or prompt.agent, "always", tokens)
        scopes.append({"scope": scope.pattern, "label": scope.label, "rule": rule})
    return {
        "id": prompt.id,
        "state": prompt.state.value,
        "agent": prompt.agent,
        "session": prompt.session,
        "project": prompt.project,
        "ops": list(prompt.ops),
        "path": prompt.path,
        "path2": prompt.path2,
        "pid": prompt.pid,
        "exe": prompt.exe,
        "comm": prompt.comm,
        "argv": list(prompt.argv),
        "chain": [{"pid": p.pid, "comm": p.comm, "exe": p.exe} for p in prompt.chain],
        "kind": prompt.kind,
        "before": {
            "allowed": prompt.before.allowed,
            "denied": prompt.before.denied,
            "missed": prompt.before.missed,
        },
        "source": prompt.source,
        "count": prompt.count,
        "created": prompt.created,
        "looking": looking,
        "holding": holding,
        "answer": answer
        and {
            "verdict": answer.verdict,
            "for": answer.duration,
            "scope": answer.scope,
            "rule": answer.rule,
            "by": answer.by,
            "via": answer.via,
            "at": answer.at,
        },
        "scopes": scopes,
        "limit": limit,
        "facts": [{"label": f.label, "text": f.text} for f in prompt.consent.facts]
        if prompt.consent
        else [],
        "purpose": prompt.purpose,
        "confined": confined,
    }


def is_exec(ops: tuple[str, ...], argv: tuple[str, ...]) -> bool:
    """Tell whether the question is about running a program with these arguments."""
    return bool(argv) and ("exec" in ops or "execute" in ops)


def exec_argv(ops: tuple[str, ...], argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``argv`` where the question is about running a program with it, else none."""
    return argv if is_exec(ops, argv) else ()


def meaning(prompt: Prompt, scope: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...] | None]:
    """Return the operations, patterns and argument patterns of a grant of ``scope``.

    The narrowest scope of a rename covers both its paths. Raises PatternError for a scope that is none.
    """
    if is_exec(prompt.ops, prompt.argv):
        return ("exec",), (escape(prompt.path),), exec_tokens(scope, prompt.path)
    if prompt.scopes and scope == prompt.scopes[0].pattern:
        return prompt.ops, tuple(exact(prompt.ops[0], p) for p in prompt.paths), None
    return prompt.ops, (scope,), None


def grant_scope(grant: Grant) -> str:
    """Return the scope of ``grant`` as a person writes it; of a rename's pair the first path."""
    return grant.patterns[0] if grant.argv is None else exec_scope(grant.patterns[0], grant.argv)


def grant_view(grant: Grant) -> dict[str, Any]:
    """Return the wire Grant."""
    return {
        "id": grant.id,
        "agent": grant.agent,
        "session": grant.session or None,
        "ops": list(grant.ops),
        "scope": grant_scope(grant),
        "verdict": grant.verdict,
        "for": grant.duration,
        "rule": describe(grant.verdict, grant.ops, grant.patterns, grant.agent, grant.duration, grant.argv),
        "created": grant.created,
        "expires": grant.expires,
        "last_used": grant.last_used,
        "uses": grant.uses,
        "denials": grant.denials,
        "by": grant.by,
        "via": grant.via,
        "prompt": grant.prompt,
        "reviewed": grant.reviewed,
        "suspended": grant.suspended,
    }


def quiet_view(standing: Standing, now: float) -> dict[str, Any] | None:
    """Return the quiet mode that is in force at ``now`` as the wire has it, None when there is none."""
    if not standing.quiet or standing.quiet_until <= now:
        return None
    return {"mode": standing.quiet, "until": standing.quiet_until}


def session_entry(session: Session, op: str, *, actor: str = "remit", **fields: Any) -> dict[str, Any]:
    """Return the ledger's row for ``op`` of ``session``."""
    return {"actor": actor, "agent": session.agent, "session": session.id, "op": op, **fields}


def answer_entry(prompt: Prompt, verdict: str, note: str) -> dict[str, Any]:
    """Return the ledger's row of a person's answer to ``prompt``."""
    return {
        "actor": "human", "agent": prompt.agent, "session": prompt.session, "op": "answer", "verdict": verdict, "outcome": "answered",
        "path": prompt.path, "path2": prompt.path2, "prompt": prompt.id, "note": note, "pid": prompt.pid, "proc": prompt.proc, "exe": prompt.exe,
    }  # fmt: skip
