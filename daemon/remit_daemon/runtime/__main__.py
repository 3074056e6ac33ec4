"""``python -m remit_daemon.runtime`` is remitd."""

import sys

from remit_daemon.runtime.program import main

sys.exit(main(sys.argv[1:]))
