"""A supervisor that confines nothing: it speaks control.sock, and a person that speaks approver.sock."""

from __future__ import annotations

import json
import os
import select
import socket
import time
from typing import Any

from remit_daemon.peers import mark
from remit_daemon.wire.control import FIRST_OF_GATEWAY, VERSION
from remit_daemon.wire.frames import Reader, encode
from remit_daemon.wire.journal import pack
from remit_daemon.wire.paths import Paths

PATIENCE = 10.0


class FakeSupervisor:
    """One session's supervisor, in this process or any other that uses it."""

    def __init__(self, paths: Paths, project: str, **hello: Any) -> None:
        self.paths = paths
        self.tag = mark.new_tag()
        self.hello: dict[str, Any] = {
            "type": "hello",
            "version": VERSION,
            "agent": "claude",
            "argv": ["claude"],
            "exe": "/usr/bin/claude",
            "sha256": "0" * 64,
            "cwd": project,
            "project": project,
            "home": os.path.expanduser("~"),
            "tty": False,
            "ask": "prompt",
            "policy": [],
            "hold": 0,
            "tag": self.tag,
            "launch": [],
            "session": "",
            "tmpdir": "",
        } | hello
        self.seq = 0
        self.session = ""
        self.snapshots: list[dict[str, Any]] = []

    def connect(self) -> dict[str, Any]:
        """Say hello (again, when there is a session) and return the welcome or the refusal."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.paths.control)
        self.reader = Reader()
        self.queue: list[dict[str, Any]] = []
        self.send(self.first())
        answer = self.read()
        if answer["type"] == "welcome":
            self.session = answer["session"]
        return answer

    def first(self) -> dict[str, Any]:
        """Return the frame that opens the connection."""
        return self.hello | {"session": self.session}

    def send(self, frame: dict[str, Any]) -> None:
        self.sock.sendall(encode(frame))

    def raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read(self, timeout: float = PATIENCE) -> dict[str, Any]:
        """Return the next frame. Raises TimeoutError, or EOFError when the daemon closed."""
        end = time.monotonic() + timeout
        while not self.queue:
            if not select.select([self.sock], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError("no frame")
            data = self.sock.recv(1 << 16)
            if not data:
                raise EOFError("closed")
            self.queue += self.reader.feed(data)
        return self.queue.pop(0)

    def ask(self, path: str, *ops: str, seq: int = 0, **fields: Any) -> int:
        """Send an ask and return its seq."""
        if not seq:
            self.seq += 1
            seq = self.seq
        self.send(
            {
                "type": "ask",
                "seq": seq,
                "ops": list(ops or ("read",)),
                "path": path,
                "path2": "",
                "pid": os.getpid(),
                "proc": "1",
                "exe": "/usr/bin/cat",
                "comm": "cat",
                "argv": [],
                "source": "default",
                "count": 1,
                "costs": [],
                "short": False,
            }
            | fields
        )
        return seq

    def act(self, seq: int, op: str, path: str, rule: str = "", verdict: str = "allow") -> None:
        """Write an act to the journal and poke."""
        fields = [
            "act",
            str(seq),
            str(time.time_ns()),
            op,
            verdict,
            "passed" if verdict == "allow" else "refused",
        ]
        fields += [str(os.getpid()), "1", "/usr/bin/cat", "0" * 64, path, "", rule, "", ""]
        with open(f"{self.paths.spool}/{self.session}.journal", "ab") as f:
            f.write(pack(fields))
        self.send({"type": "poke"})

    def close(self) -> None:
        self.sock.close()


class FakeGateway(FakeSupervisor):
    """The gateway of ``session``; a supervisor's child has to be it."""

    def __init__(self, paths: Paths, session: str, tag: int) -> None:
        super().__init__(paths, "/")
        self.session, self.tag = session, tag
        self.seq = FIRST_OF_GATEWAY

    def first(self) -> dict[str, Any]:
        return {"type": "gateway", "version": VERSION, "session": self.session, "tag": self.tag}


class RpcError(Exception):
    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.code = error["code"]
        self.data = error.get("data") or {}


class FakePerson:
    """A client of approver.sock or agent.sock."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(path)
        self.file = self.sock.makefile("rb")
        self.ident = 0
        self.heard: list[dict[str, Any]] = []

    def call(self, method: str, **params: Any) -> Any:
        if "for_" in params:
            params["for"] = params.pop("for_")
        self.ident += 1
        request = {"jsonrpc": "2.0", "id": self.ident, "method": method, "params": params}
        self.sock.sendall(json.dumps(request).encode() + b"\n")
        while True:
            answer = self.next()
            if "id" not in answer:
                self.heard.append(answer)
            elif "error" in answer:
                raise RpcError(answer["error"])
            else:
                return answer["result"]

    def next(self) -> dict[str, Any]:
        line = self.file.readline()
        if not line:
            raise EOFError("closed")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        self.file.close()
        self.sock.close()


def main() -> None:
    """Be a supervisor of its own process (PROJECT), or a gateway (SESSION TAG): ask for each line of standard input, print
    each frame as a line. A gateway's lines are an operation and a resource."""
    import sys

    from remit_daemon.wire.paths import find

    sup = FakeSupervisor(find(), sys.argv[1])
    if len(sys.argv) > 2:
        sup = FakeGateway(find(), sys.argv[1], int(sys.argv[2]))
    print(json.dumps(sup.connect()), flush=True)
    while True:
        ready = select.select([0, sup.sock], [], [])[0]
        if 0 in ready:
            path = os.read(0, 4096).decode().rstrip("\n")
            if not path:
                return
            op, _, resource = path.partition(" ")
            sup.ask(*((resource, op) if resource else (path,)))
        if sup.sock in ready:
            print(json.dumps(sup.read()), flush=True)
            while sup.queue:
                print(json.dumps(sup.queue.pop(0)), flush=True)


if __name__ == "__main__":
    main()
