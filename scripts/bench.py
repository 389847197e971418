"""Measures speed: torchrun --nproc_per_node N scripts/bench.py [train] [sample] [data] [-c CONFIG] [--key value ...]"""

import sys

from ddpm_ip.cli import script

if __name__ == "__main__":
    sys.exit(script("bench"))
