#!/usr/bin/env bash
# packaging/test.sh [PYTEST_ARGS...]: every check of this repository, in one go.
#
# Sets up what it needs and runs ruff, mypy, the import contracts and pytest. Started by root, it installs missing
# system packages (apt-get) and hands the rest to an ordinary account: what remit enforces is enforced on ordinary
# users. With CI=true a check that could not run is a failure. The last line is pytest's summary when all is well.
set -euo pipefail
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=packaging/common.sh
. "$tree/packaging/common.sh"

LIMIT=780 # seconds for pytest: all is to be over within 15 minutes, set-up included

# command → Debian package that brings it
needed=(git:git gcc:gcc make:make tmux:tmux dbus-daemon:dbus-daemon node:nodejs npm:npm xdg-dbus-proxy:xdg-dbus-proxy)

# packages_for_root: install what is missing, and say what could not be.
packages_for_root() {
    local pair missing=() package updated=""
    for pair in "${needed[@]}"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    # A compiler without the C library's headers compiles nothing.
    [[ -e /usr/include/stdio.h ]] || missing+=(libc6-dev)
    pick_python runuser -u "$ACCOUNT" -- >/dev/null || missing+=(python3 python3-venv)
    ((${#missing[@]})) || return 0
    if ! command -v apt-get >/dev/null; then
        say "not installed, and there is no apt-get here: ${missing[*]}"
        return 0
    fi
    say "installing ${missing[*]}"
    for package in "${missing[@]}"; do
        if [[ -z $updated ]]; then
            apt-get update -qq >/dev/null 2>&1 || say "apt-get update failed; trying with the lists that are here"
            updated=yes
        fi
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" \
            >/dev/null 2>&1 </dev/null || say "could not install $package"
    done
}

if ((EUID == 0)); then
    have_account
    (cd / && packages_for_root)
    to_account test.sh "$@" </dev/null
fi

cd "$tree"
for pair in "${needed[@]}"; do
    command -v "${pair%%:*}" >/dev/null || say "${pair%%:*} is not installed: checks that need it cannot run"
done
venv=$(venv_dir -dev)
make_venv "$venv" "$(fingerprint pyproject.toml)$tree" --editable "$tree[dev]"
export PATH="$venv/bin:$PATH"
unset XDG_RUNTIME_DIR DBUS_SESSION_BUS_ADDRESS REMIT_SESSION # nothing of this person's session is part of a test
export PYTHONDONTWRITEBYTECODE=1

failed=()
check() {
    local name=$1 out
    shift
    if out=$("$@" 2>&1); then
        printf '%-12s ok   %s\n' "$name" "$(tail -n 1 <<<"$out")"
    else
        printf '%-12s FAILED\n%s\n' "$name" "$out"
        failed+=("$name")
    fi
}
check lint ruff check .
check format ruff format --check .
check types mypy
check imports lint-imports

status=0
timeout --kill-after=10 "$LIMIT" python -m pytest -o faulthandler_timeout=120 "$@" || status=$?
((status != 124)) || say "pytest was not done after $LIMIT seconds"
((status == 0)) || failed+=("pytest")
if ((${#failed[@]})); then
    say "failed: ${failed[*]}"
    exit 1
fi
