"""The machines of a prompt and of a session, as tables.

A move that the table does not have raises and changes nothing: a prompt is settled once, a session ends once.
A prompt that nobody answered (``missed``) may still be turned into a rule, so it may be allowed or denied later.
"""

from __future__ import annotations

from enum import Enum


class PromptState(Enum):
    OPEN = "open"
    ALLOWED = "allowed"
    DENIED = "denied"
    MISSED = "missed"


class PromptMove(Enum):
    ALLOW = "allow"
    DENY = "deny"
    MISS = "miss"


class SessionState(Enum):
    RUNNING = "running"
    PAUSED = "paused"
    ENDED = "ended"


class SessionMove(Enum):
    PAUSE = "pause"
    RESUME = "resume"
    END = "end"


class IllegalMove(Exception):
    """The machine has no such move from where it is."""


PROMPT: dict[PromptState, dict[PromptMove, PromptState]] = {
    PromptState.OPEN: {
        PromptMove.ALLOW: PromptState.ALLOWED,
        PromptMove.DENY: PromptState.DENIED,
        PromptMove.MISS: PromptState.MISSED,
    },
    PromptState.MISSED: {
        PromptMove.ALLOW: PromptState.ALLOWED,
        PromptMove.DENY: PromptState.DENIED,
    },
    PromptState.ALLOWED: {},
    PromptState.DENIED: {},
}

SESSION: dict[SessionState, dict[SessionMove, SessionState]] = {
    SessionState.RUNNING: {
        SessionMove.PAUSE: SessionState.PAUSED,
        SessionMove.END: SessionState.ENDED,
    },
    SessionState.PAUSED: {
        SessionMove.RESUME: SessionState.RUNNING,
        SessionMove.END: SessionState.ENDED,
    },
    SessionState.ENDED: {},
}


def move_prompt(state: PromptState, move: PromptMove) -> PromptState:
    """Return where ``move`` leads a prompt in ``state``. Raises IllegalMove."""
    try:
        return PROMPT[state][move]
    except KeyError:
        raise IllegalMove(f"the prompt is already {state.value}") from None


def move_session(state: SessionState, move: SessionMove) -> SessionState:
    """Return where ``move`` leads a session in ``state``. Raises IllegalMove."""
    try:
        return SESSION[state][move]
    except KeyError:
        raise IllegalMove(f"the session is {state.value}") from None
