# What try.sh, test.sh and bench.sh share. Sourced, never run; expects `set -euo pipefail` and $tree.
# shellcheck shell=bash

ACCOUNT=remit-test # the ordinary account that root's runs are handed to

say() { printf 'remit: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 2
}

# can_build_venv PYTHON: 3.11 or newer, and able to make a virtual environment with pip in it.
can_build_venv() {
    "$@" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# pick_python [RUN_AS...]: print an interpreter that the ordinary user can execute. One below /root passes for
# root and fails for everybody else, so it is tried as the user who will run it, through RUN_AS.
pick_python() {
    local name path
    for name in "${REMIT_PYTHON:-}" python3 /usr/local/bin/python3 /usr/bin/python3 \
        python3.14 python3.13 python3.12 python3.11 /usr/bin/python3.1{1,2,3,4}; do
        [[ -n $name ]] && path=$(command -v "$name") || continue
        if can_build_venv "$@" "$path"; then
            # A shim (pyenv) decides anew in each directory; the venv is to be bound to what it stands for.
            "$@" "$path" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

NO_PYTHON="needs Python 3.11 or newer that can make a virtual environment (Debian: apt install python3 python3-venv), or REMIT_PYTHON=/path/to/python3"

# fingerprint PATH...: one digest over the named files and trees of the clone.
fingerprint() {
    (cd "$tree" && find "$@" -type f ! -path '*/__pycache__/*' -print0 | sort -z | xargs -0 sha256sum) |
        sha256sum | cut -d' ' -f1
}

# make_venv DIR STAMP PIP_ARGS...: a virtual environment with PIP_ARGS installed, unless STAMP says it is done.
make_venv() {
    local dir=$1 stamp=$2 python log
    shift 2
    [[ -x $dir/bin/python && $(cat "$dir/.remit-stamp" 2>/dev/null) == "$stamp" ]] && return
    log=$(mktemp)
    if ! [[ -x $dir/bin/python ]] || ! can_build_venv "$dir/bin/python"; then
        python=$(pick_python) || die "$NO_PYTHON"
        say "setting up $dir with $python"
        rm -rf "$dir"
        "$python" -m venv "$dir" >"$log" 2>&1 || {
            cat "$log" >&2
            die "$python could not make a virtual environment in $dir"
        }
    fi
    "$dir/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        die "pip could not install remit (the last lines of its output are above)"
    }
    rm -f "$log"
    printf '%s\n' "$stamp" >"$dir/.remit-stamp"
}

# venv_dir NAME: where a virtual environment goes; in the clone, or in the cache when the clone is read-only.
venv_dir() {
    if [[ -w $tree ]]; then
        printf '%s\n' "$tree/.venv$1"
    else
        printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/remit-venv$1"
    fi
}

# install_remit: set $bin to a directory with `remit` and `remitd` of this very clone.
install_remit() {
    local venv
    venv=$(venv_dir "")
    make_venv "$venv" "$(fingerprint policy daemon tui pyproject.toml README.md)" "$tree"
    bin=$venv/bin
}

# have_account: (root only) make sure that there is an ordinary account to hand the run to.
have_account() {
    id -u "$ACCOUNT" >/dev/null 2>&1 && return
    say "creating the system account $ACCOUNT"
    useradd --system --user-group --create-home --home-dir "/var/lib/$ACCOUNT" --shell /bin/bash "$ACCOUNT" ||
        die "could not create the account $ACCOUNT; run this as an ordinary user"
}

# to_account SCRIPT ARGS...: (root only) run this clone's SCRIPT as an ordinary user and exit with its status.
# A clone below /root is unreadable to others, and tests write into theirs: the account gets its own copy.
to_account() {
    local script=$1 home src keep=() name status=0
    shift
    have_account
    home=$(getent passwd "$ACCOUNT" | cut -d: -f6)
    src=$home/src
    exec 9>"/run/$ACCOUNT.lock"
    flock -n 9 || {
        say "waiting for another run of $ACCOUNT to end"
        flock 9
    }
    cd "$home"
    # Its virtual environments stay, so that the next run is quick; everything else becomes this tree.
    runuser -u "$ACCOUNT" -- bash -c 'mkdir -p "$1" && find "$1" -mindepth 1 -maxdepth 1 ! -name ".venv*" -exec rm -rf {} +' \
        bash "$src"
    tar -C "$tree" --exclude='./.venv*' --exclude='./.git' --exclude=__pycache__ --exclude='./.*_cache' -cf - . |
        runuser -u "$ACCOUNT" -- tar -C "$src" --no-same-owner -xf -
    # pip's and proxies' settings are the machine's, not root's own; nothing else of root's environment is passed on.
    for name in TERM LANG CI REMIT_PYTHON http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY \
        SSL_CERT_FILE REQUESTS_CA_BUNDLE NODE_EXTRA_CA_CERTS "${!PIP_@}" "${!REMIT_AGENTS@}" "${!npm_config_@}"; do
        [[ -n ${!name:-} ]] && keep+=("$name=${!name}")
    done
    runuser -u "$ACCOUNT" -- env -i HOME="$home" USER="$ACCOUNT" LOGNAME="$ACCOUNT" SHELL=/bin/bash \
        PATH=/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin "REMIT_FROM_ROOT=$ACCOUNT" "${keep[@]}" \
        bash "$src/packaging/$script" "$@" 9>&- || status=$?
    exit "$status"
}
