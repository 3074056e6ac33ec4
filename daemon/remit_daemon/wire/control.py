"""The control connection: an enforcement point and remitd, frames of ``wire.frames`` over ``control.sock``.

Every frame is a dict with ``type``, and is written by the process that connected: the kernel says so of each. What each side may say, by phase; anything else ends the connection.
A lost connection loses nothing: the supervisor goes on under its snapshot, connects again, says ``hello`` with
its ``session`` and asks again what is still held. A session is gone when remitd sees that the supervisor's process is.

supervisor, first
    hello    version, agent ("" = remitd names it), argv [str], exe, sha256, cwd, project, home, tty (bool),
             ask ("prompt" | "deny" | "allow-once" | "learn"), policy [files, absolute], hold (milliseconds, 0 = the policy's),
             tag (the session's RLIMIT_RTTIME mark), launch [directories readable and executable for the
             launched program's sake], session ("" = a new one, else the id to take up again), tmpdir ("" or the dir)
gateway, first (for a sub-session with its id and mark; it decides and asks for its session as the supervisor does; a child of that supervisor, told by the kernel)
    gateway  version, session, tag
remitd, in answer
    welcome  session, agent, snapshot (text of remit_policy.model), revision (int), message (for the
             terminal, may be "")
    refused  error (text), code (exit status)

supervisor or gateway, then (a gateway's seq is FIRST_OF_GATEWAY or more, below FIRST_OF_API; it never says ``end``)
    ask      seq (this hold's number), ops [str], path, path2, pid, proc, exe, comm, argv [str], source (of the rule that asks),
             count (how often this very hold was joined), costs [KIND:AMOUNT, of remit_policy.limits], short (bool: the policy
             allows it, and no lease is left to pay with: remitd answers from the limit, or asks the person)
    lease    limit, used, returned (totals over the point's life), want (bool): what it did with its leases of a limit, and
             whether it wants one. Said when it wants more, when called upon, when the connection is new, and at its end
    cancel   seq, why ("gone" | "expired"): the hold ended without its answer; the prompt lives on after "expired"
    poke     the journal has grown
    end      status (exit status of the agent, -signal when killed by one)
    delegated  sub, error ("" = its ticket may be claimed), env ["NAME=value"]: what its first program's environment gets
    over     sub: it has ended, and nothing carries its mark any more
    subs     subs [ids]: those that there are, before any ask when the session is taken up again; others are over
remitd, then (``asked``, ``answer`` and ``lease`` to the one that asked, ``snapshot`` to both, the rest to the supervisor)
    asked    seq, prompt (id, to be shown to whoever waits)
    answer   seq, verdict ("allow" | "deny"), prompt ("" when nobody was asked), message (from the person, may be "")
    lease    seq (FIRST_OF_GATEWAY: to the gateway), limit, given (in all), recall (bool: return at once what is not used)
    snapshot snapshot, revision: in force from its arrival on; pushed before an answer that relies on it
    stop     end the agent's tree
    pause    stop the agent's tree (SIGSTOP); ``resume`` continues it
    resume
    ended    message (what is to be said on the terminal at the end, may be ""): in answer to ``end``, where ``tty`` was said
    delegate sub (a new id), parent (the session's id or a sub-session's), agent (the chain, ``reviewer of claude``), mark, tmpdir,
             ticket (text), snapshot, net_all (bool), revision: make a sub-session of ``parent``; said to the supervisor

All that concerns a sub-session goes over its session's connection: ``ask``, ``lease``, ``cancel``, ``asked``, ``answer``, ``snapshot``, ``stop``, ``pause`` and
``resume`` then have its id in ``sub``. It begins when a process of ``parent`` connects a Unix socket to the abstract name CLAIM + ticket, which
the supervisor serves itself. Its connections to agent.sock have an end of their own with the abstract name SUB_END, its id and more.
"""

from __future__ import annotations

VERSION = 2

# What one side of a session asks never meets what another asks: its supervisor below all of these, then its gateway, then
# remitd, on behalf of a program that came to agent.sock or the bus.
FIRST_OF_GATEWAY = 1 << 40
FIRST_OF_API = 1 << 41
FIRST_AHEAD = 1 << 42  # of those remitd's: asked before the act, whose own ask is still to come

SUPERVISOR_FIRST = ("hello",)
GATEWAY_FIRST = ("gateway",)
GATEWAY_THEN = ("ask", "cancel", "poke", "lease")
SUPERVISOR_THEN = ("ask", "cancel", "poke", "lease", "end", "delegated", "over", "subs")
DAEMON_FIRST = ("welcome", "refused")
DAEMON_THEN = ("asked", "answer", "lease", "snapshot", "stop", "pause", "resume", "ended", "delegate")

CLAIM = b"\0remit-claim-"
SUB_END = b"\0remit-sub-"


def of_gateway(seq: int) -> bool:
    """Say whether the ask ``seq`` is a gateway's."""
    return FIRST_OF_GATEWAY <= seq < FIRST_OF_API


def of_api(seq: int) -> bool:
    """Say whether the ask ``seq`` is remitd's own."""
    return seq >= FIRST_OF_API


def is_ahead(seq: int) -> bool:
    """Say whether the ask ``seq`` comes before its act: an answer to it is not used up by it."""
    return seq >= FIRST_AHEAD
