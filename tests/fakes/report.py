"""A session's report, as the wire has it."""

from __future__ import annotations

from typing import Any

from fakes.approver import HOSTILE

REPORT: dict[str, Any] = {
    "session": "s1", "agent": "claude", "acts": {"read": 120, HOSTILE: 3}, "counted": {"read": 5000}, "human": {"answer": 2},
    "changed": {"number": 2, "paths": [HOSTILE, "/b"]}, "deleted": {"number": 0, "paths": []},
    "directories": [{"path": HOSTILE, "acts": 90, "changes": 2}, {"path": "/z", "acts": 1, "changes": 0}],
    "hosts": [{"host": "pypi.org", "acts": 7}], "denied": {"number": 4, "what": [{"op": "read", "path": HOSTILE, "rule": "", "number": 4}]},
    "asked": {"number": 3, "allowed": 1, "denied": 1, "missed": 1}, "answers": [],
    "timeline": {"start": 1.0, "step": 60.0, "acts": [0, 1, 100], "denied": [0, 0, 4]}, "first": 1.0, "last": 2.0, "at_least": True,
}  # fmt: skip
