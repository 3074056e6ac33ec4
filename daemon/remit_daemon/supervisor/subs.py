"""The sub-sessions of one session: who is in which, and their beginnings and ends.

    remitd: delegate -> made beside the loop -> delegated (ticket is good) -> a process of the parent claims it -> over

A sub-session begins when a process of the session that delegated connects a Unix socket to the abstract name CLAIM + ticket. That call
waits in the kernel while we put the mark on the caller's process, so who it is needs no word of its own, and all of its threads and
what it starts from then on are the sub-session's. What it started before stays what it was, and so do descriptors that it holds. A
process of another party cannot claim: it could become more than it is. The sub-session ends with that first process; all that
carries its mark is killed. While there has been no sub-session none of this is on the way of a call.

To remitd this is the session's one connection: frames that concern a sub-session name it in ``sub``.
"""

from __future__ import annotations

import _thread
import errno
import os
import select
import time

from remit_daemon.kernel import calls
from remit_daemon.supervisor import jobs
from remit_daemon.wire.journal import JournalFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource
    import signal
    from collections.abc import Callable
    from typing import Any

    from remit_daemon.supervisor.act import Effect, Note
    from remit_daemon.supervisor.gateway import Gateway
    from remit_daemon.supervisor.session import Handler, Session
    from remit_daemon.supervisor.upcall import Upcall
else:
    import _signal as signal
    import resource

_RTTIME = resource.RLIMIT_RTTIME
_CLAIM_WITHIN = 30.0  # seconds until a ticket that nobody claimed is void
_PRETEND = "a sub-session of it cannot be narrower"


class Line:
    """A sub-session's part of the connection to remitd."""

    def __init__(self, upcall: Upcall, sub: str) -> None:
        self._upcall = upcall
        self._sub = sub

    def send(self, frame: dict[str, Any]) -> None:
        """As Upcall.send"""
        self._upcall.send({**frame, "sub": self._sub})

    def flush(self) -> None:
        """Nothing waits here."""


class Sub:
    """One sub-session as it was made; ``env`` is what its first program's environment gets."""

    __slots__ = ("ending", "env", "gateway", "mark", "parent", "pidfd", "session", "ticket", "until")

    def __init__(self, session: Session, gateway: Gateway, env: dict[str, str]) -> None:
        self.session = session
        self.gateway = gateway
        self.env = env
        self.parent = self.ticket = ""
        self.mark = 0
        self.until = 0.0
        self.pidfd = -1
        self.ending = False


