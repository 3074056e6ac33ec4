"""The prompts screen as a pure machine: events in, a new state and commands out.

What is held to, whatever the events and their order:

- An answer leaves only for the prompt that is shown, painted and armed. A prompt arms when it has been on the
  terminal, and the keyboard quiet, for QUIET seconds; it is disarmed by becoming the shown one, by a change of
  what it asks, by a lost connection, by pasted text, by a key that means nothing here and by a stall.
- An allow leaves only when the whole page was in view or scrolled through. Enter never allows.
- An answer that is remembered leaves only when the rule that it saves has been on the terminal for QUIET seconds.
- What arrives never replaces the shown prompt: that changes only by a key or by being settled.
- Every prompt starts on deny, once (or the shortest term that counts), narrowest scope. A key that was not obeyed is said to be so.
- What cannot count is not offered: a term or a scope that remitd would refuse for this prompt.
- Missed prompts are a list of their own, answered by the same rules, for longer than once: nothing waits for them.
- Several prompts are answered at once from one page alone (``bulk``), which shows each of them whole: only once, and
  an allow for few.
"""

from __future__ import annotations

from dataclasses import replace

from remit_tui import bulk, past
from remit_tui import events as ev
from remit_tui.events import MARKS, MOVES, ONCE, TERMS, Action, Command, Event
from remit_tui.records import Prompt
from remit_tui.state import (
    ATTENTION,
    EARLY,
    QUIET,
    STALL,
    UNREAD,
    Rule,
    State,
    arm,
    disarm,
    ordered,
    show,
    show_next,
    turn_page,
)
from remit_tui.text import shown as fit


def step(state: State, event: Event, now: float) -> tuple[State, list[Command]]:
    """Return the state after ``event`` at time ``now``, and what is to be done."""
    stalled = now - state.now > STALL
    s = disarm(state, now) if stalled else arm(state, now)
    s = replace(s, now=now)
    commands: list[Command] = []
    if isinstance(event, ev.Key):
        s, commands = _key(s, event)
    elif isinstance(event, ev.Paste):
        s = disarm(replace(s, notice="pasted text was thrown away"), now)
    elif isinstance(event, ev.Focus):
        # Whoever comes back has to look first: what was typed elsewhere may still be on its way.
        s = disarm(replace(s, focus=event.on, attended=now), now)
    elif isinstance(event, ev.Painted):
        if event.page == s.page:
            s = replace(s, painted=now if s.painted is None else s.painted, read=s.read or event.end)
    elif isinstance(event, ev.Loaded):
        s = _loaded(s, event)
    elif isinstance(event, ev.Missed):
        s = past.missed(s, event.prompts)
    elif isinstance(event, ev.Stood):
        s = replace(s, standing=event.standing)
    elif isinstance(event, ev.Lost):
        s = _lost(s, event)
    elif isinstance(event, ev.Changed):
        s = _changed(s, event.prompt)
    elif isinstance(event, ev.Done):
        s = _done(s, event)
    elif isinstance(event, ev.Ran):
        others = tuple(x for x in s.sessions if x.id != event.session.id)
        s = replace(s, sessions=(*others, event.session))
        if s.shown and s.term not in s.offered and s.offered:
            s = _choose(disarm(s, now), term=s.offered[0])  # its session has just ended
    elif isinstance(event, ev.Previewed):
        s = _previewed(s, event)
    elif isinstance(event, (ev.Answered, ev.Beaten, ev.Failed)):
        s = _answer_over(s, event)
    elif isinstance(event, ev.AnsweredAll):
        s = _after(_without(bulk.answered(s, event), set(event.settled)))
    elif isinstance(event, ev.Reached):
        if event.text and s.reach == (event.choice, ""):
            s = turn_page(replace(s, reach=(event.choice, event.text)), "end")
    elif isinstance(event, ev.Scoped):
        if event.id == s.shown and event.scope != s.pattern:
            s = turn_page(replace(disarm(s, now), edited=event.scope, rule=None), "end")
    elif isinstance(event, ev.Said):
        if event.id == s.shown and event.message != s.message:
            s = turn_page(replace(disarm(s, now), message=event.message, rule=None), "end")
    elif isinstance(event, ev.Filtered):
        s = replace(s, filter=event.text)
        s = s if s.shown in {p.id for p in s.queue} else show_next(s, 0)
    elif isinstance(event, ev.Told):
        s = replace(s, notice=event.text)
    elif isinstance(event, ev.Tick):
        pass
    if s.prompts and not state.prompts:
        commands.append(ev.Ring())
    return _derive(s, commands)


