"""Change what remit decides by and what it remembers: configuration, policy, grants, ledger, spool, hashes,
log, sockets, and its own code.

Escape: any of it is changed, or the ledger and the stores are read.
Trap: the broker's files belong to the same user; replacing a parent directory replaces them as well.
"""

import os

from _attack import ARENA, changed, run

CONFIG, STATE, RUNTIME, CODE = (ARENA[k] for k in ("config", "state", "runtime", "code"))
RULE = 'version = 1\n[role.all.files]\nread = { allow = ["/**"] }\n'


def writes(path: str) -> object:
    def act() -> str:
        return changed(
            path, lambda: os.write(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), b"#\n")
        )

    return act


def replaces(path: str) -> object:
    def act() -> str:
        source = ARENA["project"] + "/mine"
        with open(source, "w") as f:
            f.write(RULE)
        return changed(path, lambda: os.rename(source, path))

    return act


def removes(path: str) -> object:
    return lambda: changed(path, lambda: os.unlink(path))


def looks(path: str) -> object:
    def act() -> str:
        with open(path, "rb") as f:
            return f"{os.path.basename(path)} was read" if f.read(16) else ""

    return act


def swapped(path: str) -> object:
    def act() -> str:
        return changed(path, lambda: os.rename(path, path + ".aside"))

    return act


def linked() -> str:
    link = ARENA["project"] + "/cfg"
    os.symlink(CONFIG + "/policy.d", link)
    target = CONFIG + "/policy.d/z.toml"
    return changed(target, lambda: os.close(os.open(link + "/z.toml", os.O_CREAT | os.O_WRONLY, 0o600)))


FILES = {
    "policy": CONFIG + "/policy.d/arena.toml",
    "ledger": STATE + "/ledger.db",
    "ledger's log": STATE + "/ledger.db-wal",
    "store": STATE + "/store.db",
    "hashes": STATE + "/hashes",
    "daemon's log": STATE + "/remitd.log",
    "code": CODE + "/remit_daemon/wire/rpc.py",
}
THERE = {k: v for k, v in FILES.items() if os.path.lexists(v)}
ways: dict[str, object] = {}
for name, path in THERE.items():
    if os.path.isfile(path):
        ways[f"write {name}"] = writes(path)
for name in ("ledger", "store"):
    if name in THERE:
        ways[f"read {name}"] = looks(THERE[name])
ways |= {
    "new policy": writes(CONFIG + "/policy.d/more.toml"),
    "new policy through a link": linked,
    "replace policy": replaces(CONFIG + "/policy.d/arena.toml"),
    "new spool entry": writes(STATE + "/spool/mine"),
    "remove policy": removes(CONFIG + "/policy.d/arena.toml"),
    "new module": writes(CODE + "/sitecustomize.py"),
    "replace code": replaces(CODE + "/remit_daemon/wire/rpc.py"),
    "remove control.sock": removes(RUNTIME + "/control.sock"),
    "move configuration": swapped(CONFIG),
    "move state": swapped(STATE),
    "move sockets": swapped(RUNTIME),
    "move code": swapped(CODE),
    "move .config": swapped(os.path.dirname(CONFIG)),
    "move .local": swapped(ARENA["home"] + "/.local"),
}
if os.path.realpath(CONFIG) != CONFIG:
    ways.clear()
run(
    ways,
    native={
        "new spool entry": "remit may not have run yet",
        "remove control.sock": "remitd does not run",
        "move sockets": "remitd does not run",
        "move state": "moved with .local",
    },
)
