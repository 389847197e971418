"""Samples: accelerate-launch scripts/sample_uncond.py -c CONFIG --weights W --n_samples N --save_dir DIR [options]"""

import sys

from ddpm_ip.cli import script

if __name__ == "__main__":
    sys.exit(script("sample"))
