"""Measures samples on several processes: torchrun --nproc_per_node N scripts/evaluate.py SAMPLES --reference DATA"""

import sys

from ddpm_ip.cli import script

if __name__ == "__main__":
    sys.exit(script("evaluate"))
