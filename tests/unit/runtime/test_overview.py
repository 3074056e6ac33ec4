"""Grants, their review and quiet times, through the real daemon and the command line."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from typing import Any

import pytest

from fakes.machine import Machine, until
from fakes.supervisor import FakePerson, FakeSupervisor, RpcError
from remit_daemon.broker.events import Store
from remit_daemon.broker.records import Grant
from remit_daemon.runtime.store import Memory


def remit(machine: Machine, *words: str) -> tuple[int, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "remit_daemon.cli.main", *words, "--json"],
        env=machine.env,
        capture_output=True,
        text=True,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def granted(machine: Machine, sup: FakeSupervisor, path: str, scope: str, via: str = "tui") -> str:
    sup.ask(path)
    prompt = sup.read()["prompt"]
    found = machine.person().call("answer", id=prompt, verdict="allow", for_="always", scope=scope, via=via)
    while sup.read()["type"] != "answer":
        pass
    return str(found["grant"])


def ended(sup: FakeSupervisor, person: FakePerson) -> None:
    """End the session, so that what this process starts is outside of one."""
    sup.send({"type": "end", "status": 0})
    until(lambda: person.call("sessions")[0]["ended"], "it has ended")


def test_a_grant_says_who_gave_it_where_and_whether_its_place_is_there(machine: Machine) -> None:
    sup, person = machine.supervisor(), machine.person()
    sup.connect()
    path = machine.project + "/src/a.py"
    ident = granted(machine, sup, path, machine.project + "/src/*")
    (shown,) = person.call("grants")
    assert (shown["id"], shown["by"], shown["via"], shown["prompt"]) == (ident, "human", "tui", "p1")
    assert (shown["markers"], shown["due"]) == (["dead"], True)
    os.makedirs(machine.project + "/src")
    sup.act(1, "read", path, rule=f"grant:{ident}")
    until(lambda: person.call("grants")[0]["uses"] == 1, "the use is counted")
    (shown,) = person.call("grants")
    assert (shown["markers"], shown["due"]) == ([], False)


def test_narrowing_is_pushed_and_refusals_say_why(machine: Machine) -> None:
    sup, person = machine.supervisor(), machine.person()
    sup.connect()
    ident = granted(machine, sup, machine.project + "/src/a.py", machine.project + "/src/**")
    with pytest.raises(RpcError, match="not within"):
        person.call("grant.narrow", id=ident, scope=machine.project + "/**")
    assert person.call("grant.narrow", id=ident, scope=machine.project + "/src/*.py")["grant"] == ident
    assert sup.read()["type"] == "snapshot"
    ended(sup, person)
    code, said = remit(machine, "grant", "extend", ident, "400d")
    assert code == 2, said
    rows = [(r["actor"], r["op"], r["outcome"]) for r in person.call("log", op="grant")]
    assert rows == [("human", "grant", "narrowed")]


def test_surfaces_are_known_ones(machine: Machine) -> None:
    sup = machine.supervisor()
    sup.connect()
    sup.ask("/srv/x")
    prompt = sup.read()["prompt"]
    with pytest.raises(RpcError, match="via"):
        machine.person().call("answer", id=prompt, verdict="deny", for_="once", via="agent")


def test_quiet_denies_and_is_over_when_told(machine: Machine) -> None:
    sup, person = machine.supervisor(), machine.person()
    sup.connect()
    person.call("watch")
    assert person.call("quiet", mode="deny", seconds=1800)["mode"] == "deny"
    sup.ask("/srv/x")
    assert sup.read()["verdict"] == "deny"
    assert person.call("status")["quiet"]["mode"] == "deny"
    machine.kill()
    machine.start()
    assert machine.person().call("status")["quiet"]["mode"] == "deny", "a restart does not end it"
    assert machine.person().call("quiet", mode="off") == {"mode": "off", "until": None}
    rows = [(r["actor"], r["outcome"]) for r in machine.person().call("log", op="quiet")]
    assert rows == [("human", "deny"), ("human", "off")]


def test_what_was_missed_is_listed_and_becomes_a_rule(machine: Machine) -> None:
    sup, person = machine.supervisor(), machine.person()
    sup.connect()
    sup.ask("/srv/x")
    prompt = sup.read()["prompt"]
    ended(sup, person)
    code, said = remit(machine, "prompts", "--missed")
    assert [p["id"] for p in said] == [prompt]
    assert remit(machine, "answer", prompt, "allow")[0] == 1
    code, said = remit(machine, "answer", prompt, "allow", "--for", "always")
    assert (code, said["grant"]) == (0, "g1")
    assert remit(machine, "prompts", "--missed")[1] == []
    again = machine.supervisor()
    again.connect()
    again.ask("/srv/x")
    assert again.read()["verdict"] == "allow"


def type_at(machine: Machine, words: list[str], keys: list[tuple[str, bytes]]) -> tuple[int, str]:
    """Run a command on a terminal and type each of ``keys`` once its text was shown."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "remit_daemon.cli.main", *words],
        env=machine.env,
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    out, seen = b"", 0
    for text, key in keys:
        while text.encode() not in out[seen:]:
            out += os.read(leader, 4096)
        seen = len(out)
        time.sleep(0.4)  # a person who has read it
        os.write(leader, key)
    try:
        while data := os.read(leader, 4096):
            out += data
    except OSError:  # EIO: nobody holds the other end
        pass
    os.close(leader)
    return process.wait(10), out.decode()


