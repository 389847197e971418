"""Trains, DDPM or DDPM-IP: accelerate-launch scripts/train_ddpm.py -c CONFIG [-e EXP_DIR] [--key value ...]"""

import sys

from ddpm_ip.cli import script

if __name__ == "__main__":
    sys.exit(script("train"))
