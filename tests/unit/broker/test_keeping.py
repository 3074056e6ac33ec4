"""What a person and time do to grants, and being left in peace."""

from __future__ import annotations

from typing import Any

import pytest

from fakes.desk import Desk
from remit_daemon.broker import events as ev
from remit_daemon.broker import standing
from remit_daemon.broker.core import Refused
from remit_daemon.broker.keeping import DAY, MAX_ALWAYS, REVIEW_EVERY
from remit_daemon.broker.prompts import PROMPT_LIFE
from remit_daemon.broker.records import Grant
from remit_daemon.broker.review import Use, reviewed_view
from remit_daemon.broker.standing import MAX_QUIET


def recorded(commands: list[Any]) -> list[tuple[str, str, str, bool]]:
    return [
        (c.entry["actor"], c.entry["op"], c.entry["outcome"], c.sync)
        for c in commands
        if isinstance(c, ev.Record)
    ]


def notified(commands: list[Any], method: str) -> list[dict[str, Any]]:
    return [c.params for c in commands if isinstance(c, ev.Notify) and c.method == method]


def granted(
    desk: Desk, path: str = "/home/u/work/a.py", scope: str = "/home/u/work/**", **fields: Any
) -> str:
    prompt = desk.ask("s1", path, **fields)["prompt"]
    desk.answer(prompt, duration="always", scope=scope)
    return f"g{desk.broker.state.next_grant - 1}"


def test_narrowing_asks_again_for_what_was_outside_and_is_recorded_as_the_persons() -> None:
    desk = Desk()
    desk.start()
    grant = granted(desk)
    assert desk.ask("s1", "/home/u/work/b.txt")["verdict"] == "allow"
    done = desk.handle(ev.Narrow(grant, "~/work/*.py"))
    assert recorded(done) == [("human", "grant", "narrowed", True)]
    assert desk.ask("s1", "/home/u/work/c.py")["verdict"] == "allow"
    assert desk.ask("s1", "/home/u/work/b.txt")["type"] == "asked"


@pytest.mark.parametrize(
    "scope", ["/home/u/**", "/home/u/work/**", "/etc/passwd", "/home/u/work/../x", "", "work/x"]
)
def test_what_is_not_narrower_is_refused(scope: str) -> None:
    desk = Desk()
    desk.start()
    grant = granted(desk)
    before = desk.broker.state.grants[grant]
    with pytest.raises(Refused):
        desk.handle(ev.Narrow(grant, scope))
    assert desk.broker.state.grants[grant] == before


def test_a_host_at_every_port_narrows_to_one_port_and_not_to_another_host() -> None:
    desk = Desk()
    desk.start()
    prompt = desk.ask("s1", "api.example.com:443", "connect")["prompt"]
    desk.answer(prompt, duration="always", scope="api.example.com")
    with pytest.raises(Refused):
        desk.handle(ev.Narrow("g1", "example.com:443"))
    desk.handle(ev.Narrow("g1", "api.example.com:443"))
    assert desk.ask("s1", "api.example.com:443", "connect")["verdict"] == "allow"
    assert desk.ask("s1", "api.example.com:80", "connect")["type"] == "asked"


def test_a_program_narrows_by_its_arguments() -> None:
    desk = Desk()
    desk.start()
    argv = ("git", "push", "origin")
    prompt = desk.ask("s1", "/usr/bin/git", "exec", argv=argv)["prompt"]
    desk.answer(prompt, duration="always", scope="/usr/bin/git **")
    desk.handle(ev.Narrow("g1", "/usr/bin/git push **"))
    assert desk.broker.state.grants["g1"].argv == ("push", "**")
    with pytest.raises(Refused):
        desk.handle(ev.Narrow("g1", "/usr/bin/git pull"))


def test_extending_ends_later_and_never_beyond_a_year() -> None:
    desk = Desk()
    desk.start()
    desk.answer(desk.ask("s1", "/x")["prompt"], duration=3600)
    done = desk.handle(ev.Extend("g1", int(7 * DAY)))
    assert recorded(done) == [("human", "grant", "extended", True)]
    assert desk.broker.state.grants["g1"].expires == desk.clock.now + 7 * DAY
    for seconds in (60, int(MAX_ALWAYS) + 1, 0):
        with pytest.raises(Refused):
            desk.handle(ev.Extend("g1", seconds))
    desk.answer(desk.ask("s1", "/y")["prompt"], duration="session")
    with pytest.raises(Refused, match="ends with its session"):
        desk.handle(ev.Extend("g2", 60))


def test_a_suspended_grant_is_told_of_and_a_person_resumes_it() -> None:
    desk = Desk()
    desk.start()
    grant = granted(desk)
    desk.clock.pass_(31 * DAY)
    done = desk.handle(ev.Tick())
    assert ("remit", "grant", "suspended", False) in recorded(done)
    assert [(n["id"], n["change"]) for n in notified(done, "grant")] == [(grant, "suspended")]
    assert desk.ask("s1", "/home/u/work/z.py")["type"] == "asked"
    assert recorded(desk.handle(ev.Keep(grant))) == [("human", "grant", "resumed", True)]
    assert desk.ask("s1", "/home/u/work/y.py")["verdict"] == "allow"
    desk.clock.pass_(29 * DAY)
    desk.handle(ev.Tick())
    assert not desk.broker.state.grants[grant].suspended


