"""D-Bus beside xdg-dbus-proxy in one run: round trips and messages, direct, through it, and through remit's gateway.

    python tests/bench/bench_dbus.py [--rounds N] [--calls N]

A service (in a process of its own, C speed is not the point: it answers with a message made once) owns a name on a private
dbus-daemon. A client calls it one call at a time (round trip), and then WINDOW at a time (messages), through each way in
turn, ROUNDS times interleaved; medians. Every call through remit is decided and written to its journal, twice.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / d) for d in ("tests", "policy", "daemon", "tui")]

from remit_daemon.gateway.dbus import wire  # noqa: E402
from system.buses import Client, Proxy, RealBus, policy, until  # noqa: E402

NAME, PATH, IFACE = "org.example.Bench", "/org/example/Bench", "org.example.Bench"
RULES = f"allow see {NAME}\nallow call {NAME} {IFACE}.*\n"
WINDOW = 100  # calls that are on their way at once in the second figure
PROMISED = 1.2  # round trips: times of xdg-dbus-proxy


def role(argv: list[str]) -> None:
    """Be the service or the gateway in a process of its own, until the standard input ends."""
    if argv[0] == "service":
        serve(argv[1])
    else:
        proxy = Proxy(argv[1], policy(RULES), thread=False)
        print(proxy.address, flush=True)
        proxy.run_here(sys.stdin.fileno())


def serve(address: str) -> None:
    """Answer every call as fast as Python can: the reply's bytes are patched, not built."""
    client = Client(address)
    assert client.own(NAME) == 1
    print("ready", flush=True)
    frames = client._frames
    client.sock.settimeout(None)
    while True:
        data = client.sock.recv(1 << 16)
        if not data:
            return
        out = [
            wire.build(wire.RETURN, client.serial(), dest=m.head.sender, reply=m.serial)
            for m in frames.feed(data)
            if m.head.type == wire.CALL
        ]
        client.sock.sendall(b"".join(out))


