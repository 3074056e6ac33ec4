"""What the prompts screen knows, and how what it shows becomes answerable; ``machine`` holds the events."""

from __future__ import annotations

from dataclasses import dataclass, replace

from remit_tui.events import ONCE, TERMS, Choice
from remit_tui.records import Prompt, Session
from remit_tui.standing import NOTHING, Standing

QUIET = 0.7  # s without keystrokes: longer than the gap between two keys of somebody who types
STALL = 2.0  # s without a tick (every 0.2 s): we were stopped, and the keys that come now are old
ATTENTION = 120.0  # s after the last key in which we believe that a person is reading

EARLY = "too early: that key was ignored; wait a moment without typing"
UNREAD = "there is more to read before you can allow: scroll down first (space or PgDn)"


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule that a choice would save, as remitd words it; or why it cannot be told."""

    choice: Choice
    rule: str
    scope: str
    error: str


@dataclass(frozen=True, slots=True)
class State:
    """All that the screen shows. Times are of the injected clock, in seconds."""

    now: float = 0.0
    up: bool = False
    why: str = "connecting"
    prompts: tuple[Prompt, ...] = ()
    sessions: tuple[Session, ...] = ()
    standing: Standing = NOTHING
    missed: tuple[Prompt, ...] = ()
    past: bool = False  # what is listed are the missed ones
    recall: bool = False  # they are to be read anew
    selected: str = ""
    shown: str = ""
    left: frozenset[str] = frozenset()
    verdict: str = "deny"
    term: int = ONCE
    scope: int = 0
    edited: str = ""
    message: str = ""
    filter: str = ""
    marked: frozenset[str] = frozenset()
    bulk: bool = False
    page: int = 0
    anchor: str = "top"
    painted: float | None = None
    read: bool = False
    armed: bool = False
    last_key: float = 0.0
    rule: Rule | None = None
    asked: Choice | None = None
    reach: tuple[Choice, str] | None = (
        None  # what a choice would also permit; the text is "" until that is known
    )
    answering: Choice | None = None
    focus: bool = True
    attended: float = 0.0
    looked: str = ""
    notice: str = ""

    @property
    def source(self) -> tuple[Prompt, ...]:
        """The prompts that the list is of: those that wait, or those that were missed."""
        return self.missed if self.past else self.prompts

    @property
    def prompt(self) -> Prompt | None:
        """The shown prompt."""
        return next((p for p in self.source if p.id == self.shown), None)

    @property
    def offered(self) -> tuple[int, ...]:
        """The terms (of TERMS) for which an answer to the shown prompt can count."""
        return terms(self.prompt, self.sessions) if self.prompt else ()

    @property
    def queue(self) -> tuple[Prompt, ...]:
        """The prompts that are listed: all, or those that hold the filter's text."""
        if not self.filter:
            return self.source
        return tuple(p for p in self.source if matches(p, self.filter))

    @property
    def chosen(self) -> tuple[Prompt, ...]:
        """The marked prompts, in the list's order."""
        return tuple(p for p in self.prompts if p.id in self.marked) if self.marked else ()

    @property
    def index(self) -> int:
        """The selected prompt's place in the list; -1 without one."""
        return next((i for i, p in enumerate(self.queue) if p.id == self.selected), -1)

    @property
    def pattern(self) -> str:
        """The scope as it is set now: the edited one, or that of the offer."""
        prompt = self.prompt
        if prompt is None or not prompt.scopes:
            return ""
        return self.edited or prompt.scopes[self.scope].pattern

    @property
    def choice(self) -> Choice | None:
        """The answer as it is set now."""
        prompt = self.prompt
        if prompt is None:
            return None
        if self.term != ONCE:
            scope = self.pattern
        else:  # a spent limit alone has a wider scope for once, and to deny it is about this act
            scope = self.pattern if prompt.limit and self.scope and self.verdict == "allow" else ""
        message = self.message if self.verdict == "deny" else ""
        return Choice(prompt.id, self.verdict, self.term, scope, message)

    @property
    def lasting(self) -> bool:
        """Whether the answer as it is set now is about more than this request: its rule has to be read first."""
        return self.choice is not None and (self.term != ONCE or bool(self.choice.scope))

    @property
    def ruled(self) -> Rule | None:
        """The rule of the answer as it is set now, once it is known."""
        return self.rule if self.rule and self.rule.choice == self.choice else None


