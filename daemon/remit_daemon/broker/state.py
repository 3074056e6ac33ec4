"""What the broker knows at one moment. Its records are immutable, so a shallow copy is a way back."""

from __future__ import annotations

from dataclasses import dataclass, field

from remit_daemon.broker.decider import Decider
from remit_daemon.broker.records import Account, Grant, Prompt, Session
from remit_policy.model import Snapshot


@dataclass(slots=True)
class State:
    """``holds`` maps (session, seq) to the prompt it waits for; ``looks`` a prompt to who looks at it; ``bases``
    a live session to its policy without grants; ``engines`` to its two deciders (policy with grants, grants alone);
    ``accounts`` is what counts against limits."""

    revision: int
    sessions: dict[str, Session] = field(default_factory=dict)
    prompts: dict[str, Prompt] = field(default_factory=dict)
    grants: dict[str, Grant] = field(default_factory=dict)
    holds: dict[tuple[str, int], str] = field(default_factory=dict)
    looks: dict[str, frozenset[int]] = field(default_factory=dict)
    bases: dict[str, Snapshot] = field(default_factory=dict)
    engines: dict[str, tuple[Decider, Decider]] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    next_prompt: int = 1
    next_grant: int = 1

    def copy(self) -> State:
        """Return a state that can change without changing this one."""
        return State(
            self.revision, dict(self.sessions), dict(self.prompts), dict(self.grants), dict(self.holds),
            dict(self.looks), dict(self.bases), dict(self.engines), dict(self.accounts), self.next_prompt,
            self.next_grant,
        )  # fmt: skip
