"""Questions about tokens, told one by one."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.clock import Clock
from remit_daemon.broker import events as ev
from remit_daemon.broker.consents import MAX_OPEN_OF_CLIENT, MAX_REQUESTS
from remit_daemon.broker.core import Broker, Refused
from remit_daemon.broker.prompts import PROMPT_LIFE, REDEEM_LIFE
from remit_daemon.broker.records import Fact, Session, prompt_of, to_json
from remit_daemon.broker.states import PromptState
from remit_policy.engine import Engine
from remit_policy.limits import Limit
from remit_policy.model import ADMIN, ALLOW, DENY, USER, Rule, Snapshot

AUDIENCE = "https://tool.example"
GIVEN = Rule(USER, ALLOW, "use", "token:files:read")
FACTS = (
    Fact("it may", "read what was done, and by whom"),
    Fact("client", "https://client.example/\x1b[2J"),
)


class Desk:
    def __init__(self, *rules: Rule) -> None:
        self.clock = Clock()
        self.broker = Broker(Engine, "/home/u", self.clock.now)
        self.rules = rules or (GIVEN,)
        self.count = 0

    def start(self, ident: str = "s1", agent: str = "claude", **fields: Any) -> None:
        session = Session(ident, agent, 1, "i", 1 << 61, "/home/u/work", (agent,), self.clock.now, **fields)
        self.reply(ev.Started(session, Snapshot(agent, self.rules)))

    def reply(self, event: ev.Event) -> dict[str, Any]:
        commands = self.broker.handle(event, self.clock.now)
        return next((c.result for c in commands if isinstance(c, ev.Reply)), {})

    def want(
        self, *scopes: str, session: str = "s1", client: str = "", agent: str = "claude"
    ) -> dict[str, Any]:
        self.count += 1
        event = ev.AskConsent(
            f"r{self.count}", agent, f"{AUDIENCE} {' '.join(scopes)}", AUDIENCE, scopes, facts=FACTS, client=client,
            session="" if client else session, base=Snapshot(agent, self.rules) if client else None,
        )  # fmt: skip
        return self.reply(event) | {"request": event.request}

    def answer(
        self, prompt: str, verdict: str = "allow", duration: str | int = "once", scope: str = ""
    ) -> dict[str, Any]:
        return self.reply(ev.Answer(prompt, verdict, duration, scope))

    def fetch(self, asked: dict[str, Any], session: str = "s1", client: str = "") -> tuple[str, str]:
        base = Snapshot("claude", self.rules) if client else None
        got = self.reply(ev.Redeem(asked["request"], "" if client else session, client, base))
        return got["verdict"], got["grant"]


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.start()
    return desk


def test_what_policy_gives_is_not_asked(desk: Desk) -> None:
    assert desk.want("files:read")["verdict"] == "allow"
    assert desk.want("files:read", client="process:1")["prompt"] == "p1"  # outside, a person is


def test_an_answer_is_fetched_once_by_who_asked(desk: Desk) -> None:
    asked = desk.want("files:read", "log:read")
    with pytest.raises(Refused):
        desk.fetch(asked)
    desk.answer(asked["prompt"])
    with pytest.raises(Refused):
        desk.fetch(asked, client="process:1")
    assert desk.fetch(asked) == ("allow", "")
    with pytest.raises(Refused):
        desk.fetch(asked)


def test_the_same_question_is_one_prompt_and_each_who_asked_is_served(desk: Desk) -> None:
    some = [desk.want("log:read") for _ in range(MAX_REQUESTS)]
    assert {a["prompt"] for a in some} == {"p1"}
    with pytest.raises(Refused, match="wait for this answer"):
        desk.want("log:read")
    assert desk.broker.prompt("p1")["holding"] == MAX_REQUESTS
    desk.answer("p1")
    assert [desk.fetch(a) for a in some] == [("allow", "")] * MAX_REQUESTS


def test_a_grant_serves_the_same_request_of_the_agents_sessions(desk: Desk) -> None:
    desk.start("s2")
    asked, other = desk.want("log:read"), desk.want("log:read", session="s2")
    got = desk.answer(asked["prompt"], duration="always")
    assert got["settled"] == [asked["prompt"], other["prompt"]]
    assert desk.fetch(asked) == ("allow", got["grant"])
    assert desk.fetch(other, "s2") == ("allow", got["grant"])
    assert desk.want("log:read")["grant"] == got["grant"]
    assert "prompt" in desk.want("log:read", "policy:read")
    assert "prompt" in desk.want("log:read", client="process:1")
    desk.reply(ev.Revoke(id=got["grant"]))
    assert "prompt" in desk.want("log:read")


def test_a_grant_to_a_client_is_that_clients(desk: Desk) -> None:
    asked = desk.want("log:read", client="process:1")
    grant = desk.answer(asked["prompt"], duration=3600)["grant"]
    assert "prompt" in desk.want("log:read")
    assert "prompt" in desk.want("log:read", client="process:2")
    assert desk.want("log:read", client="process:1")["grant"] == grant
    desk.reply(ev.ClientGone("process:1"))
    assert desk.broker.state.grants == {}
    assert desk.fetch(asked, client="process:1") == ("deny", "")


def test_a_client_that_others_vouch_for_is_asked_about_each_time_unless_denied(desk: Desk) -> None:
    desk.answer(desk.want("log:read", client="oauth:x")["prompt"], duration="always")
    again = desk.want("log:read", client="oauth:x")
    desk.answer(again["prompt"], "deny", "always")
    assert desk.want("log:read", client="oauth:x")["verdict"] == "deny"


def test_what_was_taken_back_is_not_fetched(desk: Desk) -> None:
    asked = [desk.want("log:read"), desk.want("policy:read")]
    desk.answer(asked[0]["prompt"], duration="session")
    desk.answer(asked[1]["prompt"])
    desk.reply(ev.Revoke(agent="claude"))
    assert [desk.fetch(a)[0] for a in asked] == ["deny", "deny"]


def test_it_is_fetched_in_time_and_under_the_policy_of_then(desk: Desk) -> None:
    late, closed = desk.want("log:read"), desk.want("policy:read")
    desk.answer(late["prompt"])
    desk.clock.pass_(REDEEM_LIFE + 1)
    assert desk.fetch(late)[0] == "expired"
    closed = desk.want("policy:read")
    desk.answer(closed["prompt"])
    desk.reply(
        ev.PolicyChanged({"s1": Snapshot("claude", (Rule(USER, DENY, "use", "token:policy:read"),))})
    )
    assert desk.fetch(closed)[0] == "deny"


def test_a_policy_that_closes_it_settles_the_open_question(desk: Desk) -> None:
    asked = desk.want("policy:read")
    desk.reply(
        ev.PolicyChanged({"s1": Snapshot("claude", (Rule(USER, DENY, "use", "token:policy:read"),))})
    )
    assert desk.broker.state.prompts[asked["prompt"]].state is PromptState.DENIED


def test_what_nobody_answered_stays_unanswered(desk: Desk) -> None:
    asked = desk.want("log:read")
    desk.clock.pass_(PROMPT_LIFE)
    desk.reply(ev.Tick())
    for duration in ("once", "always"):
        with pytest.raises(Refused, match="has to ask again"):
            desk.answer(asked["prompt"], duration=duration)
    with pytest.raises(Refused):
        desk.fetch(asked)


def test_it_cannot_be_widened(desk: Desk) -> None:
    asked = desk.want("log:read")
    for scope in (f"{AUDIENCE} *", "**", "app:screen", "token:*", f"{AUDIENCE} log:read policy:read"):
        for duration in ("once", "always"):
            with pytest.raises(Refused):
                desk.answer(asked["prompt"], duration=duration, scope=scope)
    with pytest.raises(Refused, match="no session asks"):
        desk.answer(desk.want("log:read", client="process:1")["prompt"], duration="session")


def test_questions_about_tokens_count_as_questions() -> None:
    desk = Desk()
    quota = Limit("user agent.claude", "agent", "prompts", 1, 60, "u.toml:7")
    session = Session("s1", "claude", 1, "i", 1 << 61, "/home/u/work", ("claude",), desk.clock.now)
    desk.reply(ev.Started(session, Snapshot("claude", desk.rules, limits=(quota,))))
    assert desk.want("files:read", "log:read")["prompt"] == "p1"
    assert desk.want("files:read", "log:read")["prompt"] == "p1", "no other question"
    denied = desk.want("files:read", "grants:read")
    assert denied["verdict"] == "deny"
    assert denied["message"].startswith(
        "no more questions now: 1 of 1 question per min are spent by claude"
    )
    assert desk.want("files:read", "grants:read", client="process:1")["prompt"] == "p2", (
        "an agent's, not others'"
    )
    desk.clock.pass_(60)
    assert desk.want("files:read", "grants:read")["prompt"] == "p3"


def test_nobody_is_asked_for_what_an_administrator_grants() -> None:
    desk = Desk(Rule(ADMIN, ALLOW, "use", "token:grants:revoke", source="a:1"))
    desk.start()
    desk.start("s2", "codex")
    assert desk.want("grants:revoke")["verdict"] == "allow"
    assert "prompt" in desk.want("grants:revoke", "log:read")
    desk.reply(ev.PolicyChanged({"s1": Snapshot("claude", ())}))
    assert desk.want("grants:revoke")["message"] == "only an administrator grants grants:revoke"
    assert desk.want("moon:land")["verdict"] == "deny"


@pytest.mark.parametrize(("mode", "verdict"), [("deny", "deny"), ("allow-once", "allow")])
def test_a_session_that_asks_nobody(mode: str, verdict: str) -> None:
    desk = Desk()
    desk.start(ask=mode)
    assert desk.want("log:read")["verdict"] == verdict
    assert desk.want("grants:revoke")["verdict"] == "deny"


def test_one_client_does_not_fill_the_list(desk: Desk) -> None:
    for n in range(MAX_OPEN_OF_CLIENT):
        assert "prompt" in desk.want("log:read", client="process:1", agent=f"a{n}")
    assert "too many" in desk.want("log:read", client="process:1")["message"]
    assert "prompt" in desk.want("log:read", client="process:2")


def test_the_record_survives_the_store(desk: Desk) -> None:
    desk.want("log:read")
    (prompt,) = desk.broker.state.prompts.values()
    assert prompt_of(to_json(prompt)) == prompt


def test_a_session_asks_for_itself_and_a_client_with_a_policy(desk: Desk) -> None:
    for fields in (
        {"agent": "codex", "session": "s1"},
        {"session": "s9"},
        {"session": ""},
        {"client": "process:1"},
    ):
        event = ev.AskConsent(
            **{"request": "r", "agent": "claude", "text": "x y", "audience": "x", "scopes": ("log:read",)}
            | fields
        )  # type: ignore[arg-type]
        with pytest.raises(Refused):
            desk.reply(event)


def test_a_quiet_person_is_not_asked(desk: Desk) -> None:
    desk.reply(ev.Quiet("deny", 600))
    assert desk.want("log:read")["verdict"] == "deny"
    assert desk.want("log:read", client="process:1")["verdict"] == "deny"


def test_what_was_granted_to_another_program_of_that_name_waits(desk: Desk) -> None:
    asked = desk.want("log:read")
    desk.answer(asked["prompt"], duration="always")
    assert desk.want("log:read")["verdict"] == "allow"
    desk.reply(ev.Withhold("claude", True))
    assert "prompt" in desk.want("log:read")


def test_a_grant_for_a_token_is_not_narrowed(desk: Desk) -> None:
    grant = desk.answer(desk.want("log:read")["prompt"], duration="always")["grant"]
    before = desk.broker.state.grants[grant]
    for scope in ("/home/u/work/**", "log:read", "**/x"):
        with pytest.raises(Refused, match="one token exactly"):
            desk.reply(ev.Narrow(grant, scope))
    assert desk.broker.state.grants[grant] == before
