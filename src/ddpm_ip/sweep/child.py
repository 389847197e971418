"""A command of ddpm-ip as a process of a sweep: ``python -m ddpm_ip.sweep.child train -e RUN``.

It stops as on SIGTERM when the sweep is gone, however it ended: the other end of its standard input is the sweep's.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from ddpm_ip.cli import main


def watch() -> None:
    """Sends this process SIGTERM once the other end of its standard input is closed."""
    threading.Thread(target=_wait, name="sweep", daemon=True).start()


def _wait() -> None:
    while os.read(0, 1):  # nothing is ever written
        continue
    if os.name == "nt":  # where `os.kill` ends a process without asking it
        signal.raise_signal(signal.SIGTERM)
    else:
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    watch()
    sys.exit(main())
