"""A real dbus-daemon of its own, the gateway's bus part before it, and a plain client to drive either.

The gateway's part runs in this process on a loop of its own thread, as in the gateway but for the supervisor; its
journal is a real one. ``Client`` speaks raw messages: what a library would not send is the point of half of the tests.
"""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from remit_daemon.gateway.authority import Authority, Origin
from remit_daemon.gateway.context import Context
from remit_daemon.gateway.dbus import wire
from remit_daemon.gateway.dbus.frames import Frames
from remit_daemon.gateway.dbus.serve import serve_bus
from remit_daemon.gateway.journal import Journal
from remit_daemon.wire import journal as records
from remit_policy.layers import PolicySet, packs
from remit_policy.model import USER, VERDICTS, Rule, Snapshot

BUS, BUS_PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"
SECONDS = 5.0
_VARIABLES = {
    "HOME": "/home/ada", "PROJECT": "/home/ada/p", "TMPDIR": "/tmp/remit-1", "XDG_CONFIG_HOME": "/home/ada/.config",
    "XDG_STATE_HOME": "/home/ada/.s", "XDG_DATA_HOME": "/home/ada/.d", "XDG_CACHE_HOME": "/home/ada/.c",
    "XDG_RUNTIME_DIR": "/run/user/1000",
}  # fmt: skip


def policy(text: str = "", *, hold: float = 20.0) -> Snapshot:
    """Return the packs' snapshot and the rules of ``text``: lines of verdict, operation, pattern."""
    made = PolicySet(packs()).snapshot("probe", "", "", _VARIABLES)
    rules = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split(None, 2)
        if words:
            verdict, op, pattern = words
            rules.append(Rule(USER, VERDICTS.index(verdict), op, pattern, source=f"test.toml:{number}"))
    return Snapshot("probe", (*made.rules, *rules), hold=hold, variables=made.variables)