def terms(prompt: Prompt, sessions: tuple[Session, ...]) -> tuple[int, ...]:
    """Return the terms (of TERMS) for which an answer to ``prompt`` can count.

    A spent limit is extended once. What was missed waits for nothing, so once is nothing; a program that asked for a token has gone.
    For its session an answer counts where there is one, that has not ended.
    """
    if prompt.limit:
        return () if prompt.state == "missed" else (ONCE,)
    if prompt.state == "missed" and prompt.about_token:
        return ()
    ended = any(s.id == prompt.session and s.state == "ended" for s in sessions)
    missing = prompt.state == "missed" and not any(s.id == prompt.session for s in sessions)
    without = {"once"} if prompt.state == "missed" else set()
    if ended or missing or not prompt.session:
        without.add("session")
    return tuple(i for i, (name, _) in enumerate(TERMS) if name not in without)


def matches(prompt: Prompt, text: str) -> bool:
    """Tell whether each word of ``text`` is somewhere in what ``prompt`` is about; case does not matter."""
    held = " ".join(
        (prompt.agent, prompt.session, *prompt.ops, prompt.path, prompt.path2, prompt.comm)
    ).lower()
    return all(word in held for word in text.lower().split())


def ordered(prompts: tuple[Prompt, ...]) -> tuple[Prompt, ...]:
    """Return ``prompts`` grouped by agent, the one that waits longest first, and by age within."""
    first: dict[str, float] = {}
    for p in prompts:
        first[p.agent] = min(p.created, first.get(p.agent, p.created))
    return tuple(sorted(prompts, key=lambda p: (first[p.agent], p.agent, p.created)))


def arm(s: State, now: float) -> State:
    """Arm what is shown once it was painted, and the keyboard quiet, for long enough."""
    if s.armed or not s.up or not (s.shown or s.bulk) or s.painted is None:
        return s
    return replace(s, armed=now - max(s.painted, s.last_key) >= QUIET)


def disarm(s: State, now: float) -> State:
    """Start the wait for quiet again."""
    return replace(s, armed=False, last_key=now)


def turn_page(s: State, anchor: str) -> State:
    """What is to be read has changed: it counts as unseen until it is painted again."""
    return replace(s, page=s.page + 1, painted=None, read=False, anchor=anchor)


def _first(s: State, prompt_id: str) -> int:
    prompt = next((p for p in s.source if p.id == prompt_id), None)
    return next(iter(terms(prompt, s.sessions)), ONCE) if prompt else ONCE


def show(s: State, prompt_id: str) -> State:
    """Show the prompt ``prompt_id`` ("" for none) with nothing chosen yet."""
    s = replace(
        s,
        shown=prompt_id,
        verdict="deny",
        term=_first(s, prompt_id),
        scope=0,
        edited="",
        message="",
        rule=None,
        armed=False,
        bulk=False,
    )
    if prompt_id:
        s = replace(s, selected=prompt_id, left=s.left - {prompt_id}, attended=s.now)
    return turn_page(s, "top")


def show_next(s: State, at: int) -> State:
    """Show the first prompt from ``at`` on that was not left; select one at least."""
    queue = s.queue
    if not queue:
        return show(replace(s, selected=""), "")
    at = min(at, len(queue) - 1)
    for prompt in (*queue[at:], *queue[:at]):
        if prompt.id not in s.left:
            return show(s, prompt.id)
    return show(replace(s, selected=queue[at].id), "")
