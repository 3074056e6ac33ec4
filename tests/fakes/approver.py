"""A remitd that has only the approver socket: a real Unix socket, the contract of ``wire.rpc``, no policy.

Run as a program it serves a few prompts, for trying the screen by hand:
``python tests/fakes/approver.py DIR [COUNT]``, then ``XDG_RUNTIME_DIR=DIR remit tui``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

from remit_daemon.wire import rpc

HOSTILE = "/home/ann/a\nb\x1b[2J\u202egnp.[red]x[/red]\u200b\udcff end "


def prompt(number: int = 1, **fields: Any) -> dict[str, Any]:
    """Return a prompt record; ``fields`` override."""
    path = fields.get("path", f"/home/ann/project/src/file{number}.py")
    record = {
        "id": f"p{number}", "state": "open", "agent": "claude", "session": "s1", "project": "/home/ann/project",
        "ops": ["write"], "path": path, "path2": "", "pid": 4242, "exe": "/usr/bin/python3", "comm": "python3",
        "argv": ["python3", "build.py", "two words"], "source": "/home/ann/.config/remit/policy.d/me.toml:12",
        "count": 1, "created": 1000.0 + number, "looking": 0, "holding": 1, "answer": None,
        "scopes": [
            {"scope": path, "label": "this file", "rule": f"write allow {path}"},
            {"scope": "/home/ann/project/src/**", "label": "this folder", "rule": "write allow /home/ann/project/src/**"},
        ],
    }  # fmt: skip
    return record | fields


def session(number: int = 1, **fields: Any) -> dict[str, Any]:
    """Return a session record; ``fields`` override."""
    return {"id": f"s{number}", "agent": "claude", "state": "running", "waiting": 0} | fields


def grant(number: int = 1, **fields: Any) -> dict[str, Any]:
    """Return a grant record; ``fields`` override."""
    record = {
        "id": f"g{number}", "agent": "claude", "session": None, "ops": ["read"], "scope": f"/home/ann/notes/{number}/**",
        "verdict": "allow", "for": "always", "rule": f'allow claude read on "/home/ann/notes/{number}/**", always',
        "created": 900.0, "expires": None, "last_used": None, "uses": 0, "by": "human", "suspended": False,
    }  # fmt: skip
    return record | fields


def entry(seq: int, **fields: Any) -> dict[str, Any]:
    """Return a ledger row; ``fields`` override."""
    record = {
        "seq": seq, "time": 1000.0 + seq, "actor": "agent", "agent": "claude", "session": "s1", "pid": 42, "proc": "7",
        "exe": "/usr/bin/node", "sha256": "", "op": "read", "path": f"/home/ann/project/f{seq}.py", "path2": "",
        "verdict": "allow", "outcome": "ok", "rule": "me.toml:3", "prompt": "", "note": "", "argv": [],
    }  # fmt: skip
    return record | fields


class Approver:
    """The fake. ``calls`` records every call as (method, params)."""

    def __init__(
        self, path: str, prompts: list[dict[str, Any]], sessions: list[dict[str, Any]] | None = None
    ):
        self.path = path
        self.prompts = {p["id"]: p for p in prompts}
        self.sessions = [session()] if sessions is None else sessions
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.grants: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []  # the ledger; a row's seq is its place, from 1
        self.problems: list[dict[str, Any]] = []
        self.limits: list[dict[str, Any]] = []
        self.agents: list[dict[str, Any]] = []
        self.standing: dict[str, Any] | None = None  # the quiet mode
        self.also: dict[str, Any] = {}  # results of methods that only a newer remitd knows
        self.delay = 0.0  # s before each reply
        self.quiet = False  # swallow answers without a reply
        self.refusal = ""  # refuse answers with this, the prompt staying open
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._serve, self.path, limit=rpc.MAX_LINE)

    async def stop(self) -> None:
        """End like a killed remitd: connections break, the socket's file is gone."""
        if self._server:
            self._server.close()
        for writer in list(self._writers):
            writer.close()
        if os.path.exists(self.path):
            os.unlink(self.path)
        await asyncio.sleep(0)

    @property
    def connected(self) -> int:
        """How many connections there are."""
        return len(self._writers)

    def answers(self) -> list[dict[str, Any]]:
        """Return the parameters of the answers so far."""
        return [params for method, params in self.calls if method == "answer"]

    def push(self, method: str, params: dict[str, Any]) -> None:
        """Notify everybody."""
        for writer in self._writers:
            writer.write(
                json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode() + b"\n"
            )

    def ask(self, record: dict[str, Any]) -> None:
        """Open a prompt, or change one."""
        self.prompts[record["id"]] = record
        self.push("prompt", record)

    def settle(self, prompt_id: str, verdict: str, by: str = "human", told: bool = True) -> None:
        """Answer a prompt from elsewhere; without ``told`` the news has not got around yet."""
        state = {"allow": "allowed", "deny": "denied"}[verdict]
        answer = {"verdict": verdict, "for": "once", "scope": "", "rule": "", "by": by, "at": 1.0}
        self.prompts[prompt_id] |= {"state": state, "answer": answer}
        if told:
            self.push("prompt.done", {"id": prompt_id, "state": state})

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while line := await reader.readline():
                request = json.loads(line)
                self.calls.append((request["method"], request["params"]))
                if self.quiet and request["method"] == "answer":
                    continue
                if self.delay:
                    await asyncio.sleep(self.delay)
                reply = self._reply(request["method"], request["params"])
                writer.write(json.dumps({"jsonrpc": "2.0", "id": request["id"], **reply}).encode() + b"\n")
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _reply(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        record = self.prompts.get(params.get("id", ""))
        if method in self.also:
            return {"result": self.also[method]}
        if method in ("prompt", "look", "preview", "answer") and record is None:
            return {"error": {"code": rpc.NOT_FOUND, "message": "no such prompt"}}
        match method:
            case "watch" | "look":
                return {"result": {}}
            case "prompts" if params.get("missed"):
                return {"result": [p for p in self.prompts.values() if p["state"] == "missed"]}
            case "prompts":
                return {"result": [p for p in self.prompts.values() if p["state"] == "open"]}
            case "sessions":
                return {"result": self.sessions}
            case "prompt":
                return {"result": record}
            case "grants":
                return {"result": self.grants}
            case "revoke":
                self.grants = [g for g in self.grants if g["id"] != params["id"]]
                return {"result": {"revoked": [params["id"]]}}
            case "grant.narrow" | "grant.extend" | "pause" | "resume" | "stop" | "reload":
                return {"result": {}}
            case "status":
                due = sum(bool(g.get("due")) for g in self.grants)
                return {
                    "result": {
                        "policy": {"errors": self.problems, "revision": 1},
                        "quiet": self.standing,
                        "review": {"due": due, "suspended": 0},
                    }
                }
            case "limits":
                return {"result": self.limits}
            case "agents":
                return {"result": self.agents}
            case "quiet":
                on = params["mode"] != "off"
                self.standing = (
                    {"mode": params["mode"], "until": 2000.0 + params["seconds"]} if on else None
                )
                self.push("quiet", self.standing or {"mode": "off", "until": None})
                return {"result": {}}
            case "grant.keep":
                for g in self.grants:
                    g |= {"due": False} if g["id"] == params["id"] else {}
                return {"result": {}}
            case "agent.update":
                for a in self.agents:
                    a |= {"pending": False, "changed": None} if a["name"] == params["name"] else {}
                return {"result": {"kept": [], "dropped": []}}
            case "review.done":
                return {"result": {}}
            case "denials":
                return {"result": [r for r in self.rows if r["verdict"] == "deny"]}
            case "who":
                found = [r for r in self.rows if r["path"] == params["path"] and r["op"] == "write"]
                return {
                    "result": {"actor": "agent" if found else "", "entries": found, "text": "no record"}
                }
            case "log.find":
                return {
                    "result": {
                        "seq": next((r["seq"] for r in self.rows if r["time"] >= params["time"]), None)
                    }
                }
            case "log.page":
                return {"result": self._page(params)}
            case "preview" if params.get("scope", "").startswith("!"):
                return {
                    "error": {"code": rpc.INVALID_PARAMS, "message": "that is not within what is offered"}
                }
            case "preview":
                return {"result": {"rule": self._rule(params), "scope": params.get("scope", "")}}
            case "answer" if self.refusal:
                return {"error": {"code": rpc.CONFLICT, "message": self.refusal}}
            case "answer" if record and record["state"] not in ("open", "missed"):
                return {"error": {"code": rpc.CONFLICT, "message": "already answered"}}
            case "answer":
                self.settle(params["id"], params["verdict"])
                return {"result": {"rule": self._rule(params), "grant": None, "settled": [params["id"]]}}
        return {"error": {"code": rpc.METHOD_NOT_FOUND, "message": method}}

    def _page(self, params: dict[str, Any]) -> dict[str, Any]:
        """A page as the ledger gives it; of the filters only equality and ``denied``."""

        def fits(row: dict[str, Any]) -> bool:
            named = {k: v for k, v in params.items() if k not in ("after", "before", "limit", "denied")}
            return all(row[k] == v for k, v in named.items()) and (
                not params.get("denied") or row["verdict"] == "deny"
            )

        size, limit = len(self.rows), params["limit"]
        if "after" in params:
            found = [r for r in self.rows[params["after"] :] if fits(r)][:limit]
            on = found[-1]["seq"] if len(found) == limit else size
            return {"entries": found, "next": on if on < size else None, "size": size}
        before = params.get("before", size + 1)
        found = [r for r in self.rows[: before - 1] if fits(r)][-limit:]
        on = found[0]["seq"] if len(found) == limit else 1
        return {"entries": found, "next": on if on > 1 else None, "size": size}

    def _rule(self, params: dict[str, Any]) -> str:
        if params["for"] == "once":
            return ""
        record = self.prompts[params["id"]]
        return f"{record['ops'][0]} = {{ {params['verdict']} = [{json.dumps(params['scope'])}] }}"


async def _serve_by_hand(directory: str, count: int) -> None:
    os.makedirs(directory + "/remit", 0o700, exist_ok=True)
    now = time.time()
    prompts = [prompt(i, created=now - 10 * i, held_until=now + 60) for i in range(2, count + 1)]
    prompts.append(prompt(1, created=now - 90, path=HOSTILE, ops=["create", "write"], count=3))
    server = Approver(directory + "/remit/approver.sock", prompts, [session(1), session(2, agent="codex")])
    server.grants = [grant(1), grant(2, markers=["unused"], path=HOSTILE)]
    server.rows = [entry(n, time=now - 3000 + n) for n in range(1, 3001)]
    await server.start()
    seen = 0
    try:
        while True:
            await asyncio.sleep(0.2)
            for call in server.calls[seen:]:
                print(*call, flush=True)
            seen = len(server.calls)
    finally:
        await server.stop()


if __name__ == "__main__":
    try:
        asyncio.run(_serve_by_hand(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3))
    except KeyboardInterrupt:
        pass
