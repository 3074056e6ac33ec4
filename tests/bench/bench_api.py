"""The verbs for programs: round trips over agent.sock and D-Bus, one client and a thousand, beside a signature by ssh-agent in one run.

ssh-agent is what a program of the desktop asks over a Unix socket, too; its signature (Ed25519) decides and records nothing. ``rows()``
gives (what, figure, promise) triples for the table; run as a program it prints them. What is not installed is left out, and said.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fakes.machine import Machine
from remit_client import Remit
from remit_daemon.gateway.dbus import wire
from remit_daemon.gateway.dbus.values import pack
from remit_daemon.peers.attest import Attestor
from system.buses import Client, RealBus, Refusal, Service, until

TRIPS = int(os.environ.get("REMIT_BENCH_CALLS", "500"))  # of each kind
CLIENTS, EACH = 1000, 5  # connections at once, and questions over each
APP = "org.example.Bench"
BROKER, BROKER_AT = "dev.remit.Broker1", "/dev/remit/Broker1"
POLICY = f"""
version = 1
[agent.bench]
match = {{ name = "bench" }}
roles = ["bench"]
[role.bench.files]
read = {{ allow = ["ROOT/**"] }}
[role.bench.dbus."{APP}"]
call = {{ allow = ["*"] }}
"""
# A process of its own: as many connections as there are clients, each asking again as soon as it is answered.
CROWD = "import sys; sys.path[:0] = sys.argv[4:]; from bench_api import crowd; crowd(sys.argv[1], sys.argv[2], int(sys.argv[3]))"


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def shown(values: list[float]) -> str:
    return f"{percentile(values, 0.5) * 1e3:.2f} ms, p99 {percentile(values, 0.99) * 1e3:.2f} ms"


def timed(step: Callable[[], object], times: int = TRIPS) -> list[float]:
    step()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        step()
        found.append(time.perf_counter() - start)
    return found


# -- ssh-agent -------------------------------------------------------------------------------------


@contextmanager
def ssh_agent(root: str) -> Iterator[Callable[[], None]]:
    """Have an ssh-agent with one key, and give what has it sign (draft-ietf-sshm-ssh-agent, "Private key operations")."""
    path, key = root + "/ssh", root + "/key"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        until(lambda: os.path.exists(path), 5)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": True}
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], **quiet)  # type: ignore[call-overload]
        subprocess.run(["ssh-add", "-q", key], env=os.environ | {"SSH_AUTH_SOCK": path}, **quiet)  # type: ignore[call-overload]
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            lines = sock.makefile("rb")

            def ask(body: bytes) -> bytes:
                sock.sendall(struct.pack(">I", len(body)) + body)
                return lines.read(int.from_bytes(lines.read(4)))

            blob_at = ask(b"\x0b")[5:]
            blob = blob_at[: 4 + int.from_bytes(blob_at[:4])]
            request = b"\x0d" + blob + struct.pack(">I", 32) + bytes(32) + bytes(4)

            def sign() -> None:
                if ask(request)[:1] != b"\x0e":
                    raise RuntimeError("ssh-agent does not sign")

            yield sign
    finally:
        agent.terminate()
        agent.wait(5)


# -- round trips -----------------------------------------------------------------------------------


def on_socket(machine: Machine, path: str) -> list[tuple[str, str, str]]:
    out = []
    with Remit(machine.paths.agent, agent="bench") as remit:
        steps: dict[str, Callable[[], object]] = {
            "whoami": remit.whoami,
            "check": lambda: remit.check("read", path),
            "request": lambda: remit.request("read", path),
            "open": lambda: os.close(remit.open(path)),
        }
        for name, step in steps.items():
            out.append((f"api: {name} over agent.sock", shown(timed(step)), ""))
    return out


def on_bus(machine: Machine, bus: RealBus, path: str) -> list[tuple[str, str, str]]:
    out = []
    with Client(bus.address) as client:

        def step(member: str, signature: str, *args: object) -> Callable[[], None]:
            body = pack(signature, list(args))

            def call() -> None:
                found = client.call(BROKER, BROKER_AT, BROKER, member, signature=signature, body=body)
                for fd in found.files:
                    os.close(fd)

            return call

        step("Hello", "a{sv}", {"agent": {"signature": "s", "value": "bench"}})()
        for member, call in {
            "Check": step("Check", "ssa{sv}", "read", path, {}),
            "Request": step("Request", "ssa{sv}", "read", path, {}),
            "Open": step("Open", "ssa{sv}", path, "read", {}),
        }.items():
            out.append((f"api: {member} over D-Bus", shown(timed(call)), ""))
        service = Service(bus.address, APP)
        try:
            direct = timed(lambda: client.call(service.me, "/x", "a.b", "C"))
            with Remit(machine.paths.agent, agent="bench") as remit:
                through = timed(lambda: remit.call_app(APP, "/x", "a.b", "C"))
        finally:
            service.close()
        out.append(("api: a program called directly", shown(direct), ""))
        out.append(("api: the same by remit, decided, pinned and recorded", shown(through), ""))
    return out


# -- a thousand ------------------------------------------------------------------------------------


def crowd(path: str, resource_: str, count: int) -> None:
    """Print the seconds that each answer took, of ``count`` connections that all ask at once, EACH times."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    params = {"op": "read", "resource": resource_}
    question = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "check", "params": params}).encode() + b"\n"
    chosen = selectors.DefaultSelector()
    for _ in range(count):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        chosen.register(sock, selectors.EVENT_READ, [0.0, 0])
    print("ready", flush=True)
    sys.stdin.readline()
    for key in list(chosen.get_map().values()):
        key.data[0] = time.perf_counter()
        key.fileobj.send(question)  # type: ignore[union-attr]
    times = []
    while chosen.get_map():
        for key, _ in chosen.select():
            answer = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
            if b'"result"' not in answer:
                raise SystemExit(f"no answer: {answer!r}")
            times.append(time.perf_counter() - key.data[0])
            key.data[1] += 1
            if key.data[1] == EACH:
                chosen.unregister(key.fileobj)
            else:
                key.data[0] = time.perf_counter()
                key.fileobj.send(question)  # type: ignore[union-attr]
    print(json.dumps(times), flush=True)
    sys.stdin.readline()