def test_a_review_is_one_key_a_grant(machine: Machine) -> None:
    sup, person = machine.supervisor(), machine.person()
    sup.connect()
    for name in "abc":
        granted(machine, sup, f"{machine.project}/{name}/x.py", f"{machine.project}/{name}/*")
    ended(sup, person)
    assert remit(machine, "review")[0] == 1, "something is due: their places are not there"
    wide, narrow = f"{machine.project}/b/*", f"{machine.project}/b/*.py"
    typed = [
        ("q quit: ", b"r"),
        ("q quit: ", b"n"),
        ("which scope?", narrow.encode() + b"\n"),
        ("q quit: ", b"k"),
    ]
    code, out = type_at(machine, ["review"], typed)
    assert code == 0, out
    assert [g["scope"] for g in person.call("grants")] == [narrow, f"{machine.project}/c/*"]
    assert wide not in [g["scope"] for g in person.call("grants")]
    (row,) = person.call("log", op="review")
    assert (row["actor"], row["note"]) == ("human", "1 kept, 1 narrowed, 1 revoked, 0 skipped")
    assert remit(machine, "review") == (0, [])


def test_enter_and_pasted_keys_review_nothing(machine: Machine) -> None:
    sup, person = machine.supervisor(), machine.person()
    sup.connect()
    granted(machine, sup, f"{machine.project}/a/x.py", f"{machine.project}/a/*")
    ended(sup, person)
    code, out = type_at(machine, ["review"], [("q quit: ", b"\r"), ("", b"rrr"), ("", b"\x04")])
    assert code == 0, out
    (kept,) = person.call("grants")
    assert kept["reviewed"] is None
    (row,) = person.call("log", op="review")
    assert row["note"] == "0 kept, 0 narrowed, 0 revoked, 1 skipped"


def test_what_is_in_force_says_how_often_each_rule_decided(machine: Machine) -> None:
    machine.policy(
        'version = 1\n[agent.claude]\nroles = ["r"]\n[role.r.files]\nread = { deny = ["/srv/shut/**"], allow = ["/srv/**"] }\n'
    )
    sup, person = machine.supervisor(), machine.person()
    until(lambda: person.call("reload")["errors"] == [], "it is read")
    sup.connect()
    granted(machine, sup, machine.root + "/other/x", "")
    source = f"{machine.paths.config}/policy.d/test.toml:5"
    for number in range(3):
        sup.act(number + 1, "read", f"/srv/shut/{number}", rule=source, verdict="deny")
    until(lambda: len(person.call("denials")) == 3, "it is in the ledger")
    found = person.call("policy.effective", agent="claude")
    assert found["rules"][0]["layer"] == "guard"
    hit = [(r["verdict"], r["pattern"], r["hits"]) for r in found["rules"] if r["hits"]]
    assert ("deny", "/srv/shut/**", 3) in hit
    assert any(r["layer"] == "grant" for r in found["rules"])
    assert "r" in found["roles"]
    with pytest.raises(RpcError, match="absolute"):
        person.call("policy.effective", agent="claude", project="x")


def test_what_was_suspended_is_said_at_the_next_run_until_a_person_resumes_it(machine: Machine) -> None:
    machine.kill()
    long_ago = time.time() - 40 * 86400
    old = Grant(
        "g1", "claude", "", ("read",), ("/srv/x",), "allow", "always", long_ago, long_ago + 365 * 86400
    )
    memory = Memory(machine.paths.store)
    memory.keep([Store(old)])
    memory.close()
    machine.start()
    person = machine.person()
    until(lambda: person.call("status")["review"] == {"due": 1, "suspended": 1}, "it is suspended")
    sup = machine.supervisor()
    assert "1 grant was suspended" in sup.connect()["message"]
    sup.ask("/srv/x")
    prompt = sup.read()["prompt"]
    person.call("grant.keep", id="g1")
    assert sup.read()["type"] == "snapshot"
    person.call("answer", id=prompt, verdict="deny", for_="once")
    assert sup.read()["type"] == "answer"
    sup.ask("/srv/x", seq=99)
    assert sup.read()["verdict"] == "allow"
    assert person.call("status")["review"] == {"due": 0, "suspended": 0}
    assert machine.supervisor().connect()["message"] == ""
    rows = [(r["actor"], r["outcome"]) for r in person.call("log", op="grant")]
    assert rows == [("remit", "suspended"), ("human", "resumed")]
