"""What an answer would reach: counted honestly, on the disk and in the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.machine import Machine, until
from remit_daemon.broker.reach import Trial
from remit_daemon.broker.records import Grant
from remit_daemon.runtime import reach
from remit_policy.model import ASK, PACK, Rule


def trial(pattern: str, *rules: Rule, ops: tuple[str, ...] = ("read",)) -> Trial:
    return Trial(Grant("g0", "claude", "", ops, (pattern,), "allow", "always", 0.0, None), rules)


def fill(top: Path, *names: str) -> None:
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text("")


def test_what_is_below_is_counted_by_kind_and_not_behind_links(tmp_path: Path) -> None:
    fill(tmp_path, "a.py", "deep/b.py", "deep/server.pem", "shut/c.py")
    fill(tmp_path / "elsewhere", "x.py")
    (tmp_path / "deep/link").symlink_to(tmp_path / "elsewhere")
    shut = Rule(PACK, ASK, "read", f"{tmp_path}/shut/**", protected=True)
    found = reach.below(trial(f"{tmp_path}/**", shut), str(tmp_path))
    assert (found.number, found.at_least) == (5, False)
    assert found.kinds == {"source": 3, "key": 1, "file": 1}
    assert found.secrets == [f"{tmp_path}/deep/server.pem"]
    (tmp_path / "elsewhere/x.py").unlink()
    narrower = reach.below(trial(f"{tmp_path}/*.py"), str(tmp_path))
    assert (narrower.number, narrower.examples) == (1, [f"{tmp_path}/a.py"])


def test_a_look_that_was_cut_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, *(f"{n}.py" for n in range(10)))
    monkeypatch.setattr(reach, "MAX_ENTRIES", 4)
    found = reach.below(trial(f"{tmp_path}/**"), str(tmp_path))
    assert (found.number, found.at_least) == (4, True)


def test_a_prompt_tells_what_else_its_scopes_permit(machine: Machine) -> None:
    sup, person = machine.supervisor(), machine.person()
    sup.connect()
    project = machine.project
    fill(Path(project), "src/a.py", "src/b.py", "src/k.pem")
    sup.act(1, "read", project + "/src/b.py", rule="default")
    sup.act(2, "write", project + "/src/b.py", rule="default")
    sup.ask(project + "/src/a.py")
    prompt = sup.read()["prompt"]
    shown = person.call("prompt", id=prompt)
    assert (shown["kind"], shown["chain"]) == ("source", [])
    assert shown["before"] == {"allowed": 0, "denied": 0, "missed": 0}
    found = person.call("reach", id=prompt, scope=project + "/src/*")
    assert (found["disk"]["number"], found["disk"]["secrets"]) == (3, [project + "/src/k.pem"])
    assert (found["ledger"]["number"], found["ledger"]["examples"]) == (1, [project + "/src/b.py"])
    assert person.call("reach", id=prompt)["disk"] is None


def test_a_host_reaches_what_was_said_to_it(machine: Machine) -> None:
    sup, person = machine.supervisor(), machine.person()
    sup.connect()
    sup.act(1, "connect", "api.example.com:443")
    sup.act(2, "connect", "www.example.com:443")
    sup.act(3, "connect", "other.org:443")
    sup.ask("cdn.example.com:443", "connect")
    prompt = sup.read()["prompt"]
    until(lambda: len(person.call("log", op="connect")) == 3, "it is in the ledger")
    found = person.call("reach", id=prompt, scope="*.example.com:443")
    assert (found["ledger"]["number"], found["disk"]) == (2, None)
