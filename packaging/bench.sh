#!/usr/bin/env bash
# packaging/bench.sh [--rounds N] [--only NAME,...] [--json]: native against remit (and bubblewrap where installed).
set -euo pipefail
tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=packaging/common.sh
. "$tree/packaging/common.sh"
((EUID != 0)) || to_account bench.sh "$@"
install_remit
cd "$tree"
exec "$bin/python" tests/bench/run.py "$@"
