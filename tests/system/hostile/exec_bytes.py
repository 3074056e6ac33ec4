"""Run bytes that were never permitted: a memfd, the loader given a file, a file known by descriptor only.

Escape: the program run so reads a secret, or a closed program's own bytes are read or run.
Trap: rules on programs are not a boundary; what the program then does must still be mediated.
"""

import ctypes
import glob
import os
import shutil
import subprocess

from _attack import ARENA, AT_EMPTY_PATH, O_PATH, call, leak, output, run

CAT = os.path.realpath(shutil.which("cat") or "/bin/cat")
LOADER = next(iter(glob.glob("/lib64/ld-linux*.so*") + glob.glob("/lib/ld-linux*.so*")), "")
TOOL = ARENA["outside_tool"]  # a script that prints a token


def _run_fd(fd: int, argv: list[bytes]) -> str:
    r, w = os.pipe()
    if os.fork() == 0:
        os.dup2(w, 1)
        vector = (ctypes.c_char_p * (len(argv) + 1))(*argv, None)
        empty = (ctypes.c_char_p * 1)(None)
        try:
            call("execveat", fd, b"", vector, empty, AT_EMPTY_PATH)
        finally:
            os._exit(1)
    os.close(w)
    with os.fdopen(r, "rb") as f:
        return leak(f.read())


def memfd() -> str:
    fd = call("memfd_create", b"x", 0)
    with open(CAT, "rb") as f:
        os.write(fd, f.read())
    return _run_fd(fd, [b"cat", os.fsencode(ARENA["secret"])])


def by_descriptor() -> str:
    return _run_fd(os.open(ARENA["outside_binary"], O_PATH), [b"cat", os.fsencode(ARENA["secret"])])


def by_name() -> str:
    return output([TOOL])


def race() -> str:
    """Threads exec while the string flips between a permitted and a closed program."""
    code = (
        "import ctypes,os,sys,threading\n"
        "good,bad=b'/bin/true',os.fsencode(sys.argv[1])\n"
        "b=ctypes.create_string_buffer(512)\n"
        "def flip():\n"
        "  while 1:\n"
        "    b.value=good; b.value=bad\n"
        "threading.Thread(target=flip,daemon=True).start()\n"
        "l=ctypes.CDLL(None)\n"
        "v=(ctypes.c_char_p*2)(bad,None)\n"
        "e=(ctypes.c_char_p*1)(None)\n"
        "l.execve(b,v,e)\n"
    )
    for _ in range(6):
        got = leak(subprocess.run(["/usr/bin/python3", "-c", code, TOOL], capture_output=True).stdout)
        if got:
            return got
    return ""


def mapped_library() -> str:
    """Preload a closed file: the loader's complaint must not show its bytes, nor may it be mapped."""
    lib = ctypes.CDLL(ARENA["outside_library"])
    return "a closed library was mapped" if lib else ""


run(
    {
        "memfd": memfd,
        "loader runs cat": lambda: output([LOADER, CAT, ARENA["secret"]]),
        "loader runs a closed program": lambda: output(
            [LOADER, ARENA["outside_binary"], ARENA["tool_text"]]
        ),
        "closed program": by_name,
        "closed program by descriptor": by_descriptor,
        "interpreter given a closed script": lambda: output(["/bin/sh", TOOL]),
        "name flips during exec": race,
        "closed library": mapped_library,
    },
    seconds=3,
)
