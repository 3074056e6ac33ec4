"""Prompts that nobody answered in time: a list of their own, and which answers cannot count.

They are answered by the rules of all prompts (``machine``), one by one and for longer than once. What arrives meanwhile waits: it is
shown when the person goes back.
"""

from __future__ import annotations

from dataclasses import replace

from remit_tui.records import Prompt
from remit_tui.state import State, show, show_next


def missed(s: State, prompts: tuple[Prompt, ...]) -> State:
    """List ``prompts`` as those that were missed; the shown one stays so while it is the same question."""
    before, at = s.prompt, max(s.index, 0)
    s = replace(s, missed=tuple(sorted(prompts, key=lambda p: -p.created)))
    if not s.past:
        return s
    after = s.prompt
    if after is not None and before is not None and after.question == before.question:
        return s
    return show(s, after.id) if after is not None else show_next(s, at)


def turned(s: State) -> State:
    """Go to the missed prompts, or back to what waits."""
    s = show(replace(s, past=not s.past, recall=not s.past, marked=frozenset(), missed=()), "")
    if s.past:
        return replace(s, selected="", notice="what nobody answered in time; Esc goes back to what waits")
    return show_next(replace(s, selected=""), 0)


def unoffered(s: State, prompt: Prompt | None, term: str) -> str:
    """Return why an answer to ``prompt`` does not count for ``term``; "" for any at all."""
    if prompt is None:
        return ""
    if prompt.limit and s.offered:
        return "a spent limit is extended once; for more, change the limit in the policy"
    if prompt.state == "missed" and (prompt.limit or prompt.about_token):
        return "nobody waits for it any more, and no rule can be made of it; it has to be asked again"
    if term == "once":
        return "nobody waits for it any more; a rule for longer serves the next time"
    return "no session asks: answer for another time" if not prompt.session else "its session has ended"