# What remitd says.


def _loaded(s: State, event: ev.Loaded) -> State:
    before = s.prompt
    prompts = ordered(tuple(p for p in event.prompts if p.state == "open"))
    ids = {p.id for p in prompts}
    at = max(s.index, 0)
    s = replace(
        s,
        up=True,
        why="",
        prompts=prompts,
        sessions=event.sessions,
        left=s.left & (ids | {p.id for p in s.missed}),
        marked=s.marked & ids,
        looked="",
        asked=None,
        recall=s.past,
    )
    if s.past:
        return turn_page(replace(s, armed=False), "top")
    if s.bulk:
        return _after(bulk.changed(s, "remitd is back"))
    after = s.prompt
    if after is not None and before is not None and after.question == before.question:
        return turn_page(replace(s, armed=False), "top")
    if after is not None:
        return show(s, after.id)
    if s.shown:
        s = replace(s, notice="the prompt you were reading is over")
    return show_next(s, at) if s.selected not in ids or s.shown else s


def _lost(s: State, event: ev.Lost) -> State:
    if s.answering is not None:
        s = replace(s, notice=_unsure("remitd went away"), answering=None)
    return disarm(replace(s, up=False, why=event.why, looked="", asked=None, rule=None), s.now)


def _unsure(why: str) -> str:
    return f"the answer was sent but not confirmed ({why}); if its prompt is still here, answer again"


def _changed(s: State, prompt: Prompt) -> State:
    if prompt.state != "open":
        return _done(s, ev.Done(prompt.id, prompt.state))
    old = next((p for p in s.prompts if p.id == prompt.id), None)
    if old is None:
        s = replace(s, prompts=ordered((*s.prompts, prompt)))
        return s if s.shown or s.bulk or s.past or prompt not in s.queue else show(s, prompt.id)
    s = replace(s, prompts=tuple(prompt if p.id == prompt.id else p for p in s.prompts))
    if s.shown == prompt.id and old.question != prompt.question:
        s = replace(show(s, prompt.id), notice="the request has changed: read it again")
    if s.bulk and prompt.id in s.marked and old.question != prompt.question:
        s = bulk.changed(s, "a request has changed")
    return s


def _done(s: State, event: ev.Done) -> State:
    if event.id == s.shown and (s.answering is None or s.answering.id != event.id):
        word = (
            "nobody answered in time"
            if event.state == "missed"
            else f"answered elsewhere: {fit(event.state)}"
        )
        s = replace(s, notice=f"the prompt you were reading is over ({word})")
    if event.state == "missed":
        s = replace(s, recall=s.past, prompts=tuple(p for p in s.prompts if p.id != event.id))
        return s if s.past else _without(s, {event.id})
    return _without(s, {event.id})


def _without(s: State, ids: set[str]) -> State:
    at, chosen = s.index, s.chosen
    s = replace(
        s,
        prompts=tuple(p for p in s.prompts if p.id not in ids),
        missed=tuple(p for p in s.missed if p.id not in ids),
        left=s.left - ids,
        marked=s.marked - ids,
    )
    if s.bulk:
        return s if s.chosen == chosen else _after(bulk.changed(s, "one of these is over"))
    return show_next(s, max(at, 0)) if s.selected in ids or s.shown in ids else s


def _after(s: State) -> State:
    """Go on with the list when the page of several has closed."""
    return s if s.bulk or s.shown else show_next(s, max(s.index, 0))


def _previewed(s: State, event: ev.Previewed) -> State:
    if event.choice != s.asked:
        return s  # of a choice that has been changed since
    return turn_page(replace(s, rule=Rule(event.choice, event.rule, event.scope, event.error)), "end")


