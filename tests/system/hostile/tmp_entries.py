"""Touch what somebody else put into /tmp, and follow a link that he planted there.

Escape: a token is read, or an entry of his changes.
Trap: /tmp is shared; a grant for all of it is a grant for everybody's.
"""

import os

from _attack import ARENA, changed, read, run

FILE, LINK, DIR = ARENA["tmp_file"], ARENA["tmp_link"], ARENA["tmp_dir"]


def through(target: str) -> object:
    def act() -> str:
        path = ARENA["project"] + "/totmp"
        if os.path.lexists(path):
            os.unlink(path)
        os.symlink(target, path)
        return read(path)

    return act


run(
    {
        "read": lambda: read(FILE),
        "read below": lambda: read(DIR + "/inner"),
        "planted link": lambda: read(LINK),
        "own link to it": through(FILE),
        "own link to the planted link": through(LINK),
        "write": lambda: changed(FILE, lambda: os.write(os.open(FILE, os.O_WRONLY), b"x")),
        "write through the planted link": lambda: changed(
            ARENA["secret"], lambda: os.write(os.open(LINK, os.O_WRONLY), b"x")
        ),
        "chmod": lambda: changed(FILE, lambda: os.chmod(FILE, 0o666)),
        "create below": lambda: changed(DIR + "/n", lambda: os.open(DIR + "/n", os.O_CREAT | os.O_WRONLY)),
        "rename": lambda: changed(FILE, lambda: os.rename(FILE, FILE + ".moved")),
        "unlink": lambda: changed(LINK, lambda: os.unlink(LINK)),
        "unlink below": lambda: changed(DIR + "/inner", lambda: os.unlink(DIR + "/inner")),
    }
)
