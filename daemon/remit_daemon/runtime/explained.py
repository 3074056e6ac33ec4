"""What was refused, and what the person said to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from remit_daemon.broker.records import Prompt
from remit_daemon.broker.states import PromptState
from remit_daemon.runtime.lines import Params


def explained(denials: Sequence[Params], prompts: Iterable[Prompt]) -> list[Params]:
    """Return ``denials`` with what the person said to each, or that its question is still open, added to the note."""
    said: dict[tuple[str, str, str], str] = {}
    sessions = {entry["session"] for entry in denials}
    for prompt in prompts:
        if prompt.session not in sessions:
            continue
        text = ""
        if prompt.state in (PromptState.OPEN, PromptState.MISSED):
            text = f"prompt {prompt.id} is not answered yet; try again once it is"
        elif prompt.answer is not None and prompt.answer.message:
            text = f"the person says: {prompt.answer.message}"
        said |= {(prompt.session, op, prompt.path): text for op in prompt.ops}
    out = []
    for entry in denials:
        text = said.get((entry["session"], entry["op"], entry["path"]), "")
        note = "; ".join(part for part in (entry.get("note", ""), text) if part)
        out.append({**entry, "note": note} if text else entry)
    return out
