"""Listeners outside the session, standing for the person's other programs.

Whoever reaches one of them is told a token, and over the first socket gets the secret's descriptor too.
Unix: helper, ssh-agent, bus, systemd/private, docker (stream), seq (seqpacket), dgram, an abstract name. Loopback: TCP, UDP.
"""

import array
import json
import os
import selectors
import socket
import sys

arena = json.loads(os.environ["ARENA"])
token = os.environ["HELPER_TOKEN"].encode() + b"\n"
poll = selectors.DefaultSelector()


def listen(family: int, kind: int, address: object, role: str, protocol: int = 0) -> socket.socket | None:
    try:
        s = socket.socket(family, kind, protocol)
        if family == socket.AF_INET and kind == socket.SOCK_STREAM and not protocol:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
        s.bind(address)  # type: ignore[arg-type]
        if kind != socket.SOCK_DGRAM:
            s.listen(128)
    except OSError:
        return None
    s.setblocking(False)
    poll.register(s, selectors.EVENT_READ, role)
    return s


run = arena["run"]
for name in ("helper", "ssh-agent", "bus", "systemd/private", "docker.sock"):
    listen(socket.AF_UNIX, socket.SOCK_STREAM, f"{run}/{name}", "stream")
listen(socket.AF_UNIX, socket.SOCK_SEQPACKET, arena["sock_seqpacket"], "stream")
listen(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + arena["sock_abstract"], "stream")
listen(socket.AF_UNIX, socket.SOCK_DGRAM, arena["sock_dgram"], "dgram")
listen(socket.AF_UNIX, socket.SOCK_DGRAM, "\0" + arena["sock_abstract"] + ".dgram", "dgram")
tcp = listen(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0), "stream")
tcp6 = listen(socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0), "stream")
udp = listen(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0), "dgram")
mptcp = listen(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0), "stream", 262)
ports = {"tcp": tcp, "tcp6": tcp6, "udp": udp, "tcp_mptcp": mptcp}
json.dump({k: s.getsockname()[1] if s else 0 for k, s in ports.items()}, sys.stdout)
print(flush=True)

while True:
    for key, _ in poll.select():
        try:
            if key.data == "dgram":
                _, sender = key.fileobj.recvfrom(65536)  # type: ignore[union-attr]
                if sender:
                    key.fileobj.sendto(token, sender)  # type: ignore[union-attr]
                with open(arena["outside"] + "/dgrams", "a") as f:
                    f.write("x")
                continue
            peer, _ = key.fileobj.accept()  # type: ignore[union-attr]
            with peer:
                if peer.family == socket.AF_UNIX and peer.type == socket.SOCK_STREAM:
                    with open(arena["secret"]) as secret:
                        fds = array.array("i", [secret.fileno()])
                        peer.sendmsg([token], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
                else:
                    peer.send(token)
        except OSError:
            pass
