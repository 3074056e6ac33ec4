"""The broker under any sequence of events: nothing allowed without a reason, nothing lost, refusals change nothing."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from fakes.clock import Clock
from remit_daemon.broker import events as ev
from remit_daemon.broker.core import Broker, Refused
from remit_daemon.broker.keeping import MAX_ALWAYS
from remit_daemon.broker.records import (
    TOKEN,
    Session,
    Standing,
    grant_of,
    prompt_of,
    session_of,
    standing_of,
    to_json,
)
from remit_daemon.broker.scopes import rules_of
from remit_daemon.broker.states import PromptState
from remit_policy.engine import Engine
from remit_policy.model import ADMIN, ALLOW, ASK, DENY, GUARD, PACK, USER, Rule, Snapshot, loads

HOME = "/home/u"
SCOPES = ["files:read", "exec:run", "log:read", "grants:revoke", "net:listen"]
NOBODYS = {"grants:revoke", "net:listen"}  # a person may not grant these
PATHS = [
    HOME + p
    for p in (
        "/work/a.py",
        "/work/b.py",
        "/work/c.txt",
        "/work/deep/d.py",
        "/work/.env",
        "/shut/x",
        "/pub/y",
        "/admin/z",
    )
]
OPS = ("read", "write")


def base(shut: bool = True) -> Snapshot:
    rules = [Rule(USER, ALLOW, op, HOME + "/pub/**", source="u:1") for op in OPS]
    rules += [Rule(USER, DENY if shut else ASK, op, HOME + "/shut/**", source="u:2") for op in OPS]
    rules += [Rule(PACK, ASK, op, "**/.env", protected=True, source="pack:1") for op in OPS]
    rules += [Rule(ADMIN, ASK, op, HOME + "/admin/**", final=True, source="a:1") for op in OPS]
    rules.append(Rule(PACK, ALLOW, "use", "token:files:read", source="pack:2"))
    rules += [Rule(USER, DENY, "use", "token:exec:run", source="u:3")] if shut else []
    rules.append(Rule(ADMIN, ASK, "use", "token:net:listen", final=True, source="a:2"))
    rules += [Rule(GUARD, DENY, op, HOME + "/.remit/**", source="remit") for op in OPS]
    return Snapshot("claude", tuple(rules))


class Desk(RuleBasedStateMachine):
    """What is asked about tokens, and the answers. ``wanted`` are the scopes that are asked for together."""

    wanted: ClassVar[list[list[str]]] = [[a, b] if a != b else [a] for a in SCOPES for b in SCOPES]
    shut = True
    durations: ClassVar[list[str | int]] = ["once", "session", "always", 60, 0, "soon"]
    edits: ClassVar[list[str]] = ["", "1", "2", "3", "4", HOME + "/**", "/**", HOME + "/work/*.py"]
    waits: ClassVar[list[int]] = [1, 20, 700, 86400, 31 * 86400]

    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.broker = Broker(Engine, HOME, self.clock.now)
        self.stored: dict[tuple[str, str], str] = {}
        self.held: dict[tuple[str, int], tuple[tuple[str, ...], str]] = {}
        self.answers: list[ev.Answer] = []
        self.snapshots: dict[str, Snapshot] = {}
        self.seq = 0
        self.count = 0
        self.bases = base(self.shut)
        self.requests: dict[str, ev.AskConsent] = {}
        self.asked_by: dict[str, str] = {}
        self.fetched: set[str] = set()

    def handle(self, event: ev.Event) -> list[ev.Command]:
        before = copy.copy(self.broker.state.copy())
        try:
            commands = self.broker.handle(event, self.clock.now)
        except Refused:
            after = self.broker.state
            for name in (
                "sessions",
                "prompts",
                "grants",
                "holds",
                "looks",
                "revision",
                "next_prompt",
                "next_grant",
            ):
                assert getattr(after, name) == getattr(before, name), f"a refusal changed {name}"
            return []
        self.check(commands, event)
        return commands

    def check(self, commands: list[ev.Command], event: ev.Event) -> None:
        durable = True
        for command in commands:
            if isinstance(command, (ev.Store, ev.Drop, ev.Record)):
                assert durable or not isinstance(event, (ev.Answer, ev.Revoke)), "stored after it was sent"
            if isinstance(command, ev.Store):
                kind = type(command.record).__name__.lower()
                self.stored[kind, command.record.id] = to_json(command.record)
            elif isinstance(command, ev.Drop):
                self.stored.pop((command.kind, command.id), None)
            elif isinstance(command, ev.Send):
                durable = False
                self.sent(command.session, command.frame)

    def sent(self, session: str, frame: dict[str, Any]) -> None:
        if frame["type"] == "snapshot":
            self.snapshots[session] = loads(frame["snapshot"])
        elif frame["type"] == "answer":
            ops, path = self.held.pop((session, frame["seq"]))
            if frame["verdict"] == "allow":
                self.justify(session, frame["prompt"], ops, path)

    def justify(self, session: str, prompt: str, ops: tuple[str, ...], path: str) -> None:
        policy = Engine(self.broker.state.bases[session])
        verdict = max(policy.decide(op, path).verdict for op in ops)
        assert verdict != DENY, "allowed what the policy denies"
        if verdict == ALLOW or self.broker.state.sessions[session].ask == "allow-once":
            return
        pushed = Engine(self.snapshots.get(session, self.broker.state.bases[session]))
        if all(pushed.decide(op, path).verdict == ALLOW for op in ops):
            return  # a grant, and its snapshot was pushed before this answer
        answered = self.broker.state.prompts[prompt]
        assert answered.state is PromptState.ALLOWED
        assert answered.path == path
        assert set(ops) <= set(answered.ops)
        assert any(a.verdict == "allow" for a in self.answers), "nobody allowed anything"

    @initialize(target=sessions)
    def first(self) -> str:
        return self.begin("prompt", "claude")

    @rule(
        data=st.data(),
        client=st.sampled_from(["", "", "process:1", "process:2", "oauth:x"]),
    )
    def want_token(self, data: st.DataObject, client: str) -> None:
        scopes = data.draw(st.sampled_from(self.wanted))
        live = [s for s in self.broker.state.sessions.values() if s.live]
        if not client and not live:
            return
        session = None if client else data.draw(st.sampled_from(sorted(live, key=lambda s: s.id)))
        text = "https://a.example " + " ".join(sorted(scopes))
        event = ev.AskConsent(
            f"r{len(self.requests)}", session.agent if session else "claude", text, "https://a.example", tuple(scopes),
            session=session.id if session else "", client=client, base=self.bases if client else None,
        )  # fmt: skip
        reply = self.reply(event)
        if reply is None:
            return
        if "prompt" in reply:
            self.requests[event.request] = event
            self.asked_by[event.request] = reply["prompt"]
            assert not NOBODYS & set(scopes), "asked a person what only an administrator may grant"
        elif reply["verdict"] == "allow":
            grant = self.broker.state.grants.get(reply["grant"])
            if grant is None:
                by_policy = session is not None and self.token_verdict(scopes) == ALLOW
                assert by_policy or (session is not None and session.ask == "allow-once")
            else:
                assert (grant.verdict, grant.client) == ("allow", client)
                assert grant.patterns[0].replace("\\", "") == text
                assert client.startswith("process:") or grant.agent == event.agent
            self.may_have(scopes)

    @rule(data=st.data(), thief=st.booleans())
    def fetch_token(self, data: st.DataObject, thief: bool) -> None:
        if not self.requests:
            return
        allowed = {p.id for p in self.broker.state.prompts.values() if p.state is PromptState.ALLOWED}
        ready = [r for r in self.requests if self.asked_by[r] in allowed]
        event = self.requests[data.draw(st.sampled_from(sorted(ready or self.requests)))]
        client = "process:thief" if thief else event.client
        session = "" if thief else event.session
        base_ = self.bases if client else None
        prompt = self.broker.consent(event.request, session, client)
        reply = self.reply(ev.Redeem(event.request, session, client, base_))
        if reply is None or thief:
            assert reply is None, "handed to another"
            return
        assert prompt is not None
        assert prompt.state is PromptState.ALLOWED
        assert event.request not in self.fetched, "handed out twice"
        self.fetched.add(event.request)
        if reply["verdict"] == "allow":
            self.may_have(list(event.scopes))
            assert prompt.path == event.text
            assert self.token_verdict(event.scopes) == ALLOW or any(
                a.verdict == "allow" for a in self.answers
            )
            assert not reply["grant"] or self.broker.state.grants[reply["grant"]].client == event.client

    @rule(client=st.sampled_from(["process:1", "process:2"]))
    def client_ends(self, client: str) -> None:
        self.handle(ev.ClientGone(client))
        assert not any(g.client == client for g in self.broker.state.grants.values())
        assert all(
            self.broker.consent(r, "", client) is None
            or self.broker.consent(r, "", client).state is not PromptState.OPEN
            for r in self.requests
        )  # type: ignore[union-attr]

    def token_verdict(self, scopes: Any) -> int:
        engine = Engine(self.bases)
        return max(engine.decide("use", "token:" + s).verdict for s in scopes)

    def may_have(self, scopes: list[str]) -> None:
        assert self.token_verdict(scopes) != DENY, "gave what the policy denies"
        assert not NOBODYS & set(scopes), "gave what only an administrator grants"

    def reply(self, event: ev.Event) -> dict[str, Any] | None:
        """Handle ``event``; None when it was refused."""
        return next((c.result for c in self.handle(event) if isinstance(c, ev.Reply)), None)

    @rule(data=st.data(), verdict=st.sampled_from(["allow", "allow", "deny", "maybe"]))
    def answer(self, data: st.DataObject, verdict: str) -> None:
        duration, scope = data.draw(st.sampled_from(self.durations)), data.draw(st.sampled_from(self.edits))
        prompts = self.broker.state.prompts
        if not prompts:
            return
        waiting = [p.id for p in prompts.values() if p.state is PromptState.OPEN]
        ident = data.draw(st.sampled_from(sorted(waiting or prompts)))
        if scope.isdigit():
            offered = prompts[ident].scopes
            scope = offered[min(int(scope), len(offered)) - 1].pattern
        event = ev.Answer(ident, verdict, duration, scope)
        self.answers.append(event)
        self.handle(event)

    @rule(everything=st.booleans(), agent=st.sampled_from(["claude", "codex", "nobody"]))
    def revoke(self, everything: bool, agent: str) -> None:
        self.handle(ev.Revoke(all=True) if everything else ev.Revoke(agent=agent))

    @rule(agent=st.sampled_from(["claude", "codex"]), on=st.booleans())
    def withhold(self, agent: str, on: bool) -> None:
        self.handle(ev.Withhold(agent, on))
        self.clock.pass_(0.001)

    @rule(
        agent=st.sampled_from(["claude", "codex"]), keep=st.booleans(), ago=st.sampled_from([0, 0.5, 700])
    )
    def carry(self, agent: str, keep: bool, ago: float) -> None:
        before = dict(self.broker.state.grants)
        self.handle(ev.Carry(agent, self.clock.now - ago, keep))
        gone = [g for i, g in before.items() if i not in self.broker.state.grants]
        assert not keep or not gone
        assert all(g.agent == agent and g.verdict == "allow" and not g.session for g in gone)
        assert agent not in self.broker.state.withheld
        self.clock.pass_(0.001)

    @rule(
        data=st.data(),
        scope=st.sampled_from([
            *PATHS, HOME + "/work/*.py", HOME + "/work/*", HOME + "/work/deep/**", HOME + "/**", "~/work/**", "/**",
            HOME + "/work/{a,../../shut/x}", HOME + "/work/[a-c]*", "**/.env", "", "x",
        ]),
    )  # fmt: skip
    def narrow(self, data: st.DataObject, scope: str) -> None:
        if not self.broker.state.grants:
            return
        ident = data.draw(st.sampled_from(sorted(self.broker.state.grants)))
        old = self.broker.state.grants[ident]
        self.handle(ev.Narrow(ident, scope))
        new = self.broker.state.grants[ident]
        if TOKEN in old.ops:
            assert new == old
            return
        was, now = (Engine(Snapshot(g.agent, rules_of(g))) for g in (old, new))
        for op in OPS:
            for path in [*PATHS, HOME + "/work/new.py", "/etc/x", HOME + "/work/deep/er/y"]:
                if now.decide(op, path).rule is not None:
                    assert was.decide(op, path).rule is not None, f"narrowing to {scope} widened it"
        assert (new.verdict, new.expires, new.agent, new.session) == (
            old.verdict,
            old.expires,
            old.agent,
            old.session,
        )

    @rule(data=st.data(), seconds=st.sampled_from([-1, 0, 60, 86400, 365 * 86400, 366 * 86400]))
    def extend(self, data: st.DataObject, seconds: int) -> None:
        if self.broker.state.grants:
            ident = data.draw(st.sampled_from(sorted(self.broker.state.grants)))
            old = self.broker.state.grants[ident]
            self.handle(ev.Extend(ident, seconds))
            new = self.broker.state.grants[ident]
            if new != old:
                assert old.expires is not None
                assert new.expires is not None
                assert old.expires < new.expires <= self.clock.now + MAX_ALWAYS
                assert (new.patterns, new.ops, new.verdict) == (old.patterns, old.ops, old.verdict)

    @rule(data=st.data())
    def keep(self, data: st.DataObject) -> None:
        if self.broker.state.grants:
            ident = data.draw(st.sampled_from(sorted(self.broker.state.grants)))
            self.handle(ev.Keep(ident))
            assert not self.broker.state.grants[ident].suspended

    @rule(
        mode=st.sampled_from(["deny", "hold", "off", "loud"]), seconds=st.sampled_from([0, 60, 1800, 10**9])
    )
    def quiet(self, mode: str, seconds: int) -> None:
        self.handle(ev.Quiet(mode, seconds))

    @rule(shut=st.booleans())
    def policy(self, shut: bool) -> None:
        self.bases = base(shut)
        self.handle(
            ev.PolicyChanged({s.id: self.bases for s in self.broker.state.sessions.values() if s.live})
        )

    @rule(data=st.data())
    def wait(self, data: st.DataObject) -> None:
        seconds = data.draw(st.sampled_from(self.waits))
        self.clock.pass_(seconds)
        self.handle(ev.Tick())

    def begin(self, ask: str, agent: str) -> str:
        self.count += 1
        ident = f"s{self.count}"
        session = Session(ident, agent, 1, "i", 1 << 61, HOME + "/work", (agent,), self.clock.now, ask=ask)
        self.handle(ev.Started(session, self.bases))
        self.snapshots[ident] = loads(self.broker.snapshot(ident)[0])
        return ident


class Broken(Desk):
    """All of it, with operations that are held, sessions that end, and a daemon that is killed."""

    @rule(
        target=Desk.sessions,
        ask=st.sampled_from(["prompt", "prompt", "deny", "allow-once"]),
        agent=st.sampled_from(["claude", "codex"]),
    )
    def start(self, ask: str, agent: str) -> str:
        return self.begin(ask, agent)

    @rule(session=Desk.sessions, path=st.sampled_from(PATHS), ops=st.sets(st.sampled_from(OPS), min_size=1))
    def ask(self, session: str, path: str, ops: set[str]) -> None:
        if not self.broker.state.sessions[session].live:
            return
        self.seq += 1
        self.held[session, self.seq] = (tuple(sorted(ops)), path)
        assert self.handle(ev.Ask(session, self.seq, tuple(ops), path))

    @rule(data=st.data(), why=st.sampled_from(["gone", "expired"]))
    def cancel(self, data: st.DataObject, why: str) -> None:
        if self.held:
            session, seq = data.draw(st.sampled_from(sorted(self.held)))
            del self.held[session, seq]
            self.handle(ev.Cancel(session, seq, why))

    @rule(data=st.data(), looking=st.booleans())
    def look(self, data: st.DataObject, looking: bool) -> None:
        if self.broker.state.prompts:
            self.handle(ev.Look(data.draw(st.sampled_from(sorted(self.broker.state.prompts))), 1, looking))

    @rule(session=Desk.sessions)
    def lose(self, session: str) -> None:
        self.held = {k: v for k, v in self.held.items() if k[0] != session}
        self.handle(ev.Lost(session))

    @rule(session=consumes(Desk.sessions))
    def end(self, session: str) -> None:
        self.held = {k: v for k, v in self.held.items() if k[0] != session}
        self.handle(ev.Ended(session, 0))

    @rule()
    def restart(self) -> None:
        """The daemon is killed; another takes up what was stored, and supervisors come back and ask again."""
        old = self.broker.state
        self.broker = Broker(Engine, HOME, self.clock.now)
        of = {"session": session_of, "prompt": prompt_of, "grant": grant_of, "standing": standing_of}
        found: dict[str, list[Any]] = {k: [] for k in of}
        for (kind, _), text in self.stored.items():
            found[kind].append(of[kind](text))  # type: ignore[operator]
        self.broker.load(
            found["session"],
            sorted(found["prompt"], key=lambda r: int(r.id[1:])),
            sorted(found["grant"], key=lambda r: int(r.id[1:])),
        )
        self.broker.state.standing = next(iter(found["standing"]), Standing())
        assert self.broker.state.standing == old.standing
        assert set(self.broker.state.prompts) == set(old.prompts)
        assert self.broker.state.grants == old.grants
        for ident, prompt in old.prompts.items():
            assert self.broker.state.prompts[ident].state is prompt.state
        held, self.held = self.held, {}
        self.broker.state.withheld = dict(old.withheld)  # the registry keeps it
        for s in [s for s in self.broker.state.sessions.values() if s.live]:
            self.handle(ev.Started(s, self.bases))
            self.snapshots[s.id] = loads(self.broker.snapshot(s.id)[0])
        for (session, seq), (ops, path) in held.items():
            self.held[session, seq] = (ops, path)
            self.handle(ev.Ask(session, seq, ops, path))

    @invariant()
    def nothing_is_lost(self) -> None:
        state = self.broker.state
        assert set(state.holds) == set(self.held)
        for key, ident in state.holds.items():
            prompt = state.prompts[ident]
            assert prompt.state is PromptState.OPEN, "held behind a settled prompt"
            assert (prompt.session, prompt.path) == (key[0], self.held[key][1])

    @invariant()
    def one_prompt_for_one_access(self) -> None:
        keys = [
            (p.session, p.ops, p.path, p.consent and p.consent.client)
            for p in self.broker.state.prompts.values()
            if p.state is PromptState.OPEN
        ]
        assert len(keys) == len(set(keys))

    @invariant()
    def what_is_withheld_allows_nothing(self) -> None:
        state = self.broker.state
        for ident in state.bases:
            used = {r.source for r in self.broker.judge.compose(state, ident).rules}
            for grant in state.grants.values():
                assert not state.waits(grant) or f"grant:{grant.id}" not in used

    @invariant()
    def grants_never_reach_what_insists(self) -> None:
        for ident, snapshot in self.snapshots.items():
            if ident not in self.broker.state.bases:
                continue
            engine = Engine(snapshot)
            for op in OPS:
                assert engine.decide(op, HOME + "/.remit/store").verdict == DENY
                assert engine.decide(op, HOME + "/admin/other").verdict != ALLOW
                assert engine.decide(op, HOME + "/work/deep/.env").verdict != ALLOW


Broken.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBroker = Broken.TestCase


class Consents(Desk):
    """Tokens alone, and few of them, so that each short run has the same asked for, answered and fetched again."""

    wanted: ClassVar[list[list[str]]] = [["log:read"], ["exec:run"], ["exec:run", "net:listen"]]
    shut = False
    durations: ClassVar[list[str | int]] = ["once", "always", 60]
    edits: ClassVar[list[str]] = [""]
    waits: ClassVar[list[int]] = [1, 20, 61, 700]

    @rule(
        data=st.data(),
        client=st.sampled_from(["", "process:1", "oauth:x"]),
        between=st.sampled_from(["nothing", "a policy", "a wait", "a revocation"]),
    )
    def a_whole_life(self, data: st.DataObject, client: str, between: str) -> None:
        """What the other rules do, in the order in which something comes of it."""
        self.want_token(data, client)
        self.answer(data, "allow")
        if between == "a policy":
            self.policy(True)
        elif between == "a wait":
            self.wait(data)
        elif between == "a revocation":
            self.revoke(False, "claude")
        self.fetch_token(data, False)
        self.policy(False)


Consents.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestConsents = Consents.TestCase
