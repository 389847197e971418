"""Makes the results table: torchrun --nproc_per_node N scripts/table.py -e EXP_DIR [--steps K ...] [--key value ...]"""

import sys

from ddpm_ip.cli import script

if __name__ == "__main__":
    sys.exit(script("table"))