class Caller:
    """A client that has made its call's bytes before, but for the serial."""

    def __init__(self, address: str) -> None:
        self.client = Client(address)
        self.client.bus("GetId")  # behind NameAcquired: from now on nothing but replies comes
        raw = wire.build(
            wire.CALL,
            1,
            path=PATH,
            interface=IFACE,
            member="Play",
            dest=NAME,
            signature="s",
            body=wire.pack_strings("x" * 32),
        )
        self._head, self._tail = raw[:8], raw[12:]
        self._next = 1000

    def _call(self) -> bytes:
        self._next += 1
        return self._head + self._next.to_bytes(4, "little") + self._tail

    def round_trips(self, count: int) -> float:
        """Return calls a second, one after the other."""
        sock = self.client.sock
        sock.settimeout(None)
        started = time.perf_counter()
        for _ in range(count):
            sock.send(self._call())
            data = sock.recv(4096)
            assert data[1] == wire.RETURN, data
        return count / (time.perf_counter() - started)

    def messages(self, count: int) -> float:
        """Return messages (calls and replies) a second, WINDOW calls at a time."""
        sock = self.client.sock
        size = 0
        started = time.perf_counter()
        for _ in range(count // WINDOW):
            sock.sendall(b"".join([self._call() for _ in range(WINDOW)]))
            got = 0
            while not size or got < size * WINDOW:
                data = sock.recv(1 << 16)
                size = size or wire.length(data, 0, len(data))
                got += len(data)
        return 2 * count / (time.perf_counter() - started)


def spawn(*argv: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, __file__, "--role", *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def main() -> None:
    if sys.argv[1:2] == ["--role"]:
        role(sys.argv[2:])
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--calls", type=int, default=200)
    options = parser.parse_args()
    table(*measure(options.rounds, options.calls))


def measure(
    rounds: int, calls: int
) -> tuple[dict[str, list[float]], dict[str, list[float]], dict[str, float]]:
    """Return round trips/s and messages/s of each round by way, and the proxies' CPU seconds per message in microseconds."""
    bus = RealBus()
    processes = []
    directory = tempfile.mkdtemp()
    try:
        service, _ = spawn("service", bus.address)
        gateway, address = spawn("gateway", bus.address)
        processes += [service, gateway]
        pids = {"remit": gateway.pid}
        ways = {"direct": bus.address, "remit": address}
        if shutil.which("xdg-dbus-proxy"):
            path = directory + "/proxy"
            rules = ["--filter", f"--see={NAME}", f"--call={NAME}={IFACE}.*@/*"]
            processes.append(subprocess.Popen(["xdg-dbus-proxy", bus.address, path, *rules]))
            until(lambda: os.path.exists(path))
            ways["xdg-dbus-proxy"] = f"unix:path={path}"
            pids["xdg-dbus-proxy"] = processes[-1].pid
        until(lambda: os.path.exists(address.removeprefix("unix:path=")))
        callers = {name: Caller(way) for name, way in ways.items()}
        trips: dict[str, list[float]] = {n: [] for n in ways}
        messages: dict[str, list[float]] = {n: [] for n in ways}
        for caller in callers.values():
            caller.round_trips(200)
        began = {n: cpu_seconds(pid) for n, pid in pids.items()}
        for _ in range(rounds):
            for name, caller in callers.items():
                trips[name].append(caller.round_trips(calls))
                messages[name].append(caller.messages(calls * 2))
        total = rounds * 2 * (calls + calls * 2 // WINDOW * WINDOW)
        return trips, messages, {n: 1e6 * (cpu_seconds(pid) - began[n]) / total for n, pid in pids.items()}
    finally:
        for process in processes:
            process.terminate()
            process.wait()
        bus.close()
        shutil.rmtree(directory, ignore_errors=True)


def ratios(trips: dict[str, list[float]], messages: dict[str, list[float]]) -> tuple[float, float]:
    """Return round trip and messages/s as times of xdg-dbus-proxy, by round: what else the machine does weighs on both."""
    times = [a / b for a, b in zip(trips["xdg-dbus-proxy"], trips["remit"], strict=True)]
    rates = [a / b for a, b in zip(messages["remit"], messages["xdg-dbus-proxy"], strict=True)]
    return statistics.median(times), statistics.median(rates)


def rows() -> list[tuple[str, str, str]]:
    """Return name, figure and promise of each row for the table of ``run.py``."""
    if not shutil.which("dbus-daemon"):
        return [("D-Bus", "there is no dbus-daemon", "")]
    trips, messages, cpu = measure(30, 200)
    out = [
        (
            f"D-Bus round trip, {name}",
            f"{1e6 / statistics.median(trips[name]):.0f} µs, {statistics.median(messages[name]):.0f} messages/s",
            "",
        )
        for name in trips
    ]
    if "xdg-dbus-proxy" in trips:
        trip, rate = ratios(trips, messages)
        out.append(("D-Bus round trip, times of xdg-dbus-proxy", f"{trip:.2f}", f"<= {PROMISED}"))
        out.append(("D-Bus messages/s, times of xdg-dbus-proxy", f"{rate:.2f}", ""))
    return [*out, *((f"D-Bus CPU per message, {n}", f"{used:.1f} µs", "") for n, used in cpu.items())]


def table(trips: dict[str, list[float]], messages: dict[str, list[float]], cpu: dict[str, float]) -> None:
    print(f"{'':16}{'round trip':>14}{'trips/s':>10}{'messages/s':>12}{'CPU per message':>17}")
    for name in trips:
        trip, message = statistics.median(trips[name]), statistics.median(messages[name])
        used = f"{cpu[name]:.1f} µs" if name in cpu else ""
        print(f"{name:16}{1e6 / trip:>11.1f} µs{trip:>10.0f}{message:>12.0f}{used:>17}")
    if "xdg-dbus-proxy" not in trips:
        print("there is no xdg-dbus-proxy to compare with")
        return
    trip, rate = ratios(trips, messages)
    best = max(trips["xdg-dbus-proxy"]) / max(trips["remit"])
    print(
        f"round trip, times of xdg-dbus-proxy: {trip:.2f}, best rounds {best:.2f} (promised: <= {PROMISED})"
    )
    print(f"messages/s, times of xdg-dbus-proxy: {rate:.2f}")


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
