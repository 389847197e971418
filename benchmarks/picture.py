"""A grid of the first images of a folder of samples: python benchmarks/picture.py SAMPLES OUT.png [N]"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from ddpm_ip.images import grid, save_png
from ddpm_ip.sampling import sample_files

if __name__ == "__main__":
    files = sample_files(Path(sys.argv[1]))[: int(sys.argv[3]) if len(sys.argv) > 3 else 64]
    images = np.stack([np.asarray(Image.open(f).convert("RGB")).transpose(2, 0, 1) for f in files])
    save_png(grid(images, scale=2), Path(sys.argv[2]))
