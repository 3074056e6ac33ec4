"""What makes, removes and moves names: mkdir, mknod, symlink, link, unlink, rmdir, rename.

Each acts on a *place*: a pinned directory and a last component, which is never followed. Renaming and linking need
both names. A directory that moves takes everything below it to other paths; where the policy would then decide
differently for anything below, the move is refused with EXDEV, as Landlock and file systems do, and programs copy
instead, each file of which is decided by itself.
"""

from __future__ import annotations

import errno
import os
import stat

from remit_daemon.kernel import calls
from remit_daemon.supervisor import claudestate, gitconfig
from remit_daemon.supervisor.act import CONTINUE, Act
from remit_daemon.supervisor.authority import WRITE
from remit_daemon.supervisor.opens import int_of
from remit_policy import model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from remit_daemon.supervisor.act import Effect, Note
    from remit_daemon.supervisor.authority import Authority
    from remit_daemon.supervisor.resolve import Place, Resolver
    from remit_daemon.supervisor.target import Targets


class Names:
    """The handlers of the calls that change names."""

    def __init__(
        self,
        authority: Authority,
        resolver: Resolver,
        targets: Targets,
        forget_paths: Callable[[], None],
    ) -> None:
        self._authority = authority
        self._resolver = resolver
        self._targets = targets
        self._forget_paths = forget_paths

    # Making.

    def mkdir(self, note: Note) -> Act | Effect:
        """mkdir(path, mode)"""
        return self._mkdir(note, calls.AT_FDCWD, note.args[0], note.args[1])

    def mkdirat(self, note: Note) -> Act | Effect:
        """mkdirat(dirfd, path, mode)"""
        return self._mkdir(note, int_of(note.args[0]), note.args[1], note.args[2])

    def _mkdir(self, note: Note, dirfd: int, address: int, mode: int) -> Act | Effect:
        place = self._free_place(note, dirfd, address, directory=True)
        return self._made(
            note, place, "create", lambda: os.mkdir(place.name, mode & 0o7777, dir_fd=place.parent.fd)
        )

    def mknod(self, note: Note) -> Act | Effect:
        """mknod(path, mode, dev)"""
        return self._mknod(note, calls.AT_FDCWD, *note.args[:3])

    def mknodat(self, note: Note) -> Act | Effect:
        """mknodat(dirfd, path, mode, dev)"""
        return self._mknod(note, int_of(note.args[0]), *note.args[1:4])

    def _mknod(self, note: Note, dirfd: int, address: int, mode: int, dev: int) -> Act | Effect:
        kind = stat.S_IFMT(mode)
        if kind in (stat.S_IFCHR, stat.S_IFBLK):
            raise OSError(errno.EPERM, "devices are not for agents")
        place = self._free_place(note, dirfd, address)
        return self._made(
            note,
            place,
            "create",
            lambda: os.mknod(place.name, mode & 0o171777, 0, dir_fd=place.parent.fd),
        )

    def symlink(self, note: Note) -> Act | Effect:
        """symlink(target, path)"""
        return self._symlink(note, note.args[0], calls.AT_FDCWD, note.args[1])

    def symlinkat(self, note: Note) -> Act | Effect:
        """symlinkat(target, dirfd, path)"""
        return self._symlink(note, note.args[0], int_of(note.args[1]), note.args[2])

    def _symlink(self, note: Note, target: int, dirfd: int, address: int) -> Act | Effect:
        text = calls.read_path(note.tid, target)
        if not text:
            raise OSError(errno.ENOENT, "empty link")
        place = self._free_place(note, dirfd, address)
        if not self._authority.neutral(place.path) and not self._authority.static(WRITE, place.path):
            # The link would put another tree in the place of one that rules speak of. It is decided by the strictest
            # of what it would stand for.
            floor = self._authority.engine.below("create", place.path)
        else:
            floor = model.ALLOW
        return self._made(
            note,
            place,
            "symlink",
            lambda: os.symlink(text, place.name, dir_fd=place.parent.fd),
            os.fsdecode(text),
            floor,
        )

    def _free_place(self, note: Note, dirfd: int, address: int, directory: bool = False) -> Place:
        path = calls.read_path(note.tid, address)
        place = self._resolver.place(note.tid, dirfd, path)
        try:
            if place.stat() is not None:
                raise OSError(errno.EEXIST, "exists")
            if place.slash and not directory:
                raise OSError(errno.ENOENT, "a directory's name")
        except BaseException:
            place.close()
            raise
        return place

    def _made(
        self,
        note: Note,
        place: Place,
        label: str,
        make: Callable[[], None],
        text: str = "",
        floor: int = model.ALLOW,
    ) -> Act | Effect:
        authority, real = self._authority, place.path
        if label == "symlink":
            self._forget_paths()
        if authority.static(WRITE, real):
            place.close()
            return Act(label, (("create", real),), lambda: CONTINUE, path2=text)
        umask = self._targets.process(note.tid).umask

        def perform() -> Effect:
            old = os.umask(umask)
            try:
                make()
            finally:
                os.umask(old)
            if authority.in_shared(real):
                authority.own(place.parent.fd, place.name)
            return 0

        return Act(label, (("create", real),), perform, (place,), path2=text, floor=floor)

    # Removing.

    def unlink(self, note: Note) -> Act | Effect:
        """unlink(path)"""
        return self._remove(note, calls.AT_FDCWD, note.args[0], False)

    def rmdir(self, note: Note) -> Act | Effect:
        """rmdir(path)"""
        return self._remove(note, calls.AT_FDCWD, note.args[0], True)

    def unlinkat(self, note: Note) -> Act | Effect:
        """unlinkat(dirfd, path, flags)"""
        flags = note.args[2] & 0xFFFFFFFF
        if flags & ~calls.AT_REMOVEDIR:
            raise OSError(errno.EINVAL, "unknown flags")
        return self._remove(note, int_of(note.args[0]), note.args[1], bool(flags))

    def _remove(self, note: Note, dirfd: int, address: int, directory: bool) -> Act | Effect:
        path = calls.read_path(note.tid, address)
        try:
            place = self._resolver.place(note.tid, dirfd, path)
        except FileExistsError:
            last = path.rstrip(b"/").rpartition(b"/")[2]
            raise OSError(
                (errno.EINVAL if last == b"." else errno.ENOTEMPTY if last else errno.EBUSY)
                if directory
                else errno.EISDIR,
                "no name",
            ) from None
        st = place.stat()
        if st is None:
            place.close()
            raise OSError(errno.ENOENT, "nothing there")
        authority, real = self._authority, place.path
        if stat.S_ISLNK(st.st_mode) or directory:
            self._forget_paths()
        if authority.static(WRITE, real):
            place.close()
            return Act("delete", (("delete", real),), lambda: CONTINUE)
        if place.slash and not directory:
            place.close()
            raise OSError(errno.EISDIR if stat.S_ISDIR(st.st_mode) else errno.ENOTDIR, "a directory's name")

        def perform() -> Effect:
            (os.rmdir if directory else os.unlink)(place.name, dir_fd=place.parent.fd)
            if authority.in_shared(real):
                authority.disown(st)
            return 0

        return Act("delete", (("delete", real),), perform, (place,))

    # Linking and moving.

    def link(self, note: Note) -> Act | Effect:
        """link(old, new)"""
        return self._link(note, calls.AT_FDCWD, note.args[0], calls.AT_FDCWD, note.args[1], 0)

    def linkat(self, note: Note) -> Act | Effect:
        """linkat(olddirfd, old, newdirfd, new, flags)"""
        a = note.args
        return self._link(note, int_of(a[0]), a[1], int_of(a[2]), a[3], a[4] & 0xFFFFFFFF)

    def _link(self, note: Note, olddir: int, old: int, newdir: int, new: int, flags: int) -> Act | Effect:
        if flags & ~(calls.AT_SYMLINK_FOLLOW | calls.AT_EMPTY_PATH):
            raise OSError(errno.EINVAL, "unknown flags")
        tid = note.tid
        source = calls.read_path(tid, old)
        if not source and flags & calls.AT_EMPTY_PATH:
            raise OSError(errno.ENOENT, "needs CAP_DAC_READ_SEARCH")  # what the kernel says to us as well
        pin = self._resolver.pin(tid, olddir, source, not flags & calls.AT_SYMLINK_FOLLOW)
        try:
            place = self._free_place(note, newdir, new)
        except BaseException:
            pin.close()
            raise
        if stat.S_ISDIR(pin.mode):
            pin.close()
            place.close()
            raise OSError(errno.EPERM, "a directory")
        authority = self._authority
        if authority.static(WRITE, pin.path) and authority.static(WRITE, place.path):
            place.close()
            return Act(
                "link", (("create", place.path),), lambda: CONTINUE, (pin,), path=pin.path, path2=place.path,
                pinned=pin.fd,
            )  # fmt: skip
        # Through either name the file can be read, written and, in time, its other name forgotten.
        accesses = (("read", pin.path), ("write", pin.path), ("create", place.path))

        def perform() -> Effect:
            # Following the descriptor's own link names the very inode that was decided on (linkat(2)).
            os.link(
                f"/proc/self/fd/{pin.fd}",
                place.name,
                dst_dir_fd=place.parent.fd,
                follow_symlinks=True,
            )
            if authority.in_shared(place.path):
                authority.own(place.parent.fd, place.name)
            return 0

        return Act(
            "link",
            accesses,
            perform,
            (pin, place),
            path=pin.path,
            path2=place.path,
            pinned=pin.fd,
        )

    def rename(self, note: Note) -> Act | Effect:
        """rename(old, new)"""
        return self._rename(note, calls.AT_FDCWD, note.args[0], calls.AT_FDCWD, note.args[1], 0)

    def renameat(self, note: Note) -> Act | Effect:
        """renameat(olddirfd, old, newdirfd, new)"""
        a = note.args
        return self._rename(note, int_of(a[0]), a[1], int_of(a[2]), a[3], 0)

    def renameat2(self, note: Note) -> Act | Effect:
        """renameat2(olddirfd, old, newdirfd, new, flags)"""
        a = note.args
        return self._rename(note, int_of(a[0]), a[1], int_of(a[2]), a[3], a[4] & 0xFFFFFFFF)

    def _rename(self, note: Note, olddir: int, old: int, newdir: int, new: int, flags: int) -> Act | Effect:
        if flags & ~(calls.RENAME_NOREPLACE | calls.RENAME_EXCHANGE) or flags == 3:
            raise OSError(errno.EINVAL, "unknown flags")  # RENAME_WHITEOUT makes a device
        tid = note.tid
        try:
            source = self._resolver.place(tid, olddir, calls.read_path(tid, old))
        except FileExistsError:
            raise OSError(errno.EBUSY, "no name") from None
        try:
            goal = self._resolver.place(tid, newdir, calls.read_path(tid, new))
        except FileExistsError:
            source.close()
            raise OSError(errno.EBUSY, "no name") from None
        except BaseException:
            source.close()
            raise
        try:
            act = self._moving(note, source, goal, flags)
        except BaseException:
            source.close()
            goal.close()
            raise
        if source not in act.held:
            source.close()
            goal.close()
        return act

    def _moving(self, note: Note, source: Place, goal: Place, flags: int) -> Act:
        authority = self._authority
        from_, to = source.path, goal.path
        st, st2 = source.stat(), goal.stat()
        if st is None:
            raise OSError(errno.ENOENT, "nothing there")
        exchange = bool(flags & calls.RENAME_EXCHANGE)
        if exchange and st2 is None:
            raise OSError(errno.ENOENT, "nothing there")
        if flags & calls.RENAME_NOREPLACE and st2 is not None:
            raise OSError(errno.EEXIST, "exists")
        self._forget_paths()
        if authority.static(WRITE, from_) and authority.static(WRITE, to):
            return Act(
                "rename", (("delete", from_), ("create", to)), lambda: CONTINUE, path=from_, path2=to
            )
        moved = [(st, from_, to)] + ([(st2, to, from_)] if exchange and st2 else [])
        for what, here, there in moved:
            if not stat.S_ISREG(what.st_mode) and not self._same_below(what, here, there):
                raise OSError(errno.EXDEV, "other rules hold below the new name")
        accesses = [("read", from_), ("delete", from_), ("create", to)]
        if st2 is not None:
            accesses += [("write", to), ("delete", to)]
            if exchange:
                accesses += [("read", to), ("create", from_), ("write", from_)]
        if stat.S_ISDIR(st.st_mode):
            accesses = [a for a in accesses if a[0] != "read"]

        rewrite = gitconfig.replaces(source, goal, st, st2) or claudestate.replaces(
            source, goal, st, st2, authority.snapshot.variables.get("PROJECT", "")
        )
        if rewrite is not None and self._rewrite_only(accesses, from_, to):
            return Act("rename", (("create", from_),), rewrite, (source, goal), path=from_, path2=to)

        def perform() -> Effect:
            calls.call("renameat2", source.parent.fd, source.name, goal.parent.fd, goal.name, flags)
            if authority.in_shared(to):
                authority.own(goal.parent.fd, goal.name)
            if authority.in_shared(from_) and not authority.in_shared(to):
                authority.disown(st)
            return 0

        return Act("rename", tuple(accesses), perform, (source, goal), path=from_, path2=to)

    def _same_below(self, st: os.stat_result, here: str, there: str) -> bool:
        """Say whether everything below gets the same decisions at ``there`` as at ``here``."""
        if stat.S_ISLNK(st.st_mode):
            # A link stands for a tree: it may take only names that mean nothing, or keep its own meaning.
            return self._authority.neutral(there) or self._residual(here) == self._residual(there)
        if not stat.S_ISDIR(st.st_mode):
            return True
        return self._residual(here) == self._residual(there)

    def _residual(self, path: str) -> object:
        return self._authority.engine.residual(path)

    def _rewrite_only(self, accesses: list[tuple[str, str]], from_: str, to: str) -> bool:
        """Say whether all that keeps this rename from being allowed is the built-in care for the file it replaces."""
        for op, path in accesses:
            decision = self._authority.decide(op, path)
            rule = decision.rule
            if decision.verdict and not (
                path == to and decision.verdict == model.ASK and rule is not None and rule.protected
            ):
                return False
        return True
