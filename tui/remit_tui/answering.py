"""What the commands of the prompts' machine come to at remitd: calls out, an event with the outcome back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from remit_daemon.wire.escape import escape, unescape
from remit_daemon.wire.rpc import CONFLICT, NOT_FOUND
from remit_tui.client import Client, GoneError, RpcError, each
from remit_tui.events import (
    TERMS,
    Answered,
    AnsweredAll,
    AskMessage,
    Beaten,
    Choice,
    Event,
    Failed,
    Look,
    Missed,
    Previewed,
    Reached,
    Said,
    Scoped,
    Told,
)
from remit_tui.fields import RecordError
from remit_tui.records import Prompt
from remit_tui.text import shown

if TYPE_CHECKING:
    from remit_tui.screens.view import Desk

MESSAGE_MOST = 500  # characters that an agent is told: it is a hint, not a letter


async def look(client: Client, command: Look) -> None:
    """Tell remitd that a person reads a prompt, or no longer does."""
    try:
        await client.call("look", id=command.id, looking=command.on)
    except (RpcError, GoneError):
        pass  # a prompt that is over needs no clock


async def preview(client: Client, choice: Choice) -> Previewed:
    """Ask which rule ``choice`` would save."""
    try:
        reply = await client.call("preview", **_params(choice))
        rule, scope = str(reply["rule"]), str(reply.get("scope") or "")
    except (RpcError, GoneError) as e:
        return Previewed(choice, "", "", str(e) or "remitd gave no reason")
    except (TypeError, KeyError, AttributeError):
        return Previewed(choice, "", "", "remitd said something unexpected")
    return Previewed(choice, rule, scope)


async def reach(client: Client, choice: Choice) -> Reached:
    """Ask what else ``choice`` would permit; an older remitd does not know."""
    try:
        reply = await client.call("reach", id=choice.id, scope=choice.scope)
        parts = [
            _counted(reply[of], what)
            for of, what in (("disk", "things that are there"), ("ledger", "acts of the last 30 days"))
        ]
    except (RpcError, GoneError, TypeError, KeyError, AttributeError, ValueError):
        return Reached(choice, "")
    return Reached(choice, "; ".join(p for p in parts if p))


def _counted(count: dict[str, Any] | None, what: str) -> str:
    """Return a Count of the wire in words, secrets by name: these are what a person would not see in a number."""
    if count is None:
        return ""
    more = " or more" if count.get("at_least") else ""
    secrets = [shown(str(s)) for s in count.get("secrets") or ()]
    among = f", AMONG THEM {len(secrets)} SECRET: {', '.join(secrets)}" if secrets else ""
    return f"{int(count['number'])}{more} {what}{among}"


async def answer(client: Client, choice: Choice) -> Answered | Beaten | Failed:
    """Give the answer, and say what came of it."""
    try:
        reply = await client.call("answer", **_params(choice), via="tui")
        settled = tuple(str(i) for i in reply.get("settled") or ())
        return Answered(choice, str(reply.get("rule") or ""), settled)
    except RpcError as e:
        # A conflict is also how remitd says that this person, or this scope, cannot settle it.
        how = await _how(client, choice.id) if e.code == CONFLICT else ""
        if how:
            return Beaten(choice, how)
        return Failed(choice, e.message or "remitd gave no reason", e.code == NOT_FOUND)
    except GoneError as e:
        return Failed(choice, str(e), unsure=True)
    except (TypeError, AttributeError):
        return Failed(choice, "remitd said something unexpected")


async def recall(client: Client) -> Missed | Told:
    """Ask which prompts nobody answered in time."""
    try:
        return Missed(each(Prompt.of, await client.call("prompts", missed=True)))
    except (RpcError, GoneError, RecordError) as e:
        return Told(f"what was missed is not known: {shown(str(e)) or 'remitd gave no reason'}")


async def answer_all(client: Client, choices: tuple[Choice, ...]) -> AnsweredAll:
    """Give several answers, one after another; what an earlier one has settled is not answered again."""
    settled: list[str] = []
    failed: list[str] = []
    for choice in choices:
        if choice.id in settled:
            continue
        outcome = await answer(client, choice)
        if isinstance(outcome, Answered):
            settled += {choice.id, *outcome.settled}
        elif isinstance(outcome, Beaten):
            settled.append(choice.id)
            failed.append(f"{outcome.how} before")
        else:
            failed.append(shown(outcome.why))
            if outcome.unsure:
                failed += [shown(outcome.why)] * (len(choices) - len(settled) - len(failed))
                break  # without remitd the rest would fail alike, each after its time-out
    return AnsweredAll(choices[0].verdict, tuple(settled), tuple(failed))


async def _how(client: Client, prompt_id: str) -> str:
    """Return how a prompt was answered; "" when it was not, or nothing is known."""
    try:
        given = (await client.call("prompt", id=prompt_id)).get("answer")
    except (RpcError, GoneError, AttributeError):
        return ""
    return _worded(given) if isinstance(given, dict) else ""


def _worded(given: dict[str, Any]) -> str:
    verdict, lasts, by = (str(given.get(key) or "") for key in ("verdict", "for", "by"))
    word = {"allow": "allowed", "deny": "denied"}.get(verdict, "settled")
    term = next(
        (name for name, wire in TERMS if str(wire) == lasts), f"{lasts} s" if lasts.isdigit() else lasts
    )
    whom = {"": "", "human": "on another of your screens", "policy": "by the policy"}.get(
        by, f"through {by}"
    )
    return ", ".join(shown(p) for p in (word, term, whom) if p)


def _params(choice: Choice) -> dict[str, Any]:
    params = {"id": choice.id, "verdict": choice.verdict, "for": TERMS[choice.term][1]}
    if choice.scope:
        params["scope"] = choice.scope
    if choice.message:
        params["message"] = choice.message
    return params


def edit_scope(desk: Desk, choice: Choice, emit: Callable[[Event], None]) -> None:
    """Let the person write the scope of ``choice``; remitd says meanwhile what it would save."""

    async def check(text: str) -> tuple[bool, str]:
        try:
            scope = unescape(text)
        except ValueError:
            return False, "a backslash is written \\\\"
        said = await preview(desk.client, replace(choice, scope=scope, message=""))
        return not said.error, shown(said.error or said.rule)

    desk.ask("scope", escape(choice.scope), check, lambda text: emit(Scoped(choice.id, unescape(text))))


def ask_message(desk: Desk, command: AskMessage, emit: Callable[[Event], None]) -> None:
    """Let the person write what a denial is to tell the agent."""

    async def check(text: str) -> tuple[bool, str]:
        if len(text) > MESSAGE_MOST:
            return False, f"at most {MESSAGE_MOST} characters"
        return True, "sent with the denial, which is still to be given; none tells nothing"

    desk.ask("tell the agent", command.message, check, lambda text: emit(Said(command.id, text.strip())))