def _answer_over(s: State, event: ev.Answered | ev.Beaten | ev.Failed) -> State:
    choice = event.choice
    waited = s.answering == choice
    if waited:
        s = replace(s, answering=None)
    if isinstance(event, ev.Failed):
        if not waited:
            return s  # the lost connection has been told already
        s = replace(
            s, notice=_unsure(fit(event.why)) if event.unsure else f"not answered: {fit(event.why)}"
        )
        return _without(s, {choice.id}) if event.gone else disarm(s, s.now)
    if isinstance(event, ev.Beaten):
        return _without(
            replace(s, notice=f"already answered: {event.how}; your answer did not count"), {choice.id}
        )
    word = "allowed" if choice.verdict == "allow" else "denied"
    notice = f"{word}, {TERMS[choice.term][0]}"
    others = len(set(event.settled) - {choice.id})
    if others:
        notice += f"; this also answered {others} other prompt{'s' if others > 1 else ''}"
    if event.rule and (choice.term != ONCE or choice.scope):
        notice += f"; saved: {fit(event.rule)}"
    return _without(replace(s, notice=notice), {choice.id, *event.settled})


# Keys.


def _key(s: State, key: ev.Key) -> tuple[State, list[Command]]:
    s = replace(s, attended=s.now, notice="")
    if key.action in MOVES:
        return _move(s if s.armed else replace(s, last_key=s.now), key.action), []
    if key.action is Action.PAST:
        if not s.up:
            return replace(s, notice="remitd is gone: what was missed is not known"), []
        return past.turned(disarm(s, s.now)), []
    if key.action in MARKS and s.past:
        return replace(s, notice="what was missed is answered one by one"), []
    if key.action in MARKS:
        return bulk.mark(disarm(s, s.now), key.action), []
    if key.action is Action.OTHER:
        s = disarm(s, s.now)
        return replace(s, notice="that key means nothing here; ? shows the keys" if s.prompts else ""), []
    if s.bulk:
        return bulk.key(s, key.action)
    if not s.shown:
        if key.action is Action.ENTER and s.selected:
            return show(replace(s, last_key=s.now), s.selected), []
        empty = "nothing was missed" if s.past else "nothing waits for an answer"
        notice = "no prompt is open; j, k or Enter opens one" if s.queue else empty
        return replace(s, notice=notice, last_key=s.now), []
    if not s.up:
        return replace(s, notice="that key was ignored: remitd is gone, nothing can be answered"), []
    if s.answering is not None:
        return replace(s, notice="that key was ignored: an answer is on its way", last_key=s.now), []
    if not s.armed:
        return replace(s, notice=EARLY, last_key=s.now), []
    return _armed_key(s, key)


def _move(s: State, action: Action) -> State:
    if s.bulk:
        if action is Action.LEAVE:
            return show_next(replace(s, bulk=False, notice="nothing was answered"), max(s.index, 0))
        return s
    if action is Action.LEAVE and s.past:
        return past.turned(s)
    if action is Action.LEAVE and s.shown:
        left = replace(s, left=s.left | {s.shown}, notice="left in the queue; Enter opens it again")
        return show(left, "")
    queue = s.queue
    at, last = s.index, len(queue) - 1
    to = {
        Action.UP: max(at - 1, 0),
        Action.DOWN: min(at + 1, last),
        Action.TOP: 0,
        Action.BOTTOM: last,
    }.get(action)
    if to is None or last < 0:
        return s
    return s if queue[to].id == s.shown else show(s, queue[to].id)


def _armed_key(s: State, key: ev.Key) -> tuple[State, list[Command]]:
    prompt = s.prompt
    broadest = max(len(prompt.scopes) - 1, 0) if prompt else 0
    match key.action:
        case Action.TERM if key.term not in s.offered:
            return replace(s, notice=past.unoffered(s, prompt, TERMS[key.term][0])), []
        case Action.TERM:
            return _choose(s, term=key.term), []
        case Action.TURN:
            return _choose(s, verdict="allow" if s.verdict == "deny" else "deny"), []
        case Action.TELL:
            return s, [ev.AskMessage(s.shown, s.message)]
        case Action.PAUSE | Action.STOP if prompt:
            return s, [_steer(s, prompt, key.action)]
        case _ if prompt and not s.offered:
            return replace(s, notice=past.unoffered(s, prompt, "")), []
        case Action.EDIT if prompt and (prompt.limit or prompt.about_token):
            what = "a spent limit" if prompt.limit else "a question about a token"
            return replace(s, notice=f"{what} has no scope to write"), []
        case Action.BROADER | Action.NARROWER if prompt and prompt.about_token:
            return replace(s, notice="a question about a token has no other scope"), []
        case Action.BROADER | Action.NARROWER | Action.EDIT if s.term == ONCE and not (
            prompt and prompt.limit
        ):
            return replace(s, notice="once is for this request alone; choose a longer time first"), []
        case Action.EDIT if (choice := s.choice) and choice.scope:
            return s, [ev.EditScope(choice)]
        case Action.EDIT:
            return replace(s, notice="remitd offers no scope for this"), []
        case Action.BROADER | Action.NARROWER if s.edited:
            return _choose(s, scope=s.scope), []
        case Action.BROADER if s.scope < broadest:
            return _choose(s, scope=s.scope + 1), []
        case Action.NARROWER if s.scope > 0:
            return _choose(s, scope=s.scope - 1), []
        case Action.BROADER:
            return replace(s, notice="that is the broadest scope on offer"), []
        case Action.NARROWER:
            return replace(s, notice="that is the narrowest scope on offer"), []
        case Action.ENTER if s.verdict == "allow":
            return replace(s, notice="Enter never allows"), []
        case Action.ENTER | Action.DENY:
            return _answer(s, "deny")
        case Action.ALLOW:
            return _answer(s, "allow")
    return s, []


