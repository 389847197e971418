"""``python -m ddpm_ip`` is the command ``ddpm-ip``."""

import sys

from ddpm_ip.cli import main

if __name__ == "__main__":
    sys.exit(main())
