"""The ledger for other programs: ``jsonl`` for exactness, ``ocsf`` for security tools.

``jsonl`` is each row's leaf, the very bytes (RFC 8785) under the Merkle tree, ``done`` and ``count`` rows included: with a
checkpoint, whoever has the file can check it. ``ocsf`` is one OCSF 1.3.0 event a row (schema.ocsf.io), an act with its
final outcome. Both hold stored text (``ledger.rows``), since JSON has no form for bytes that are no UTF-8.

    files                     File System Activity    1001   (link and symlink are Create)
    exec, execute, start, end Process Activity        1007
    connect, listen           Network Activity        4001
    resolve                   DNS Activity            4003
    answer, grant, revoke     User Access Management  3005
    daemon rows               Application Lifecycle   6002
    anything else             Base Event              0
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from remit_daemon.ledger.queries import Filter, every
from remit_daemon.ledger.rows import Row, leaf_bytes
from remit_daemon.ledger.schema import SELECT_ROWS

FORMS = ("jsonl", "ocsf")
OCSF_VERSION = "1.3.0"

_FILE, _PROCESS, _NETWORK, _DNS, _ACCESS, _LIFECYCLE, _BASE = 1001, 1007, 4001, 4003, 3005, 6002, 0
_OTHER = 99

# op -> (class_uid, activity_id)
_CLASSES: dict[str, tuple[int, int]] = {
    "create": (_FILE, 1), "link": (_FILE, 1), "symlink": (_FILE, 1), "read": (_FILE, 2), "list": (_FILE, 2),
    "write": (_FILE, 3), "delete": (_FILE, 4), "rename": (_FILE, 5), "metadata": (_FILE, 6),
    "exec": (_PROCESS, 1), "execute": (_PROCESS, 1), "start": (_PROCESS, 1), "end": (_PROCESS, 2),
    "connect": (_NETWORK, 1), "listen": (_NETWORK, 7), "resolve": (_DNS, 1),
    "answer": (_ACCESS, 1), "grant": (_ACCESS, 1), "revoke": (_ACCESS, 2),
    "daemon.start": (_LIFECYCLE, 3), "daemon.stop": (_LIFECYCLE, 4),
}  # fmt: skip
_BLOCKED = ("refused", "denied", "expired")


def lines(db: sqlite3.Connection, form: str, wanted: Filter, *, host: str = "") -> Iterator[str]:
    """Yield a line (without its end) for every row that ``wanted`` selects, oldest first, whatever its limit.

    ``jsonl`` without any filter but ``after`` is the whole ledger. ``host`` is the OCSF device's name. Raises ValueError
    on an unknown ``form``.
    """
    if form not in FORMS:
        raise ValueError(f"no export format {form!r}; there are {', '.join(FORMS)}")
    if form == "ocsf":
        return (
            json.dumps(ocsf(row, host), ensure_ascii=False, separators=(",", ":"))
            for row in every(db, wanted)
        )
    if replace(wanted, after=None, limit=0) == Filter(limit=0):
        found = db.execute(f"{SELECT_ROWS} WHERE seq > ? ORDER BY seq", (wanted.after or 0,))
        return (leaf_bytes(Row(*row)).decode() for row in found)
    return (_leaf(db, row.seq) for row in every(db, wanted))


def _leaf(db: sqlite3.Connection, seq: int) -> str:
    # ``every`` has put the final outcome in; the leaf is the row as it was written.
    return leaf_bytes(Row(*db.execute(f"{SELECT_ROWS} WHERE seq = ?", (seq,)).fetchone())).decode()


def ocsf(row: Row, host: str) -> dict[str, Any]:
    """Return ``row``, with its final outcome, as an OCSF event."""
    class_uid, activity = _CLASSES.get(row.op, (_BASE, _OTHER))
    blocked = row.verdict == "deny" or row.outcome in _BLOCKED
    worked = row.outcome in ("ok", "passed", "allowed")
    if class_uid == _NETWORK and blocked:
        activity = 5  # Refuse
    if row.op == "answer" and row.verdict == "deny":
        activity, blocked, worked = _OTHER, False, True  # a person's no is an act that succeeded
    event: dict[str, Any] = {
        "activity_id": activity,
        "category_uid": class_uid // 1000,
        "class_uid": class_uid,
        "type_uid": class_uid * 100 + activity,
        "time": row.time_ns // 1_000_000,
        "severity_id": 4 if row.op == "damage" else 2 if blocked else 1,  # High, Low, Informational
        "status_id": 2 if blocked else 1 if worked else 0 if row.outcome in ("", "pending", "held") else 2,
        "status_detail": row.outcome,
        "message": f"{row.op} {row.path}".rstrip(),
        "metadata": {
            "version": OCSF_VERSION,
            "uid": str(row.seq),
            "product": {"name": "remit", "vendor_name": "remit"},
            "profiles": ["host", "security_control"],
        },
        "device": {"type_id": 0, "hostname": host or "localhost"},
        "actor": _actor(row),
        "unmapped": {
            name: value
            for name, value in (
                ("actor", row.actor), ("op", row.op), ("verdict", row.verdict), ("prompt", row.prompt),
                ("note", row.note), ("path2", row.path2), ("session", row.session), ("proc", row.proc),
            )
            if value
        },
    }  # fmt: skip
    if row.verdict:
        event |= {"action_id": 2 if blocked else 1, "disposition_id": 2 if blocked else 1}
    if row.rule:
        event["policy"] = {"name": row.rule}
    event |= _subject(row, class_uid)
    return event


def _actor(row: Row) -> dict[str, Any]:
    actor: dict[str, Any] = {"app_name": row.agent if row.actor == "agent" else "remit"}
    if row.actor == "human":
        actor["user"] = {"name": "human", "type_id": 1}
    if row.session:
        actor["session"] = {"uid": row.session}
    if row.pid:
        actor["process"] = _process(row)
    return actor


def _process(row: Row) -> dict[str, Any]:
    file: dict[str, Any] = {"path": row.exe, "name": _name(row.exe), "type_id": 1}
    if row.sha256:
        file["hashes"] = [{"algorithm_id": 3, "algorithm": "SHA-256", "value": row.sha256}]
    return {"pid": row.pid, "uid": row.proc or str(row.pid), "name": _name(row.exe), "file": file}


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2] or path


def _subject(row: Row, class_uid: int) -> dict[str, Any]:
    """Return the attributes that ``class_uid`` requires beside those of every event."""
    if class_uid == _FILE:
        file = {"path": row.path, "name": _name(row.path), "type_id": 2 if row.op == "list" else 0}
        if row.op in ("rename", "link") and row.path2:
            return {
                "file": file,
                "file_result": {"path": row.path2, "name": _name(row.path2), "type_id": 0},
            }
        return {"file": file}
    if class_uid == _PROCESS:
        process = _process(row) if row.op in ("start", "end") else {
            "name": _name(row.path),
            "file": {"path": row.path, "name": _name(row.path), "type_id": 1},
        }  # fmt: skip
        if row.argv != "[]":
            process["cmd_line"] = " ".join(json.loads(row.argv))
        return {"process": process}
    if class_uid == _NETWORK:
        return {"dst_endpoint": _endpoint(row.path)}
    if class_uid == _DNS:
        return {"query": {"hostname": row.path}, "src_endpoint": {"name": "agent"}}
    if class_uid == _ACCESS:
        privileges = [row.path or row.rule or row.op]
        return {"user": {"name": row.agent or "all agents", "type_id": 3}, "privileges": privileges}
    if class_uid == _LIFECYCLE:
        return {"app": {"name": "remit", "vendor_name": "remit"}}
    return {}


def _endpoint(place: str) -> dict[str, Any]:
    host, colon, port = place.rpartition(":")
    if place.startswith("/") or not colon or not port.isdigit():
        return {"name": place}
    host = host.strip("[]")
    kind = "ip" if ":" in host or host.replace(".", "").isdigit() else "hostname"
    return {kind: host, "port": int(port)}
