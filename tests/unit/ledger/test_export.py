from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fakes.ledger import CLAUDE, act, add, count, done
from remit_daemon.ledger import merkle, notes
from remit_daemon.ledger.queries import Filter
from remit_daemon.ledger.store import Ledger

# What schema.ocsf.io requires of every event, and of each class beside that (version 1.3.0).
COMMON = {"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"}
REQUIRED = {
    1001: {"actor", "device", "file"},
    1007: {"actor", "device", "process"},
    4001: {"dst_endpoint"},
    4003: {"query"},
    3005: {"user", "privileges"},
    6002: {"app"},
    0: set(),
}


@pytest.fixture
def filled(ledger: Ledger, journal: str) -> Ledger:
    ops = ("read", "write", "create", "delete", "execute", "list", "metadata", "exec", "connect", "rename", "link",
           "symlink", "start", "end", "listen", "resolve", "novel")  # fmt: skip
    for number, op in enumerate(ops, 1):
        path2 = "/p/new" if op in ("rename", "link") else ""
        add(
            journal,
            act(
                number,
                op,
                "/p/\udcff",
                path2=path2,
                outcome="ok",
                argv=("git", "push") if op == "exec" else (),
            ),
        )
    n = len(ops)
    add(
        journal,
        count(n + 1, "read", 4),
        act(n + 2, "connect", "[::1]:443", verdict="deny", outcome="refused"),
    )
    add(journal, act(n + 3))
    ledger.ingest(CLAUDE, journal)
    add(journal, done(n + 3))
    ledger.ingest(CLAUDE, journal)
    ledger.append([
        {"actor": "human", "op": "answer", "agent": "claude", "verdict": "deny"},
        {"actor": "human", "op": "grant", "agent": "claude", "path": "/p/**"},
        {"actor": "human", "op": "revoke"}, {"actor": "remit", "op": "daemon.start"}, {"actor": "remit", "op": "damage"},
    ])  # fmt: skip
    return ledger


def test_whoever_has_the_lines_and_a_checkpoint_can_check_them(
    filled: Ledger, key: Ed25519PrivateKey
) -> None:
    lines = list(filled.export("jsonl", Filter()))
    tree = merkle.Frontier()
    for line in lines:
        tree.append(merkle.leaf_hash(line.encode()))
    point = notes.read(filled.checkpoint(), key.public_key())
    assert (point.size, point.root) == (tree.size, tree.root())
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, filled.size() + 1))


def test_a_filtered_export_has_the_same_lines(filled: Ledger) -> None:
    lines = list(filled.export("jsonl", Filter()))
    some = list(filled.export("jsonl", Filter(actor="agent", limit=1)))
    assert len(some) > 10
    assert set(some) < set(lines)
    assert list(filled.export("jsonl", Filter(after=20))) == lines[20:]


def test_ocsf_events_hold_what_their_class_requires(filled: Ledger) -> None:
    events = [json.loads(line) for line in filled.export("ocsf", Filter(), host="desk")]
    seen = set()
    for event in events:
        assert event.keys() >= COMMON | REQUIRED[event["class_uid"]]
        assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
        assert event["category_uid"] == event["class_uid"] // 1000
        assert event["metadata"]["version"] == "1.3.0"
        assert event["device"]["hostname"] == "desk"
        if "file" in event:
            assert event["file"]["name"]
        seen.add(event["class_uid"])
    assert seen == set(REQUIRED)


def test_ocsf_says_what_was_done(filled: Ledger) -> None:
    events = {
        (e["unmapped"]["op"], e["unmapped"].get("verdict", "")): e
        for e in map(json.loads, filled.export("ocsf", Filter()))
    }
    renamed = events["rename", "allow"]
    assert (renamed["type_uid"], renamed["file_result"]["path"]) == (100105, "/p/new")
    assert events["exec", "allow"]["process"]["cmd_line"] == "git push"
    refused = events["connect", "deny"]
    assert (refused["type_uid"], refused["action_id"], refused["status_id"]) == (400105, 2, 2)
    assert refused["dst_endpoint"] == {"ip": "::1", "port": 443}
    assert events["write", "allow"]["status_id"] == 1  # by its later done
    assert events["read", "allow"]["actor"]["app_name"] == "claude"
    assert events["read", "allow"]["actor"]["process"]["file"]["hashes"][0]["value"] == "ab" * 32
    assert events["answer", "deny"]["status_id"] == 1


def test_an_unknown_format_is_refused(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="jsonl, ocsf"):
        ledger.export("xml", Filter())
