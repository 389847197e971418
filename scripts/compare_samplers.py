"""Compares samplers: torchrun --nproc_per_node N scripts/compare_samplers.py EXP_DIR... [options] [--key value ...]"""

import sys

from ddpm_ip.cli import script

if __name__ == "__main__":
    sys.exit(script("compare-samplers"))
