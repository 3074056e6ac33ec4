"""The supervisor of one session: its loop, its holds, its end.

    RECV -> handler -> Act -> decide -> (hold -> answer) -> journal -> effect -> journal

One thread receives and decides. Two more wait and cost nothing: one for remitd's frames (``upcall``), one for signals
and children (``jobs``). A call that must wait for others (a FIFO, a slow file system, the hash of a big program) gets a
thread for as long as it waits. All of them act under ``lock``. Any error on the way is a refusal; nothing but a
decided ``allow`` ever continues.
"""

from __future__ import annotations

import _thread
import errno
import fcntl
import os
import time

from remit_daemon.kernel import calls
from remit_daemon.supervisor import account
from remit_daemon.supervisor.act import CONTINUE, Act, Again, Beside, Descriptor, Note
from remit_daemon.supervisor.holds import Hold, Holds
from remit_daemon.supervisor.resolve import Pin, Place, real_path
from remit_daemon.wire.journal import JournalFailed
from remit_policy import model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from remit_daemon.supervisor.act import Effect
    from remit_daemon.supervisor.authority import Authority
    from remit_daemon.supervisor.record import Journal
    from remit_daemon.supervisor.subs import Line
    from remit_daemon.supervisor.target import Targets
    from remit_daemon.supervisor.upcall import Upcall
    from remit_policy.limits import Costs
    from remit_policy.model import Decision

    Handler = Callable[[Note], Act | Effect]

_MAX_WORKERS = 128  # calls that wait in threads at once; more are refused with EAGAIN
_MAX_AGAIN = 8  # how often a call is looked at anew before it is refused
_FAREWELL = 1.0  # seconds that the terminal waits for remitd's last words
_CALL = (("calls", 1),)
_REMOVAL = (("calls", 1), ("delete", 1))
_QUIET = ("read", "list")  # recorded at their first use only


