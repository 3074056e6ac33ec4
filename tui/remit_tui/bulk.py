"""One answer to several prompts, from a page that shows each of them whole.

The rule: what is marked may be denied, once, however much it is. It may be allowed, once, when it is no more than MOST
prompts, when all of the page was in view or scrolled through, and when the keyboard was quiet since. Anything that lasts is
answered one by one, since its rule has to be read. A prompt that arrives, changes or ends while the page is read turns
the page: it has to be read again.
"""

from __future__ import annotations

from dataclasses import replace

from remit_tui import events as ev
from remit_tui.events import ONCE, TERMS, Action, Choice, Command
from remit_tui.state import EARLY, UNREAD, State, disarm, show, turn_page

MOST = 12  # prompts that one key may allow: about two screens of reading, more is not read


def mark(s: State, action: Action) -> State:
    """Mark or unmark the selected prompt, or its agent's; or open the page of those that are marked."""
    if action is Action.BULK:
        if not s.marked:
            return replace(s, notice="nothing is marked; ? shows the keys that mark")
        return turn_page(replace(show(s, ""), bulk=True), "top")
    if s.bulk:
        return replace(s, notice="Esc goes back to the list, where marks are set")
    one = next((p for p in s.queue if p.id == s.selected), None)
    if one is None:
        return replace(s, notice="no prompt is selected")
    ids = (
        frozenset(p.id for p in s.queue if p.agent == one.agent)
        if action is Action.MARK_AGENT
        else {one.id}
    )
    marked = s.marked - ids if ids <= s.marked else s.marked | ids
    return replace(s, marked=marked, notice=f"{len(marked)} marked")


def changed(s: State, why: str) -> State:
    """Make the page count as unread, since ``why``; close it when nothing of it is left."""
    s = turn_page(disarm(s, s.now), "top")
    if not s.marked:
        return replace(show(s, ""), notice=f"{why}: nothing is marked any more")
    return replace(s, notice=f"{why}: read the page again")


def key(s: State, action: Action) -> tuple[State, list[Command]]:
    """Obey a key on the page, if it may be."""
    if not s.up:
        return replace(s, notice="that key was ignored: remitd is gone, nothing can be answered"), []
    if s.answering is not None:
        return replace(s, notice="that key was ignored: answers are on their way", last_key=s.now), []
    if not s.armed:
        return replace(s, notice=EARLY, last_key=s.now), []
    if action not in (Action.ALLOW, Action.DENY):
        return replace(s, notice="several are denied or allowed once, nothing else; Esc goes back"), []
    verdict, chosen = action.value, s.chosen
    if verdict == "allow" and len(chosen) > MOST:
        return replace(s, notice=f"at most {MOST} are allowed with one key: nobody reads more"), []
    if verdict == "allow" and not s.read:
        return replace(s, notice=UNREAD), []
    choices = tuple(Choice(p.id, verdict, ONCE, "") for p in chosen)
    return replace(s, answering=Choice("", verdict, ONCE, ""), notice="answering"), [ev.AnswerAll(choices)]


def answered(s: State, event: ev.AnsweredAll) -> State:
    """Say what came of it; the page is over."""
    word = "allowed" if event.verdict == "allow" else "denied"
    notice = f"{word}, {TERMS[ONCE][0]}: {len(event.settled)}"
    if event.failed:
        notice += f"; not answered: {len(event.failed)} ({event.failed[0]})"
    return replace(s, answering=None, bulk=False, marked=frozenset(), notice=notice)
