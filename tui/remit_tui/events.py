"""What can happen to the prompts screen (events), and what it wants done (commands)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from remit_tui.records import Prompt, Session
from remit_tui.standing import Standing

# How long an answer lasts: what a person reads, and what the wire says (text or seconds).
TERMS: tuple[tuple[str, str | int], ...] = (
    ("once", "once"),
    ("session", "session"),
    ("15 min", 900),
    ("8 h", 28800),
    ("always", "always"),
)
ONCE = 0


class Action(Enum):
    """What a key means. ``OTHER`` is every key that means nothing."""

    UP = "up"
    DOWN = "down"
    TOP = "top"
    BOTTOM = "bottom"
    SCROLL = "scroll"
    LEAVE = "leave"
    ENTER = "enter"
    ALLOW = "allow"
    DENY = "deny"
    TURN = "turn"
    TERM = "term"
    BROADER = "broader"
    NARROWER = "narrower"
    EDIT = "edit"
    TELL = "tell"
    PAUSE = "pause"
    STOP = "stop"
    MARK = "mark"
    MARK_AGENT = "mark_agent"
    BULK = "bulk"
    PAST = "past"
    OTHER = "other"


# Keys that only move about: they work at any time, and never start an answer.
MOVES = frozenset(
    {Action.UP, Action.DOWN, Action.TOP, Action.BOTTOM, Action.SCROLL, Action.LEAVE},
)
# Keys that choose several prompts: they answer nothing, and work at any time as well.
MARKS = frozenset({Action.MARK, Action.MARK_AGENT, Action.BULK})


@dataclass(frozen=True, slots=True)
class Choice:
    """One possible answer. ``term`` indexes TERMS; ``scope`` is "" for the request itself; ``message`` is to the agent."""

    id: str
    verdict: str
    term: int
    scope: str
    message: str = ""


# Events.


@dataclass(frozen=True, slots=True)
class Key:
    """A person pressed a key; ``term`` only with ``Action.TERM``."""

    action: Action
    term: int = 0


@dataclass(frozen=True, slots=True)
class Paste:
    """The terminal delivered pasted text."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time went by."""


@dataclass(frozen=True, slots=True)
class Focus:
    """The terminal got or lost the keyboard; or a help page came before the prompt, or left."""

    on: bool


@dataclass(frozen=True, slots=True)
class Painted:
    """Page number ``page`` is on the terminal; ``end``: and all of it was in view, or scrolled to."""

    page: int
    end: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """A connection to remitd is up, and this is what it says."""

    prompts: tuple[Prompt, ...]
    sessions: tuple[Session, ...]


@dataclass(frozen=True, slots=True)
class Missed:
    """These prompts nobody answered in time, as remitd has them now."""

    prompts: tuple[Prompt, ...]


@dataclass(frozen=True, slots=True)
class Stood:
    """This stands for all sessions now: a quiet time, and how many grants want a look."""

    standing: Standing


@dataclass(frozen=True, slots=True)
class Lost:
    """There is no connection to remitd; it is being tried again."""

    why: str


@dataclass(frozen=True, slots=True)
class Changed:
    """A prompt is new or has changed."""

    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Done:
    """A prompt is over: allowed, denied or missed."""

    id: str
    state: str


@dataclass(frozen=True, slots=True)
class Ran:
    """A session is new or has changed."""

    session: Session


@dataclass(frozen=True, slots=True)
class Previewed:
    """``choice`` would save ``rule``; or, with ``error``, could not be asked for."""

    choice: Choice
    rule: str
    scope: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Reached:
    """``choice`` would also permit what ``text`` (fit to be shown) counts; "" when nobody knows."""

    choice: Choice
    text: str


@dataclass(frozen=True, slots=True)
class Answered:
    """remitd took the answer; ``settled`` are all the prompts that it closed."""

    choice: Choice
    rule: str
    settled: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Beaten:
    """Somebody else had answered; ``how`` says who and what, already fit to be shown."""

    choice: Choice
    how: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The answer was not taken, for ``gone`` because there is no such prompt; ``unsure``: whether it was is unknown."""

    choice: Choice
    why: str
    gone: bool = False
    unsure: bool = False


@dataclass(frozen=True, slots=True)
class AnsweredAll:
    """Several answers were given: ``settled`` prompts are closed, and ``failed`` says why others are not, fit to be shown."""

    verdict: str
    settled: tuple[str, ...]
    failed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scoped:
    """A person wrote a scope of their own for the prompt ``id``."""

    id: str
    scope: str


@dataclass(frozen=True, slots=True)
class Said:
    """A person wrote what a denial of the prompt ``id`` is to tell the agent."""

    id: str
    message: str


@dataclass(frozen=True, slots=True)
class Filtered:
    """Only prompts that hold ``text`` are to be listed; "" lists all."""

    text: str


@dataclass(frozen=True, slots=True)
class Told:
    """Something was done, or was not; ``text`` says it, fit to be shown."""

    text: str


Event = (
    Missed | Stood | Reached | AnsweredAll | Scoped | Said | Filtered | Told |
    Key | Paste | Tick | Focus | Painted | Loaded | Lost | Changed | Done | Ran
    | Previewed | Answered | Beaten | Failed
)  # fmt: skip

# Commands.


@dataclass(frozen=True, slots=True)
class Look:
    """Tell remitd that a person reads this prompt, or no longer does."""

    id: str
    on: bool


@dataclass(frozen=True, slots=True)
class Preview:
    """Ask remitd which rule this choice would save."""

    choice: Choice


@dataclass(frozen=True, slots=True)
class Answer:
    """Give remitd the answer."""

    choice: Choice


@dataclass(frozen=True, slots=True)
class Reach:
    """Ask remitd what else this choice would permit."""

    choice: Choice


@dataclass(frozen=True, slots=True)
class AnswerAll:
    """Give remitd these answers, one after another."""

    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class EditScope:
    """Let the person write a scope for this choice."""

    choice: Choice


@dataclass(frozen=True, slots=True)
class AskMessage:
    """Let the person write what a denial is to tell the agent."""

    id: str
    message: str


@dataclass(frozen=True, slots=True)
class Steer:
    """Pause, resume or stop (which asks once more) a session."""

    session: str
    agent: str
    action: str


@dataclass(frozen=True, slots=True)
class Recall:
    """Ask remitd which prompts were missed."""


@dataclass(frozen=True, slots=True)
class Ring:
    """Sound the terminal's bell: something waits that did not before."""


Command = Look | Preview | Reach | Answer | AnswerAll | EditScope | AskMessage | Steer | Recall | Ring