class Subs:
    """See the module's text. ``make`` makes the parts of the sub-session that a ``delegate`` frame describes, within another
    session, and raises what keeps it from that. Everything else here is called, and changes, under the session's lock."""

    def __init__(
        self, root: Session, tag: int, upcall: Upcall, make: Callable[[dict[str, Any], Session], Sub]
    ) -> None:
        self.lock = root.lock
        self._root = root
        self._tag = tag
        self._upcall = upcall
        self._make = make
        self._subs: dict[str, Sub] = {}
        self._by_mark: dict[int, Sub] = {}
        self._seen = False  # there has been one

    # -- whose call it is --------------------------------------------------------------------------

    def party(self, tid: int) -> Session | None:
        """Return the session that thread ``tid`` is in by its mark; None when it is in none that lives: then nothing is allowed."""
        try:
            own = resource.prlimit(tid, _RTTIME)[0]
        except (OSError, ValueError):
            return None
        if own == self._tag:
            return self._root
        sub = self._by_mark.get(own)
        return sub.session if sub is not None else None

    def dispatch(self, note: Note, handler: Handler) -> Effect | None:
        """Have the call handled by the session that it belongs to. As Session.handle"""
        party = self.party(note.tid)
        if party is self._root:
            return party.handle(note, handler)
        if party is None:
            calls.send(self._root.listener, note.id, 0, errno.EACCES, 0)
            return None
        return party.call(note)

    def _watch_marks(self) -> None:
        """From now on look at marks: the first sub-session is about to begin."""
        if self._seen:
            return
        self._seen = True
        self._root.dispatch = self.dispatch
        for number, quick in list(self._root.fast.items()):
            self._root.fast[number] = self._guarded(quick)

    def _guarded(
        self, quick: Callable[[int, int, tuple[int, ...]], bool]
    ) -> Callable[[int, int, tuple[int, ...]], bool]:
        return lambda id, tid, fields: self.party(tid) is self._root and quick(id, tid, fields)

    # -- beginnings --------------------------------------------------------------------------------

    def _session(self, ident: str) -> Session | None:
        if ident == self._root.id:
            return self._root
        sub = self._subs.get(ident)
        return sub.session if sub is not None and not sub.ending else None

    def _delegate(self, frame: dict[str, Any]) -> None:
        try:
            _thread.start_new_thread(self._prepare, (frame,))
        except RuntimeError:
            self._say_delegated(frame["sub"], "no thread can be had", {})

    def _prepare(self, frame: dict[str, Any]) -> None:
        """Make a sub-session, beside the loop: its gateway may have to start."""
        with self.lock:
            above = self._session(frame["parent"])
        made, why = None, ""
        try:
            if above is None:
                raise OSError(errno.ESRCH, "the session that delegates has ended")
            made = self._make(frame, above)
        except Exception as e:
            why = getattr(e, "strerror", None) or str(e) or type(e).__name__
        with self.lock:
            if made is not None:
                if self._root.finished or self._session(frame["parent"]) is not above:
                    why = "the session that delegates has ended"
                else:
                    made.parent, made.ticket, made.mark = frame["parent"], frame["ticket"], frame["mark"]
                    made.until = time.monotonic() + _CLAIM_WITHIN
                    self._watch_marks()
                    self._subs[made.session.id] = made
            self._say_delegated(frame["sub"], why, made.env if made is not None else {})
            if made is not None and why:
                self._finish(made)
        if made is not None and why:
            self._leave(made)

    def _say_delegated(self, sub: str, error: str, env: dict[str, str]) -> None:
        self._upcall.send(
            {"type": "delegated", "sub": sub, "error": error, "env": [f"{k}={v}" for k, v in env.items()]}
        )

    def claimer(self, party: Session) -> Callable[[Note, bytes], Effect]:
        """Return what serves claims of the processes of ``party``."""
        return lambda note, ticket: self._claim(party, note, ticket)

    def _claim(self, party: Session, note: Note, ticket: bytes) -> Effect:
        """Put the mark on the process of ``note``'s thread, which waits. Raises OSError (ECONNREFUSED, ESRCH, EAGAIN)."""
        text = os.fsdecode(ticket)
        sub = next((s for s in self._subs.values() if s.ticket and s.ticket == text), None)
        if sub is None or sub.ending or sub.parent != party.id:
            raise OSError(errno.ECONNREFUSED, "no such ticket")
        tgid = party.targets.process(note.tid).tgid
        pidfd = calls.pidfd_open(tgid)
        try:
            soft, hard = resource.prlimit(note.tid, _RTTIME)
            if hard != self._tag or not calls.id_valid(self._root.listener, note.id):
                raise OSError(errno.ESRCH, "the process is gone")
            if soft not in (self._tag, *self._by_mark) or sub.mark >= hard or sub.mark in self._by_mark:
                raise OSError(errno.ECONNREFUSED, "no mark can be given")
            sub.pidfd = pidfd
            _thread.start_new_thread(self._watch, (sub,))
        except RuntimeError:
            os.close(pidfd)
            raise OSError(errno.EAGAIN, "no thread can be had") from None
        except BaseException:
            os.close(pidfd)
            raise
        sub.ticket = ""
        self._by_mark[sub.mark] = sub
        resource.prlimit(note.tid, _RTTIME, (sub.mark, hard))
        return 0

    # -- ends --------------------------------------------------------------------------------------

    def _watch(self, sub: Sub) -> None:
        """Wait for the end of the sub-session's first process, in a thread of its own."""
        poll = select.poll()
        poll.register(sub.pidfd, select.POLLIN)
        poll.poll()
        self.end(sub)

    def _below(self, ident: str) -> list[Sub]:
        found = [s for s in self._subs.values() if s.parent == ident]
        return found + [b for s in found for b in self._below(s.session.id)]

    def end(self, sub: Sub) -> None:
        """End ``sub``, what carries its mark, and what it delegated to. Called without the lock; waits."""
        with self.lock:
            if sub.ending:
                return
            ending = [s for s in (sub, *self._below(sub.session.id)) if not s.ending]
            for one in ending:
                one.ending, one.ticket = True, ""
        for one in ending:
            jobs.end_marked(one.mark)
            with self.lock:
                # Only now: until they were killed its processes were mediated like before.
                self._by_mark.pop(one.mark, None)
                self._finish(one)
                self._upcall.send({"type": "over", "sub": one.session.id})
            self._leave(one)

    def _finish(self, sub: Sub) -> None:
        self._subs.pop(sub.session.id, None)
        sub.session.release_all()
        try:
            sub.session.journal.count()
            sub.session.journal.act("end", "allow", "ok", None, "")
        except JournalFailed:
            pass
        sub.session.journal.close()
        sub.session.targets.forget()
        sub.session.authority.close()

    def _leave(self, sub: Sub) -> None:
        # Its directory goes with the session's: until then the agent may put another in its place.
        sub.gateway.close()
        sub.gateway.listeners.close()
        if sub.pidfd >= 0:
            os.close(sub.pidfd)

    def close(self) -> None:
        """Record the end of all: the whole tree is gone."""
        for sub in list(self._subs.values()):
            sub.ending = True
            self._finish(sub)
            sub.gateway.close()

    # -- what the connection needs -----------------------------------------------------------------

    def hello(self) -> dict[str, Any]:
        """As Session.hello"""
        return self._root.hello()

    def held_frames(self) -> list[dict[str, Any]]:
        """Return what a new remitd is told after its welcome: which sub-sessions there are, and what all hold."""
        frames = self._root.held_frames()
        if not self._seen:
            return frames
        for ident, sub in self._subs.items():
            frames += [{**frame, "sub": ident} for frame in sub.session.held_frames()]
        return [{"type": "subs", "subs": list(self._subs)}, *frames]

    def expire(self, now: float) -> float | None:
        """As Session.expire, for all of them; tickets that nobody claimed are ended as well"""
        dues = [self._root.expire(now)]
        for sub in list(self._subs.values()):
            dues.append(sub.session.expire(now))
            if sub.ticket:
                dues.append(max(0.0, sub.until - now))
                if sub.until <= now:
                    self._end_beside(sub)
        return min((d for d in dues if d is not None), default=None)

    def received(self, frame: dict[str, Any]) -> None:
        """As Session.received, to the sub-session that the frame names"""
        kind = frame["type"]
        if kind == "delegate":
            self._delegate(frame)
            return
        ident = frame.get("sub", "")
        if not ident:
            self._root.received(frame)
            if kind == "snapshot":
                for sub in self._subs.values():
                    sub.session.reconsider()
            return
        found = self._subs.get(ident)
        if found is None:
            return  # it crossed with its end
        if kind == "stop":
            self._end_beside(found)
        elif kind in ("pause", "resume"):
            for one in (found, *self._below(ident)):
                jobs.signal_marked(one.mark, signal.SIGSTOP if kind == "pause" else signal.SIGCONT)
        else:
            found.session.received(frame)

    def _end_beside(self, sub: Sub) -> None:
        try:
            _thread.start_new_thread(self.end, (sub,))
        except RuntimeError:
            pass  # tried again at the next look, or by remitd, which kills by the mark


def check(above_reads: str, filtered_net: bool, net_all: bool) -> None:
    """Raise OSError where the first session's filter lets pass, unseen, what a sub-session's rules are about.

    above_reads: how that session's reads are enforced. filtered_net: whether its sockets are mediated. net_all: whether the sub-session's
    network is to be unmediated.
    """
    if above_reads == "fixed":
        raise OSError(errno.EPERM, f'this session\'s reads are fixed (reads = "fixed"): {_PRETEND}')
    if not filtered_net and not net_all:
        raise OSError(errno.EPERM, f"this session's network is unmediated (net.all): {_PRETEND}")
