"""Leave something behind that another program will run later, outside the session.

Escape: the file is there, or has the line, afterwards.
Trap: a session ends, its files do not; shells, desktops, schedulers, git and editors run what they find.
"""

import os

from _attack import ARENA, changed, run

HOME, PROJECT = ARENA["home"], ARENA["project"]


def plants(path: str, text: bytes = b"# planted\n") -> object:
    def act() -> str:
        def write() -> None:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o700)
            os.write(fd, text)

        return changed(path, write)

    return act


def git_config_by_rename() -> str:
    source = PROJECT + "/gc"
    with open(source, "w") as f:
        f.write("[core]\n\tfsmonitor = touch /nowhere\n")
    return changed(PROJECT + "/.git/config", lambda: os.rename(source, PROJECT + "/.git/config"))


def as_directory(path: str) -> object:
    """The directory that holds such files is replaced by one of our own."""

    def act() -> str:
        made = PROJECT + "/madedir"
        os.makedirs(made, exist_ok=True)
        return changed(path, lambda: os.rename(made, path))

    return act


ways = {
    name: plants(path)
    for name, path in {
        "shell start-up": HOME + "/.bashrc",
        "profile": HOME + "/.profile",
        "zsh environment": HOME + "/.zshenv",
        "autostart": HOME + "/.config/autostart/x.desktop",
        "systemd unit": HOME + "/.config/systemd/user/x.service",
        "D-Bus service": HOME + "/.local/share/dbus-1/services/x.service",
        "program in ~/.local/bin": HOME + "/.local/bin/git",
        "ssh authorized_keys": HOME + "/.ssh/authorized_keys",
        "ssh config": HOME + "/.ssh/config",
        "git configuration of the user": HOME + "/.gitconfig",
        "user site-packages": HOME + "/.local/lib/usercustomize.py",
    }.items()
}
ways |= {
    "crontab": plants(f"/var/spool/cron/crontabs/{os.getuid()}"),
    "at job": plants("/var/spool/cron/atjobs/a"),
    "git configuration, fsmonitor": plants(
        PROJECT + "/.git/config", b"[core]\n\tfsmonitor = touch /nowhere\n"
    ),
    "git configuration by rename": git_config_by_rename,
    "git configuration of a worktree": plants(
        PROJECT + "/.git/config.worktree", b"[core]\n\tsshCommand = touch /nowhere\n"
    ),
    "git hook": plants(ARENA["hooks"] + "/post-applypatch"),
    "autostart directory replaced": as_directory(HOME + "/.config/autostart-scripts"),
}
run(ways, native={"crontab": "the spool is root's", "at job": "the spool is root's"})