class Session:
    """The mediation of one agent's tree."""

    def __init__(
        self,
        id: str,
        authority: Authority,
        journal: Journal,
        targets: Targets,
        upcall: Upcall | Line,
        hello: dict[str, Any],
        hold: float,
    ) -> None:
        self.id = id
        self.authority = authority
        self.journal = journal
        self.targets = targets
        self.lock = _thread.allocate_lock()
        self.listener = -1
        self.finished = False
        self.on_command: Callable[[str], None] = lambda command: None
        self.revision = 0
        self.static_changed: Callable[[], None] = lambda: None
        # How a call is handled that is not so quick; sub-sessions put themselves in between.
        self.dispatch: Callable[[Note, Handler], Effect | None] = self.handle
        # By number: may this call simply go on? Asked without the lock, with (id, thread, the notification's fields).
        self.fast: dict[int, Callable[[int, int, tuple[int, ...]], bool]] = {}
        self._upcall = upcall
        self._hello = hello
        self._hold = hold
        self._handlers: dict[int, tuple[str, Handler]] = {}
        self._by_name: dict[str, Handler] = {}
        self._holds = Holds(journal, targets, upcall, self._refuse)
        self._workers = 0
        self.farewell: str | None = None
        self._told = _thread.allocate_lock()  # held until remitd has said its last words
        self._told.acquire()

    def register(self, handlers: dict[str, Handler], numbers: dict[str, int]) -> None:
        """Serve the named system calls by these handlers."""
        for name, handler in handlers.items():
            if name in numbers:
                self._handlers[numbers[name]] = (name, handler)
                self._by_name[name] = handler

    # The loop.

    def serve(self, listener: int) -> None:
        """Receive and answer until the last process of the session is gone."""
        self.listener = listener
        ioctl, recv, unpack = fcntl.ioctl, calls.RECV, calls.NOTIF.unpack_from
        buffer, zero = bytearray(calls.NOTIF.size), bytes(calls.NOTIF.size)
        resp, send = calls.RESP.pack, calls.SEND
        handlers, lock = self._handlers, self.lock
        continued, fast = calls.CONTINUE, self.fast
        while not self.finished:
            buffer[:] = zero
            try:
                ioctl(listener, recv, buffer)
            except OSError as e:
                # ENOENT: the target died before we took it, or all are gone. EINTR: a signal.
                if e.errno in (errno.ENOENT, errno.EINTR):
                    continue
                raise
            fields = unpack(buffer)
            id, tid, nr = fields[0], fields[1], fields[3]
            quick = fast.get(nr)
            if quick is not None and quick(id, tid, fields):
                try:
                    ioctl(listener, send, resp(id, 0, 0, continued))
                except OSError:
                    pass  # the target died
                continue
            known = handlers.get(nr)
            if known is None:
                calls.send(listener, id, 0, errno.ENOSYS, 0)
                continue
            note = Note(id, tid, known[0], fields[6:])
            with lock:
                effect = self.dispatch(note, known[1])
                if effect is CONTINUE:
                    try:
                        ioctl(listener, send, resp(id, 0, 0, continued))
                    except OSError:
                        pass  # the target died

    def call(self, note: Note) -> Effect | None:
        """Have ``note`` handled as this session's. As handle"""
        return self.handle(note, self._by_name[note.name])

    def handle(self, note: Note, handler: Handler) -> Effect | None:
        """Have ``note`` handled; returns CONTINUE for the caller to answer with, None when it was answered or held."""
        for _ in range(_MAX_AGAIN):
            try:
                result = handler(note)
                if result is CONTINUE:
                    return CONTINUE
                if isinstance(result, Act):
                    self._settle(note, result)
                else:
                    self._give(note, result)
            except Again:
                continue
            except Beside as e:
                self._beside(note, handler, e.work)
            except OSError as e:
                self._refuse(note, e.errno or errno.EACCES)
            except Exception as e:  # any fault of ours is a refusal, and the session goes on
                self._refuse(note, errno.EACCES)
                self._fault(note, e)
            return None
        self._refuse(note, errno.EAGAIN)
        return None

    def _fault(self, note: Note, error: BaseException) -> None:
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        at = f"{os.path.basename(where.tb_frame.f_code.co_filename)}:{where.tb_lineno}" if where else "?"
        try:
            self.journal.act(
                note.name, "deny", "refused", None, "",
                note=f"internal fault: {type(error).__name__}: {error} at {at}",
            )  # fmt: skip
        except JournalFailed:
            pass

    # Answers.

    def _refuse(self, note: Note, code: int) -> None:
        calls.send(self.listener, note.id, 0, code, 0)

    def _give(self, note: Note, effect: Effect) -> str:
        """Make ``effect`` the outcome of the target's call; returns the ledger's word for it."""
        if effect is CONTINUE:
            calls.send(self.listener, note.id, 0, 0, calls.CONTINUE)
            return "passed"
        if isinstance(effect, Descriptor):
            try:
                calls.add_fd_here(self.listener, note.id, note.tid, effect.fd, effect.cloexec)
            except OSError as e:
                if e.errno == errno.ENOENT:
                    return "gone"
                self._refuse(note, e.errno or errno.EACCES)
                return errno.errorcode.get(e.errno or 0, "EACCES")
            finally:
                os.close(effect.fd)
            return "ok"
        assert isinstance(effect, int)
        calls.send(self.listener, note.id, effect, 0, 0)
        return "ok"

    # Deciding.

    def _decide(self, act: Act) -> tuple[Decision, list[str]]:
        """Return the strictest decision over the act's accesses, and which operations ask."""
        authority = self.authority
        worst: Decision | None = model.Decision(act.rule.verdict, act.rule) if act.rule else None
        asking: list[str] = []
        for op, path in act.accesses:
            if op == "exec":
                decision = authority.decide_exec(path, act.argv or [])
            else:
                decision = authority.decide(op, path, act.given)
            if decision.verdict == model.ASK:
                if authority.in_shared(path) and authority.owns(path):
                    decision = model.Decision(model.ALLOW, OWN)
                else:
                    asking.append(op)
            if worst is None or decision.verdict > worst.verdict:
                worst = decision
        assert worst is not None
        if act.floor > worst.verdict:
            worst = model.Decision(act.floor, BELOW)
            asking = [act.accesses[0][0]] if act.floor == model.ASK else []
        return worst, asking

    def _settle(self, note: Note, act: Act) -> None:
        keep = False
        try:
            decision, asking = self._decide(act)
            if decision.verdict == model.ALLOW:
                if self.authority.purse is None or self._paid(act):
                    keep = self._perform(note, act, decision, "allow", 0)
                else:
                    self._keep(note, act, decision, [op for op, _ in act.accesses], short=True)
                    keep = True
            elif decision.verdict == model.ASK and account.refuses(act):
                self._deny(note, act, model.Decision(model.DENY, LINUX))
            elif decision.verdict == model.ASK:
                self._keep(note, act, decision, asking)
                keep = True
            else:
                self._deny(note, act, decision)
        finally:
            if not keep:
                act.close()

    def _costs(self, act: Act) -> Costs:
        """Return what ``act`` counts against the limits in force."""
        purse = self.authority.purse
        if purse is None or act.silent or not act.accesses or act.label in _QUIET:
            return ()
        return purse.relevant(_REMOVAL if act.label == "delete" else _CALL)

    def _paid(self, act: Act) -> bool:
        """Pay for ``act`` from the leases; False when remitd has to be asked."""
        purse = self.authority.purse
        assert purse is not None
        paid = purse.take(self._costs(act))
        self._tell()
        return paid

    def _tell(self) -> None:
        """Send what remitd is to know of the leases."""
        purse = self.authority.purse
        if purse is not None and purse.due:
            for limit, used, returned, want in purse.due:
                frame = {"type": "lease", "limit": limit, "used": used, "returned": returned, "want": want}
                self._upcall.send(frame)
            purse.due.clear()

    def _deny(self, note: Note, act: Act, decision: Decision) -> None:
        self._refuse(note, errno.EACCES)
        self._record(note, act, "deny", "refused", decision)

    def _record(
        self, note: Note, act: Act, verdict: str, outcome: str, decision: Decision, text: str = ""
    ) -> int:
        try:
            process = self.targets.process(note.tid)
        except OSError:
            process = None
        return self.journal.act(
            act.label, verdict, outcome, process, act.path, path2=act.path2,
            rule=decision.source, argv=act.argv, sha256=act.sha256, note=text or act.note,
        )  # fmt: skip

    def _perform(self, note: Note, act: Act, decision: Decision, verdict: str, seq: int) -> bool:
        """Do an allowed act and answer; True when a worker has taken it over (and will close it)."""
        if (
            not seq
            and not act.silent
            and (act.label not in _QUIET or self.journal.first_read(act.label, act.path))
        ):
            seq = self._record(note, act, verdict, "pending", decision)
        if act.slow:
            if self._workers >= _MAX_WORKERS:
                raise OSError(errno.EAGAIN, "too many calls wait")
            try:
                _thread.start_new_thread(self._work, (note, act, seq))
            except RuntimeError:  # as many processes as this user may have: the agent's own, perhaps
                raise OSError(errno.EAGAIN, "no thread can be had") from None
            self._workers += 1  # the lock is ours until it has begun
            return True
        self._finish(note, act, seq)
        return False

    def _finish(self, note: Note, act: Act, seq: int) -> None:
        object = ""
        try:
            effect = act.perform()
        except OSError as e:
            code = e.errno or errno.EACCES
            self._refuse(note, code)
            outcome = errno.errorcode.get(code, str(code))
        except Again:
            if seq:
                self.journal.done(seq, "again")
            raise
        else:
            object = act.object(effect) if seq else ""
            outcome = self._give(note, effect)
        if seq:
            self.journal.done(seq, outcome, object)

    def _work(self, note: Note, act: Act, seq: int) -> None:
        """Perform beside the loop: only the waiting itself is done without the lock."""
        done: Effect = errno.EACCES
        failed = 0
        try:
            done = act.perform()
        except OSError as e:
            failed = e.errno or errno.EACCES
        except Again:
            failed = errno.EAGAIN
        except BaseException:
            failed = errno.EACCES
        with self.lock:
            self._workers -= 1
            object = act.object(done) if seq and not failed else ""
            act.close()
            if failed:
                self._refuse(note, failed)
                outcome = errno.errorcode.get(failed, str(failed))
            else:
                outcome = self._give(note, done)
            if seq:
                self.journal.done(seq, outcome, object)

    def _beside(self, note: Note, handler: Handler, work: Callable[[], None]) -> None:
        """Do ``work`` without the lock, then have the call handled anew."""
        if self._workers >= _MAX_WORKERS:
            self._refuse(note, errno.EAGAIN)
            return

        def run() -> None:
            failed = 0
            try:
                work()
            except OSError as e:
                failed = e.errno or errno.EACCES
            except BaseException:
                failed = errno.EACCES
            with self.lock:
                self._workers -= 1
                if failed:
                    self._refuse(note, failed)
                elif self.handle(note, handler) is CONTINUE:
                    self._give(note, CONTINUE)

        try:
            _thread.start_new_thread(run, ())
        except RuntimeError:
            self._refuse(note, errno.EAGAIN)
            return
        self._workers += 1

    # Holding.

    def _keep(
        self, note: Note, act: Act, decision: Decision, asking: list[str], short: bool = False
    ) -> None:
        self._holds.check_room()
        seq = self._record(note, act, "ask", "held", decision)
        rule = decision.rule
        seconds = self._hold or (rule.hold if rule and rule.hold else self.authority.snapshot.hold)
        costs = self._costs(act)
        self._holds.keep(Hold(seq, note, act, decision, asking, time.monotonic() + seconds, costs, short))

    def expire(self, now: float) -> float | None:
        """End the holds that are over; returns the seconds to the next end, None when nothing is held."""
        return self._holds.expire(now, lambda note: calls.id_valid(self.listener, note.id))

    # What remitd says.

    def hello(self) -> dict[str, Any]:
        """Return the frame that takes the session up again with a new remitd."""
        return {**self._hello, "session": self.id}

    def held_frames(self) -> list[dict[str, Any]]:
        """Return the asks that are still held, to be said again; what is known of the leases goes before."""
        if self.authority.purse is not None:
            self.authority.purse.settle()
            self._tell()
        return self._holds.frames()

    def received(self, frame: dict[str, Any]) -> None:
        """Act on a frame of remitd's. Raises KeyError when it lacks a part."""
        kind = frame["type"]
        if kind == "snapshot":
            self._adopt(frame["snapshot"], frame["revision"])
        elif kind == "answer":
            self._answered(frame)
        elif kind == "lease":
            if self.authority.purse is not None:
                self.authority.purse.granted(frame["limit"], frame["given"], frame["recall"])
                self._tell()
        elif kind == "asked":
            hold = self._holds.get(frame["seq"])
            if hold is not None:
                hold.prompt = frame["prompt"]
        elif kind == "ended":
            if self.farewell is None:
                self.farewell = str(frame["message"])
                self._told.release()
        else:
            self.on_command(kind)

    def _adopt(self, text: str, revision: int) -> None:
        try:
            self.authority.adopt(model.loads(text))
        except Exception as e:
            self.journal.act("reload", "deny", "refused", None, "", note=f"snapshot not understood: {e}")
            return
        self.revision = revision
        self.static_changed()
        self.reconsider()

    def reconsider(self) -> None:
        """Settle the holds that what is in force now decides without an answer."""
        for hold in self._holds.all():
            decision, _ = self._decide(hold.act)
            if decision.verdict == model.ALLOW:
                if hold.short or hold.costs:
                    continue  # remitd answers it as well, and counts it
                self._holds.take(hold)
                self._upcall.send({"type": "cancel", "seq": hold.seq, "why": "gone"})
                self._resume(hold)
            elif (
                decision.verdict == model.DENY or hold.short
            ):  # a new ask of the policy is another question
                self._holds.refuse(hold, "denied", cancel="gone")

    def _answered(self, frame: dict[str, Any]) -> None:
        hold = self._holds.get(frame["seq"])
        if hold is None:
            return
        if frame["verdict"] != "allow":
            self._holds.refuse(hold, "denied")
            return
        self._holds.take(hold)
        self._resume(hold)

    def _resume(self, hold: Hold) -> None:
        """Do what the person allowed, if it is still what they were asked about."""
        note, act = hold.note, hold.act
        keep = False
        try:
            if not calls.id_valid(self.listener, note.id):
                self.journal.done(hold.seq, "gone")
                return
            decision, _ = self._decide(act)
            if decision.verdict == model.DENY:
                self._refuse(note, errno.EACCES)
                self.journal.done(hold.seq, "denied")
            elif not all(_same(thing) for thing in act.held):
                self.journal.done(hold.seq, "moved")
                if self.call(note) is CONTINUE:
                    self._give(note, CONTINUE)
            else:
                self.journal.done(hold.seq, "allowed")
                keep = self._perform(note, act, decision, "allow", 0)
        except Again:
            self._refuse(note, errno.EACCES)
        except OSError as e:
            self._refuse(note, e.errno or errno.EACCES)
        finally:
            if not keep:
                act.close()

    def _give_back(self) -> None:
        """Return what is not used of the leases."""
        if self.authority.purse is not None:
            self.authority.purse.close()
            self._tell()

    def release_all(self) -> None:
        """Refuse what is held and return the leases: the session is over. Call it under the lock."""
        self._give_back()
        self.finished = True
        for hold in self._holds.all():
            self._holds.refuse(hold, "gone")

    def ended(self, status: int) -> None:
        """Record the end and tell remitd. Call it under the lock, once."""
        self.finished = True
        try:
            self.journal.count()
            self.journal.act("end", "allow", "ok", None, "", note=f"status {status}")
        except JournalFailed:
            pass
        self._give_back()
        self._upcall.send({"type": "end", "status": status})
        self._upcall.flush()

    def last_words(self) -> str:
        """Return what remitd has to say of the session that ended, "" when it does not in time. Not under the lock."""
        self._told.acquire(timeout=_FAREWELL)
        return self.farewell or ""


def _same(thing: object) -> bool:
    """Say whether a pinned thing still has the path that was decided on."""
    if isinstance(thing, Pin):
        return real_path(thing.fd) == thing.path
    if isinstance(thing, Place):
        return real_path(thing.parent.fd) == thing.parent.path
    return True


BELOW = model.Rule(
    model.PACK, model.ASK, "create", "/**", source="built-in: a link that stands for a place with rules"
)
OWN = model.Rule(model.PACK, model.ALLOW, "read", "/tmp/**", source="built-in: the session's own")  # noqa: S108
LINUX = model.Rule(
    model.PACK, model.DENY, "write", "/**", source="built-in: Linux itself refuses this account"
)