class RealBus:
    """A dbus-daemon in a directory of its own."""

    def __init__(self) -> None:
        self.dir = tempfile.mkdtemp(prefix="remit-bus-")
        self.path = self.dir + "/bus"
        self.address = f"unix:path={self.path}"
        self._process = subprocess.Popen(
            ["dbus-daemon", "--session", "--nofork", "--nopidfile", "--print-address=1", "--address=" + self.address],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ | {"XDG_DATA_DIRS": self.dir, "XDG_DATA_HOME": self.dir},
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline()

    def activatable(self, name: str, command: str) -> None:
        """Make ``name`` a service that the bus starts."""
        services = Path(self.dir, "dbus-1", "services")
        services.mkdir(parents=True, exist_ok=True)
        (services / f"{name}.service").write_text(f"[D-BUS Service]\nName={name}\nExec={command}\n")
        with Client(self.address) as client:
            client.call(BUS, BUS_PATH, BUS, "ReloadConfig")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        shutil.rmtree(self.dir, ignore_errors=True)


class Proxy:
    """The gateway's bus part, at ``address``, before the bus at ``bus``."""

    def __init__(
        self, bus: str, snapshot: Snapshot, *, which: str = "session", thread: bool = True
    ) -> None:
        """With ``thread`` false it serves once ``run_here`` is called, until that is stopped."""
        self.dir = tempfile.mkdtemp(prefix="remit-proxy-")
        self.path = self.dir + "/bus"
        self.address = f"unix:path={self.path}"
        self._which, self._bus = which, bus
        self.journal = self.dir + "/journal"
        self.authority = Authority(snapshot, Journal(self.journal), agent="probe")
        self.frames: list[dict[str, Any]] = []
        self.authority.say = self.frames.append
        self.faults: list[BaseException] = []
        self.loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        if thread:
            self._thread.start()
            self._ready.wait(SECONDS)

    def run_here(self, until_readable: int) -> None:
        """Serve in this thread, as the gateway does, until the descriptor is readable."""
        self.loop.add_reader(until_readable, self.loop.stop)
        self._run()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.bind(self.path)
        listener.listen(100)
        self.ctx = Context(self.authority, None, session="s", agent="probe", private=self.dir)  # type: ignore[arg-type]

        def accept() -> None:
            client, _ = listener.accept()
            task = self.loop.create_task(self._serve(client))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self.loop.add_reader(listener.fileno(), accept)
        self._ready.set()
        self.loop.run_forever()
        listener.close()

    async def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                origin = Origin(4242, "", "/usr/bin/probe", "probe", ("probe",))
                await serve_bus(self.ctx, client, origin, self._which, self._bus)
            except asyncio.CancelledError:
                raise
            except BaseException as e:
                self.faults.append(e)

    def run(self, what: Callable[[], Any]) -> Any:
        """Run ``what`` in the loop's thread and return what it does."""

        async def call() -> Any:
            return what()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(SECONDS)

    def adopt(self, snapshot: Snapshot) -> None:
        self.run(lambda: self.authority.adopt(snapshot))

    def asked(self, count: int = 1) -> list[dict[str, Any]]:
        """Return the questions, once there are ``count``."""
        until(lambda: len([f for f in self.frames if f["type"] == "ask"]) >= count)
        return [f for f in self.frames if f["type"] == "ask"]

    def answer(self, frame: dict[str, Any], verdict: str) -> None:
        self.run(lambda: self.authority.questions.answered(frame["seq"], verdict, "", "P1"))

    def acts(self) -> list[tuple[str, str, str, str, str]]:
        """Return operation, verdict, outcome, resource and note of all rows."""
        raw = Path(self.journal).read_bytes()
        rows: dict[str, list[str]] = {}
        for fields, _ in records.unpack(raw):
            if fields[0] == "act":
                rows[fields[1]] = [fields[3], fields[4], fields[5], fields[10], fields[14]]
            elif fields[0] == "done":
                rows[fields[1]][2] = fields[3]
        return [tuple(r) for r in rows.values()]  # type: ignore[misc]

    def close(self) -> None:
        def stop() -> None:
            for task in self._tasks:
                task.cancel()
            self.loop.call_later(0.05, self.loop.stop)

        self.loop.call_soon_threadsafe(stop)
        self._thread.join(SECONDS)
        self.loop.close()
        shutil.rmtree(self.dir, ignore_errors=True)
        assert not self.faults, self.faults


def until(what: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Return what ``what`` returns once that is true."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "did not come"
        time.sleep(0.005)
    return found


class Refusal(Exception):
    """An error reply: its name and its text."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name
        self.text = text


class Client:
    """A connection to a bus, made of raw messages. Not for several threads."""

    def __init__(self, address: str, *, hello: bool = True, big: bool = False) -> None:
        self.big = big
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(address.removeprefix("unix:path="))
        self._serial = 0
        self._frames = Frames(files=True)
        self.inbox: list[wire.Message] = []
        self.me = ""
        self._shake()
        if hello:
            self.me = wire.leading(self.call(BUS, BUS_PATH, BUS, "Hello"))[0]

    def _shake(self) -> None:
        uid = str(os.getuid()).encode().hex().encode()
        self.sock.sendall(b"\0AUTH EXTERNAL " + uid + b"\r\n")
        assert self._line().startswith(b"OK ")
        self.sock.sendall(b"NEGOTIATE_UNIX_FD\r\n")
        assert self._line() == b"AGREE_UNIX_FD"
        self.sock.sendall(b"BEGIN\r\n")

    def _line(self) -> bytes:
        out = b""
        while not out.endswith(b"\r\n"):
            more = self.sock.recv(1)
            if not more:
                raise EOFError
            out += more
        return out[:-2]

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for message in self.inbox:
            for fd in message.files:
                os.close(fd)
        self._frames.close()
        self.sock.close()

    def serial(self) -> int:
        self._serial += 1
        return self._serial

    def send(
        self, kind: int, *, strings: tuple[str, ...] = (), files: tuple[int, ...] = (), **fields: Any
    ) -> int:
        """Send a message; ``strings`` are its body unless ``body`` and ``signature`` say it. Returns its serial."""
        serial = fields.pop("serial", None) or self.serial()
        if strings:
            fields |= {"signature": "s" * len(strings), "body": wire.pack_strings(*strings, big=self.big)}
        raw = wire.build(kind, serial, big=self.big, fds=len(files), **fields)
        if files:
            socket.send_fds(self.sock, [raw], list(files))
        else:
            self.sock.sendall(raw)
        return serial

    def start(self, dest: str, path: str, interface: str, member: str, *strings: str, **fields: Any) -> int:
        """Send a call; returns its serial."""
        return self.send(
            wire.CALL, dest=dest, path=path, interface=interface, member=member, strings=strings, **fields
        )

    def call(
        self, dest: str, path: str, interface: str, member: str, *strings: str, **fields: Any
    ) -> wire.Message:
        """Call and return the reply. Raises Refusal."""
        return self.reply(self.start(dest, path, interface, member, *strings, **fields))

    def bus(self, member: str, *strings: str, **fields: Any) -> wire.Message:
        return self.call(BUS, BUS_PATH, BUS, member, *strings, **fields)

    def own(self, name: str) -> int:
        body = wire.pack_strings(name)
        body += bytes(-len(body) % 4) + struct.pack("<I", 4)
        message = self.call(BUS, BUS_PATH, BUS, "RequestName", signature="su", body=body)
        return int(struct.unpack("<I", bytes(message.body))[0])

    def reply(self, serial: int, seconds: float = SECONDS) -> wire.Message:
        """Return the reply to ``serial``. Raises Refusal."""
        message = self.wait(
            lambda m: m.head.type in (wire.RETURN, wire.ERROR) and m.reply == serial, seconds
        )
        if message.head.type == wire.ERROR:
            raise Refusal(message.head.error, (wire.leading(message) or ("",))[0])
        return message

    def wait(self, wanted: Callable[[wire.Message], bool], seconds: float = SECONDS) -> wire.Message:
        """Return the first message that is ``wanted``; others stay. Raises TimeoutError, EOFError."""
        end = time.monotonic() + seconds
        while True:
            for i, message in enumerate(self.inbox):
                if wanted(message):
                    return self.inbox.pop(i)
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.sock], [], [], left)[0]:
                raise TimeoutError
            data, files, _, _ = socket.recv_fds(self.sock, 1 << 16, 253)
            if not data:
                raise EOFError
            self.inbox += self._frames.feed(data, files)

    def signal(self, interface: str, member: str, seconds: float = SECONDS) -> wire.Message:
        return self.wait(
            lambda m: (
                m.head.type == wire.SIGNAL and (m.head.interface, m.head.member) == (interface, member)
            ),
            seconds,
        )

    def quiet(self, wanted: Callable[[wire.Message], bool], seconds: float = 0.15) -> bool:
        """Say that no ``wanted`` message comes: everything sent before was handled, and then some."""
        try:
            self.wait(wanted, seconds)
        except TimeoutError:
            return True
        return False

    def ended(self) -> bool:
        """Say whether the other side closes the connection."""
        try:
            self.wait(lambda m: False, SECONDS)
        except (EOFError, ConnectionError):
            return True
        except TimeoutError:
            return False
        return False


class Service:
    """A program on the bus, in a thread of its own: it answers every call with what it was called by."""

    def __init__(self, address: str, *names: str) -> None:
        self.client = Client(address)
        for name in names:
            assert self.client.own(name) == 1
        self.calls: list[wire.Message] = []
        self.me = self.client.me
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop:
            try:
                message = self.client.wait(lambda m: m.head.type == wire.CALL, 0.05)
            except TimeoutError:
                continue
            except (EOFError, OSError):
                return
            self.calls.append(message)
            if message.flags & wire.NO_REPLY:
                continue
            said = f"{message.head.interface}.{message.head.member}"
            self.client.send(
                wire.RETURN,
                dest=message.head.sender,
                reply=message.serial,
                strings=(said,),
                files=message.files[:1],
            )

    def members(self) -> list[str]:
        return [f"{m.head.interface}.{m.head.member}" for m in self.calls]

    def emit(self, interface: str, member: str, *strings: str, path: str = "/x", dest: str = "") -> None:
        self.client.send(
            wire.SIGNAL, path=path, interface=interface, member=member, strings=strings, dest=dest
        )

    def close(self) -> None:
        self._stop = True
        self._thread.join(SECONDS)
        self.client.close()