def test_removal_and_expiry_leave_a_row() -> None:
    desk = Desk()
    desk.start()
    desk.answer(desk.ask("s1", "/x")["prompt"], duration=60)
    granted(desk)
    desk.clock.pass_(61)
    assert ("remit", "grant", "expired", False) in recorded(desk.handle(ev.Tick()))
    desk.clock.pass_(91 * DAY)
    assert ("remit", "grant", "removed", False) in recorded(desk.handle(ev.Tick()))


def test_a_review_is_called_for_once_a_month_and_survives_a_restart() -> None:
    desk = Desk()
    desk.start()
    granted(desk)
    assert notified(desk.handle(ev.Tick()), "review") == []
    desk.clock.pass_(REVIEW_EVERY + 1)
    done = desk.handle(ev.Tick())
    assert notified(done, "review") == [{"grants": 1}]
    assert any(isinstance(c, ev.Store) and c.record == desk.broker.state.standing for c in done)
    desk.clock.pass_(DAY)
    assert notified(desk.handle(ev.Tick()), "review") == []


def test_quiet_denies_what_would_be_asked_and_nothing_else() -> None:
    desk = Desk()
    desk.start()
    grant = granted(desk)
    assert recorded(desk.handle(ev.Quiet("deny", 1800))) == [("human", "quiet", "deny", True)]
    assert standing.mode(desk.broker.state, desk.clock.now) == "deny"
    assert desk.ask("s1", "/home/u/work/b.py")["verdict"] == "allow", grant
    frame = desk.ask("s1", "/other")
    assert frame["verdict"] == "deny"
    assert "not to be asked" in frame["message"]
    assert desk.broker.prompts() == []
    desk.clock.pass_(1801)
    assert ("remit", "quiet", "off", False) in recorded(desk.handle(ev.Tick()))
    assert desk.ask("s1", "/other")["type"] == "asked"


def test_a_quiet_hold_keeps_prompts_for_when_it_is_over() -> None:
    desk = Desk()
    desk.start()
    before = desk.ask("s1", "/before")["prompt"]
    desk.handle(ev.Quiet("hold", 3600))
    during = desk.ask("s1", "/during")["prompt"]
    desk.clock.pass_(3600 + PROMPT_LIFE - 1)
    desk.handle(ev.Tick())
    assert [p["id"] for p in desk.broker.prompts()] == [before, during]
    desk.clock.pass_(2)
    desk.handle(ev.Tick())
    assert desk.broker.prompts() == []


@pytest.mark.parametrize(("mode", "seconds"), [("loud", 60), ("deny", 0), ("hold", int(MAX_QUIET) + 1)])
def test_no_such_quiet(mode: str, seconds: int) -> None:
    desk = Desk()
    with pytest.raises(Refused):
        desk.handle(ev.Quiet(mode, seconds))


NOW = 100 * DAY


def grant(scope: str, **fields: Any) -> Grant:
    given: dict[str, Any] = {"ops": ("read",), "created": NOW - 10 * DAY, "uses": 5, "last_used": NOW - 1.0}
    given |= fields
    return Grant(
        "g1",
        "claude",
        "",
        given.pop("ops"),
        (scope,),
        "allow",
        "always",
        given.pop("created"),
        NOW + DAY,
        **given,
    )


@pytest.mark.parametrize(
    ("held", "used", "enough"),
    [
        (grant("/d/**"), ["/d/a/x.py", "/d/a/y.py"], "/d/a/*.py"),
        (grant("/d/**"), ["/d/a/x.py", "/d/a/y"], "/d/a/*"),
        (grant("/d/**"), ["/d/a/b/x.py", "/d/a/c/y.py"], "/d/a/**"),
        (grant("/d/**"), ["/d/a/x*"], r"/d/a/x\*"),
        (grant("/d/**"), ["/d/a", "/d/b/c"], ""),
        (grant("/d/*.py"), ["/d/x.py", "/d/y.py"], ""),
        (grant("/d/x.py"), ["/d/x.py"], ""),
        (grant("/d/**", created=NOW - DAY), ["/d/a/x"], ""),
        (grant("/d/**", uses=2), ["/d/a/x"], ""),
        (grant("h.example.com", ops=("connect",)), ["h.example.com:443"], "h.example.com:443"),
        (grant("h.example.com", ops=("connect",)), ["h.example.com:443", "h.example.com:80"], ""),
    ],
)  # fmt: skip
def test_what_would_suffice(held: Grant, used: list[str], enough: str) -> None:
    view = reviewed_view(held, NOW, gone=False, used=[Use(u) for u in used])
    assert view["suffices"] == enough
    assert ("never-narrowed" in view["markers"]) == bool(enough)
    assert view["due"] == bool(enough)


def test_markers_are_by_use_and_time() -> None:
    def marks(held: Grant, gone: bool = False) -> list[str]:
        found: list[str] = reviewed_view(held, NOW, gone=gone, used=())["markers"]
        return found

    assert marks(grant("/x")) == []
    assert marks(grant("/x"), gone=True) == ["dead"]
    assert marks(grant("/x", last_used=NOW - 15 * DAY)) == ["stale"]
    assert marks(grant("/x", last_used=None, created=NOW - 8 * DAY)) == ["unused"]
    assert marks(grant("/x", last_used=None, created=NOW - 6 * DAY)) == []
    assert marks(grant("/x", suspended=True)) == ["suspended"]


def test_what_was_kept_a_moment_ago_is_not_due_again() -> None:
    held = grant("/x", last_used=None, reviewed=NOW - 60)
    assert reviewed_view(held, NOW, gone=False, used=())["due"] is False