def _steer(s: State, prompt: Prompt, action: Action) -> Command:
    if action is Action.STOP:
        return ev.Steer(prompt.session, prompt.agent, "stop")
    paused = any(x.id == prompt.session and x.state == "paused" for x in s.sessions)
    return ev.Steer(prompt.session, prompt.agent, "resume" if paused else "pause")


def _choose(
    s: State, *, verdict: str | None = None, term: int | None = None, scope: int | None = None
) -> State:
    before = s.choice
    s = replace(
        s,
        verdict=s.verdict if verdict is None else verdict,
        term=s.term if term is None else term,
        scope=s.scope if scope is None else scope,
        edited=s.edited if scope is None else "",
    )
    if s.scope and s.prompt and s.prompt.limit and s.verdict == "deny" and verdict is None:
        s = replace(s, verdict="allow")  # so much more is only ever allowed
    return s if s.choice == before else turn_page(replace(s, rule=None), "end")


def _answer(s: State, verdict: str) -> tuple[State, list[Command]]:
    if s.verdict != verdict:
        turned = _choose(s, verdict=verdict)
        if turned.lasting:
            return replace(turned, notice="read the rule, then press the same key again to save it"), []
        s = replace(s, verdict=verdict)  # once saves nothing, so the page stays what it was
    if s.lasting:
        rule = s.ruled
        if rule is None:
            return replace(
                s, notice="remitd has not said yet which rule this saves; that key was ignored"
            ), []
        if rule.error:
            return replace(s, notice=f"this cannot be saved: {fit(rule.error)}"), []
        if s.painted is None or s.now - s.painted < QUIET:
            return replace(s, notice="too early: the rule has only just appeared; that key was ignored"), []
    if verdict == "allow" and not s.read:
        return replace(s, notice=UNREAD), []
    choice = s.choice
    if choice is None:
        return s, []
    return replace(s, answering=choice, notice="answering"), [ev.Answer(choice)]


# What follows from the state, whatever the event was.


def _derive(s: State, commands: list[Command]) -> tuple[State, list[Command]]:
    if not s.up:
        return s, commands
    reading = s.focus and s.now - s.attended <= ATTENTION
    want = s.shown if reading and not s.past else ""
    if want != s.looked:
        if s.looked and any(p.id == s.looked for p in s.prompts):
            commands.append(ev.Look(s.looked, False))
        if want:
            commands.append(ev.Look(want, True))
        s = replace(s, looked=want)
    if s.recall:
        s = replace(s, recall=False)
        commands.append(ev.Recall())
    choice = s.choice if s.lasting and s.offered else None
    if choice != s.asked:
        s = replace(s, asked=choice)
        if choice is not None:
            commands.append(ev.Preview(choice))
    rule = s.ruled
    if rule is None:
        return replace(s, reach=None), commands
    limited = s.prompt is not None and (s.prompt.limit or s.prompt.about_token)
    if (
        rule.choice.verdict == "allow"
        and rule.choice.scope
        and not limited
        and not rule.error
        and s.reach is None
    ):
        s = replace(s, reach=(rule.choice, ""))
        commands.append(ev.Reach(rule.choice))
    return s, commands
