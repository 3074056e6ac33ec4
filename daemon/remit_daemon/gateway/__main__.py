"""``python -I -m remit_daemon.gateway --fd N``: see ``program``."""

import sys

from remit_daemon.gateway.program import main

sys.exit(main(sys.argv[1:]))