def thousand(machine: Machine, path: str) -> list[tuple[str, str, str]]:
    here = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1])]
    process = subprocess.Popen(
        [sys.executable, "-c", CROWD, machine.paths.agent, path, str(CLIENTS), *here], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=machine.env,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        process.stdout.readline()
        person, waited, over = machine.person(), [], threading.Event()

        def look() -> None:
            while not over.wait(0.02):
                start = time.perf_counter()
                person.call("status")
                waited.append(time.perf_counter() - start)

        looking = threading.Thread(target=look)
        looking.start()
        start = time.perf_counter()
        process.stdin.write(b"go\n")
        process.stdin.flush()
        times = json.loads(process.stdout.readline())
        seconds = time.perf_counter() - start
        over.set()
        looking.join()
    process.wait(10)
    name = f"api: check, {CLIENTS:,} clients at once, a person calling"
    return [
        (name, f"{len(times) / seconds:,.0f} a second, each {shown(times)}", ""),
        ("api: the person's call meanwhile", shown(waited), ""),
    ]


# -- attestation -----------------------------------------------------------------------------------


def attestation() -> list[tuple[str, str, str]]:
    pidfd = os.pidfd_open(os.getpid())
    try:
        cold = [_attest(Attestor(), pidfd) for _ in range(10)]
        known = Attestor()
        cached = timed(lambda: known.of_process(os.getpid(), pidfd, "bench"))
    finally:
        os.close(pidfd)
    size = os.stat("/proc/self/exe").st_size / 1e6
    return [
        (f"api: attestation, cold ({size:.0f} MB program)", shown(cold), ""),
        ("api: attestation, cached", shown(cached), ""),
    ]


def _attest(attestor: Attestor, pidfd: int) -> float:
    start = time.perf_counter()
    attestor.of_process(os.getpid(), pidfd, "bench")
    return time.perf_counter() - start


def _has_name(bus: RealBus) -> bool:
    with Client(bus.address) as client:
        try:
            return bool(wire.leading(client.bus("GetNameOwner", BROKER)))
        except Refusal:
            return False


def rows() -> list[tuple[str, str, str]]:
    """Measure all of it, with a daemon and a bus of its own."""
    out = attestation()
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as root:
        if shutil.which("ssh-agent") and shutil.which("ssh-add"):
            with ssh_agent(root) as sign:
                out.append(("beside it: a signature by ssh-agent", shown(timed(sign)), ""))
        else:
            out.append(("beside it: a signature by ssh-agent", "not installed", ""))
        bus = RealBus() if shutil.which("dbus-daemon") else None
        machine = Machine(root)
        machine.env.pop("DBUS_SESSION_BUS_ADDRESS", None)
        if bus is not None:
            machine.env["DBUS_SESSION_BUS_ADDRESS"] = bus.address
        machine.policy(POLICY.replace("ROOT", root))
        path = root + "/file"
        Path(path).write_text("x")
        try:
            machine.start()
            out += on_socket(machine, path)
            if bus is not None:
                until(lambda: _has_name(bus), 10)
                out += on_bus(machine, bus, path)
            out += thousand(machine, path)
        finally:
            machine.stop()
            if bus is not None:
                bus.close()
    return out


if __name__ == "__main__":
    for what, figure, _ in rows():
        print(f"{what:60} {figure}")
