#!/usr/bin/env bash
# packaging/try.sh [--ask deny|prompt] [-- CMD...]: set remit up from this clone and see it work.
#
# Without CMD: a demonstration. An unmodified bash script plays the agent, in a scratch project and with a stand-in
# key: no file of yours is part of it. With CMD: that command runs under remit, with the current directory as its project.
set -euo pipefail
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=packaging/common.sh
. "$tree/packaging/common.sh"

usage="usage: packaging/try.sh [--ask deny|prompt] [-- CMD...]"
ask=prompt
arguments=("$@")
while (($#)); do
    case $1 in
        --ask) ask=${2:-} && shift $(($# > 1 ? 2 : 1)) ;;
        --ask=*) ask=${1#--ask=} && shift ;;
        -h | --help) echo "$usage" && exit 0 ;;
        --) shift && break ;;
        *) die "$usage" ;;
    esac
done
[[ $ask == deny || $ask == prompt || $ask == allow-once ]] || die "$usage"

if ((EUID == 0)); then
    (($# == 0)) || die "is for ordinary users: root can undo whatever it enforces. Run this as yourself"
    say "is for ordinary users: root can undo whatever it enforces. The demonstration runs as $ACCOUNT"
    to_account try.sh "${arguments[@]}"
fi

install_remit
remit=$bin/remit

if (($#)); then
    exec "$remit" run --ask "$ask" -- "$@"
fi

# ---- the demonstration -------------------------------------------------------------------------------------------

# Not below /tmp: a session has a temporary directory of its own. Nor hidden: it is a project like any other.
scratch=$(mktemp -d "$HOME/remit-demo.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
project=$scratch/project
home=$scratch/home
key=$home/.ssh/id_ed25519
mkdir -p "$project" "$home/.ssh"
chmod 700 "$home/.ssh"
printf 'not a key: a stand-in for the demonstration\n' >"$key"
chmod 600 "$key"

cat >"$project/agent.sh" <<'AGENT'
#!/bin/bash
echo "[agent] I write a program, run it and commit it"
echo 'print("[agent] hello from", __file__)' >hello.py
python3 hello.py
if command -v git >/dev/null; then
    git init --quiet --initial-branch=main . && git add hello.py &&
        git -c user.name=agent -c user.email=agent@localhost commit --quiet -m "hello" && git --no-pager log --oneline
fi
echo "[agent] and now I read ~/.ssh/id_ed25519"
if cat ~/.ssh/id_ed25519; then
    echo "[agent] I have the key"
else
    echo "[agent] I did not get the key"
fi
AGENT

runner=()
[[ -z ${REMIT_FROM_ROOT:-} ]] || runner=(runuser -u "$REMIT_FROM_ROOT" -- env -u XDG_RUNTIME_DIR "HOME=$HOME")
answering="${runner[*]:+${runner[*]} }$remit"
short=$answering path=
[[ -n ${REMIT_FROM_ROOT:-} ]] || short=remit path="PATH=$bin:\$PATH"

cat <<TEXT

A bash script that knows nothing of remit plays the agent. It works in a
scratch project, then reaches for a key (a stand-in: yours is not touched):

    echo ... >hello.py; python3 hello.py; git commit    its own work: passes
    cat ~/.ssh/id_ed25519                               asked first

TEXT
if [[ $ask == deny ]]; then
    echo "--ask deny: whatever would be asked is refused at once."
else
    cat <<TEXT
The read of the key waits for you, 25 seconds; then it is refused.
To see it and answer it, in another terminal:

    $answering prompts --watch
TEXT
fi
printf '\n----\n'

since=$(date +%s)
status=0
# The system's python3 first: one of an active virtual environment elsewhere would be a question of its own.
(cd "$project" && "$remit" run --agent demo --project "$project" --ask "$ask" -- env "HOME=$home" "PATH=/usr/local/bin:/usr/bin:/bin:$PATH" bash agent.sh) || status=$?
printf -- '----\n\n'
((status == 0)) || say "the agent ended with status $status"
((status < 125)) || exit "$status" # it never started: there is nothing to show

cat <<TEXT
What remit recorded ($answering log):

TEXT
log=("$remit" log --agent demo --since "$since")
"${log[@]}" --path "$project/hello.py" || true
"${log[@]}" --path "$key" || true

cat <<TEXT

Next, in a project of yours${path:+, with $path}:

    $short run -- YOUR-AGENT
    $short tui         what waits for an answer, on one screen
    $short doctor      what this kernel enforces, tried out
TEXT
exit "$status"
