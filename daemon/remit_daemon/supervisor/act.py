"""One mediated act: what it needs to be allowed, and how it is then done.

A handler turns a notification into an ``Act``, or answers at once with an effect. An effect is what the target's call
does: ``CONTINUE`` (the kernel performs it, on the target's string), a value to return, or a descriptor to give. A
refusal is an OSError.
"""

from __future__ import annotations

from remit_daemon.kernel.objects import object_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from remit_policy.model import Rule

    class Closable(Protocol):
        """What an act holds until it is over."""

        def close(self) -> None: ...


class Descriptor:
    """The effect of giving the target a duplicate of ``fd``, which is ours and closed afterwards."""

    __slots__ = ("cloexec", "fd")

    def __init__(self, fd: int, cloexec: bool) -> None:
        self.fd = fd
        self.cloexec = cloexec


class Continue:
    """The effect of letting the kernel go on."""

    __slots__ = ()


CONTINUE = Continue()

if TYPE_CHECKING:
    Effect = Continue | Descriptor | int


class Note:
    """A notification: ``id`` to answer it by, the thread, the system call and its six arguments."""

    __slots__ = ("args", "id", "name", "tid")

    def __init__(self, id: int, tid: int, name: str, args: tuple[int, ...]) -> None:
        self.id = id
        self.tid = tid
        self.name = name
        self.args = args


class Act:
    """What one call would do.

    ``accesses`` are the (operation, real path) pairs that must all be allowed; ``label`` is the ledger's word for it.
    ``perform`` does it and returns the effect, or raises OSError. ``held`` things are closed when it is over.
    ``slow``: performing may wait for others, so it is done beside the loop, on nothing that the loop changes. ``floor`` is the
    least verdict whatever the accesses get. ``given`` is the path as the target wrote it, for denies. ``note`` goes to the ledger.
    ``rule`` decides where there is no access to decide. ``silent``: somebody else records it (the gateway), or nobody needs to.
    ``pinned`` is a descriptor of the file whose content or name it changes, -1 when that is what it gives the target, None when
    there is none: the record then names the very file (``kernel.objects``), whatever name it gets later.
    """

    __slots__ = (
        "accesses", "argv", "floor", "given", "held", "label", "note", "path", "path2", "perform", "pinned", "rule",
        "sha256", "silent", "slow",
    )  # fmt: skip

    def __init__(
        self,
        label: str,
        accesses: tuple[tuple[str, str], ...],
        perform: Callable[[], Effect],
        held: tuple[Closable, ...] = (),
        *,
        path: str = "",
        path2: str = "",
        given: str | None = None,
        slow: bool = False,
        argv: list[str] | None = None,
        sha256: str = "",
        floor: int = 0,
        note: str = "",
        rule: Rule | None = None,
        silent: bool = False,
        pinned: int | None = None,
    ) -> None:
        self.label = label
        self.accesses = accesses
        self.perform = perform
        self.held = held
        self.path = path or accesses[0][1]
        self.path2 = path2
        self.given = given
        self.slow = slow
        self.argv = argv
        self.sha256 = sha256
        self.floor = floor
        self.note = note
        self.rule = rule
        self.silent = silent
        self.pinned = pinned

    def object(self, effect: Effect) -> str:
        """Return the object name of the file that was changed, once ``effect`` is had; "" when none was."""
        if self.pinned is None or not (isinstance(effect, Descriptor) or self.pinned >= 0):
            return ""
        return object_of(effect.fd if isinstance(effect, Descriptor) else self.pinned)

    def close(self) -> None:
        """Let go of what was pinned."""
        for thing in self.held:
            thing.close()


class Again(Exception):
    """What was decided on is no longer what is there; look at the call anew."""


class Beside(Exception):
    """The call cannot be decided without waiting work (hashing a big file): ``work`` is to be done beside the loop,
    and the call then looked at anew."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__("beside")
        self.work = work
