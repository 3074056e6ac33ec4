"""Change mode, owner, times, attributes and flags of files outside, of the hole, and of read-only ones.

Escape: any of these differs afterwards.
Trap: Landlock has no right for metadata, so letting the call continue enforces nothing; newer forms
(fchmodat2, setxattrat, file_setattr) and descriptor forms are easily forgotten.
"""

import array
import ctypes
import fcntl
import os
import struct

from _attack import ARENA, AT_EMPTY_PATH, AT_FDCWD, O_PATH, call, changed, run

TARGETS = {
    "outside": ARENA["outside_file"],
    "read-only": ARENA["readonly_file"],
    "hole": ARENA["hole_file"],
}
NEW = "needs Linux 6.13 or later"
TIMES = struct.pack("qqqq", 1, 0, 1, 0)


def xattr_args(value: ctypes.Array[ctypes.c_char]) -> bytes:
    return struct.pack("QII", ctypes.addressof(value), 1, 0)


def setxattrat(path: str) -> int:
    value = ctypes.create_string_buffer(b"x", 1)
    return call("setxattrat", AT_FDCWD, path, 0, b"user.at", xattr_args(value), 16)


def read_fd(path: str) -> int:
    return os.open(path, os.O_RDONLY)


def set_flags(path: str) -> None:
    fd = read_fd(path)
    flags = array.array("l", [0])
    fcntl.ioctl(fd, 0x80086601, flags, True)  # FS_IOC_GETFLAGS
    flags[0] |= 0x40  # FS_NODUMP_FL
    fcntl.ioctl(fd, 0x40086602, flags)  # FS_IOC_SETFLAGS


def set_xflags(path: str) -> None:
    fd = read_fd(path)
    attr = bytearray(28)
    fcntl.ioctl(fd, 0x801C581F, attr)  # FS_IOC_FSGETXATTR
    attr[0] |= 0x80  # FS_XFLAG_NODUMP
    fcntl.ioctl(fd, 0x401C5820, bytes(attr))  # FS_IOC_FSSETXATTR


def ways(label: str, path: str) -> dict[str, object]:
    relative = os.path.basename(path)

    def inside(act: object) -> object:
        def go() -> object:
            os.chdir(os.path.dirname(path))
            return act(relative)  # type: ignore[operator]

        return go

    acts: dict[str, object] = {
        "chmod": lambda: call("chmod", path, 0o604),
        "fchmodat": lambda: call("fchmodat", AT_FDCWD, path, 0o614),
        "fchmodat relative": inside(lambda n: call("fchmodat", AT_FDCWD, n, 0o624)),
        "fchmodat2": lambda: call("fchmodat2", AT_FDCWD, path, 0o634, 0),
        "fchmodat2 empty": lambda: call("fchmodat2", os.open(path, O_PATH), b"", 0o644, AT_EMPTY_PATH),
        "chmod of /proc/self/fd": lambda: call("chmod", f"/proc/self/fd/{os.open(path, O_PATH)}", 0o654),
        "chown": lambda: call("chown", path, -1, os.getgid()),
        "lchown": lambda: call("lchown", path, -1, os.getgid()),
        "fchownat": lambda: call("fchownat", AT_FDCWD, path, -1, os.getgid(), 0),
        "fchownat empty": lambda: call(
            "fchownat", os.open(path, O_PATH), b"", -1, os.getgid(), AT_EMPTY_PATH
        ),
        "utime": lambda: call("utime", path, struct.pack("qq", 1, 1)),
        "utimes": lambda: call("utimes", path, TIMES),
        "futimesat": lambda: call("futimesat", AT_FDCWD, path, TIMES),
        "utimensat": lambda: call("utimensat", AT_FDCWD, path, TIMES, 0),
        "utimensat empty": lambda: call("utimensat", os.open(path, O_PATH), b"", TIMES, AT_EMPTY_PATH),
        "setxattr": lambda: call("setxattr", path, b"user.a", b"x", 1, 0),
        "lsetxattr": lambda: call("lsetxattr", path, b"user.b", b"x", 1, 0),
        "setxattrat": lambda: setxattrat(path),
        "removexattr": lambda: call("removexattr", path, b"user.a"),
        "lremovexattr": lambda: call("lremovexattr", path, b"user.b"),
        "removexattrat": lambda: call("removexattrat", AT_FDCWD, path, 0, b"user.at"),
        "file_setattr": lambda: call(
            "file_setattr", AT_FDCWD, path, struct.pack("QIIII", 0x40, 0, 0, 0, 0), 24, 0
        ),
        # through a descriptor that was opened for reading
        "fchmod": lambda: call("fchmod", read_fd(path), 0o664),
        "fchown": lambda: call("fchown", read_fd(path), -1, os.getgid()),
        "futimens": lambda: call("utimensat", read_fd(path), None, TIMES, 0),
        "fsetxattr": lambda: call("fsetxattr", read_fd(path), b"user.c", b"x", 1, 0),
        "fremovexattr": lambda: call("fremovexattr", read_fd(path), b"user.c"),
        "FS_IOC_SETFLAGS": lambda: set_flags(path),
        "FS_IOC_FSSETXATTR": lambda: set_xflags(path),
    }
    return {f"{how}, {label}": (lambda a=act: changed(path, a)) for how, act in acts.items()}


ALL = {k: v for label, path in TARGETS.items() for k, v in ways(label, path).items()}
run(
    ALL,
    native={
        **{
            k: NEW
            for k in ALL
            if k.split(",")[0] in ("setxattrat", "removexattrat", "file_setattr", "fchmodat2 empty")
        },
        **{k: "not on every file system" for k in ALL if "FS_IOC" in k},
    },
)
