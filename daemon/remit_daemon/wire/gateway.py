"""The link between a session's supervisor and its gateway: frames of ``wire.frames`` over a socketpair.

The supervisor starts the gateway at the session's first need of it and hands it listening sockets that it bound before the
agent began, so that their ports are known from the start. The supervisor makes every connect itself, on a
duplicate of the agent's own socket, to one of these; it says which connection is whose by the port that the agent's end
has, and the gateway closes whatever was not announced. Either side ends when the link does.

supervisor, first (the descriptors of ``listeners`` are named on the gateway's command line, in that order)
    hello     version, session, agent, tag, snapshot, revision, spool (directory), journal (path, new), control (path of
              control.sock), private (directory of this session's gateway), nameservers [address or address:port],
              env {variable: value of a secret}, session_bus, system_bus (addresses, "" = none), hold (ms, 0 = the
              policy's), home, listeners [LISTENERS]
gateway, in answer
    ready     placeholders {variable: text}, and the ports again

supervisor, then
    dial      id, ip, port, blocking (bool), pid, proc, exe, comm, argv   may, and can, this be reached?
    bound     id, port, v6 (bool)                     the agent's socket has this port and is connected to ``tcp``/``tcp6``
    proxy     port, v6, pid, proc, exe, comm          the agent's socket with this port is connected to ``proxy``
    resolver  port, tcp (bool), pid, proc, exe, comm  the agent's socket with this port is connected to ``dns_udp`` or ``dns_tcp``
    dns       id, query (bytes), pid, proc, exe, comm may this query go to the machine's own resolver?
    bus       id, which ("session" | "system"), pid, proc, exe, comm
    gone      id                                      nobody waits for it any more
gateway, then
    dialed    id, errno (0: connect the socket to ``tcp`` or ``tcp6`` now), why
    dnsed     id, verdict ("allow" | "deny")
    bused     id, errno, path (of a Unix socket to connect to, once), why

``dial`` of a blocking socket is answered when the upstream is connected, refused, or a person has decided; of a non-blocking one within
``PATIENCE_MS``: the connection then goes on and what comes later resets it.
"""

from __future__ import annotations

VERSION = 1
LISTENERS = ("tcp", "tcp6", "proxy", "dns_udp", "dns_tcp")  # ``tcp6`` is missing where there is no IPv6
NAMESERVER = "127.0.0.99"  # what the agent's resolv.conf names; the stub is there at a high port
PATIENCE_MS = 250

GATEWAY_FIRST = ("ready",)
GATEWAY_THEN = ("dialed", "dnsed", "bused")
SUPERVISOR_THEN = ("dial", "bound", "proxy", "resolver", "dns", "bus", "gone")
