"""What the broker knows at one moment. Its records are immutable, so a shallow copy is a way back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from remit_daemon.broker.decider import Decider
from remit_daemon.broker.events import Refused
from remit_daemon.broker.records import Account, Grant, Prompt, Session, Standing, Stated
from remit_daemon.broker.states import PromptState
from remit_daemon.wire.rpc import CONFLICT, NOT_FOUND
from remit_policy.model import Snapshot


@dataclass(slots=True)
class State:
    """``holds`` maps (session, seq) to the prompt it waits for; ``looks`` a prompt to who looks at it; ``bases``
    a live session to its policy without grants; ``withheld`` an agent to when its program changed: what was granted it for longer than a session
    until then is not used; ``engines`` to its two deciders (policy with grants, grants alone); ``stated`` a session to what
    its agent said that it is about to do; ``accounts`` is what counts against limits."""

    revision: int
    sessions: dict[str, Session] = field(default_factory=dict)
    prompts: dict[str, Prompt] = field(default_factory=dict)
    grants: dict[str, Grant] = field(default_factory=dict)
    holds: dict[tuple[str, int], str] = field(default_factory=dict)
    looks: dict[str, frozenset[int]] = field(default_factory=dict)
    bases: dict[str, Snapshot] = field(default_factory=dict)
    engines: dict[str, tuple[Decider, Decider]] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    withheld: dict[str, float] = field(default_factory=dict)
    stated: dict[str, tuple[Stated, ...]] = field(default_factory=dict)
    next_prompt: int = 1
    next_grant: int = 1
    standing: Standing = field(default_factory=Standing)

    def session(self, ident: str) -> Session:
        """Return the session ``ident``. Raises Refused when there is none."""
        try:
            return self.sessions[ident]
        except KeyError:
            raise Refused(NOT_FOUND, f"no session {ident}") from None

    def running(self, ident: str) -> Session:
        """Return the session ``ident``. Raises Refused when there is none, or nobody runs it: it has ended, or has no policy yet."""
        session = self.session(ident)
        if not session.live or ident not in self.bases:
            raise Refused(CONFLICT, f"session {ident} is not running")
        return session

    def prompt(self, ident: str) -> Prompt:
        """Return the prompt ``ident``. Raises Refused when there is none."""
        try:
            return self.prompts[ident]
        except KeyError:
            raise Refused(NOT_FOUND, f"no prompt {ident}") from None

    def grant(self, ident: str) -> Grant:
        """Return the grant ``ident``. Raises Refused when there is none."""
        try:
            return self.grants[ident]
        except KeyError:
            raise Refused(NOT_FOUND, f"no grant {ident}") from None

    def open_of(self, session: str) -> list[Prompt]:
        """Return the open prompts of ``session``, or with "" those of programs outside any, oldest first."""
        return [p for p in self.prompts.values() if p.session == session and p.state is PromptState.OPEN]

    def holding(self, prompt: str) -> int:
        """Return how many operations wait for ``prompt``."""
        return sum(1 for v in self.holds.values() if v == prompt)

    def waits(self, grant: Grant) -> bool:
        """Tell whether ``grant`` is withheld: the agent's program has changed since it was given. What was denied stays denied."""
        return before_change(grant, self.withheld.get(grant.agent, -1.0))

    def confined(self, session: str) -> bool:
        """Tell whether an answer to ``session`` is enforced; what is asked from outside any is about a token, which remitd itself withholds."""
        found = self.sessions.get(session)
        return found is None or found.confined

    def chain(self, session: str) -> list[str]:
        """Return ``session`` and those above it, the person's own last."""
        found = [session]
        while (known := self.sessions.get(found[-1])) is not None and known.parent:
            found.append(known.parent)
        return found

    def below(self, session: str) -> list[str]:
        """Return the live sub-sessions of ``session``, at any depth."""
        return [
            s.id for s in self.sessions.values() if s.live and s.parent and session in self.chain(s.id)[1:]
        ]

    def copy(self) -> State:
        """Return a state that can change without changing this one."""
        return replace(
            self,
            sessions=dict(self.sessions),
            prompts=dict(self.prompts),
            grants=dict(self.grants),
            holds=dict(self.holds),
            looks=dict(self.looks),
            bases=dict(self.bases),
            engines=dict(self.engines),
            accounts=dict(self.accounts),
            withheld=dict(self.withheld),
            stated=dict(self.stated),
        )


def before_change(grant: Grant, since: float) -> bool:
    """Tell whether ``grant`` allows something beyond one session and was given by ``since``, when the agent's program changed."""
    return grant.verdict == "allow" and not grant.session and grant.created <= since
