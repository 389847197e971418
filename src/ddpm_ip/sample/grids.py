"""``grid.png``: the first images of a call of ``ddpm-ip sample`` as one picture, to look at."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ddpm_ip.images import UInt8, by_class, grid, save_png
from ddpm_ip.plain import shown
from ddpm_ip.sample.store import AGAIN, Store

log = logging.getLogger("ddpm_ip.sample")

SHOWN = 64  # images
STRIPS = 16  # of the other modes, one below the other
SIDE = 64  # pixels to which small images are enlarged


def count(n: int, strips: bool) -> int:
    """How many of ``n`` pictures are shown."""
    return min(n, STRIPS if strips else SHOWN)


def write_grid(store: Store, pictures: Sequence[UInt8], period: int | None) -> Path:
    """Writes the picture.

    In a folder of samples it takes the place of an earlier one. Beside an npz a file of its name may be somebody's: it
    stays, and a warning says so.

    Args:
        store: where the images are.
        pictures: the first ones, ``uint8`` (C, H, W) each.
        period: after how many images their classes begin again, for a row a class; None for strips, which lie one
            below the other.

    Returns:
        Its file.

    Raises:
        UserError: it cannot be written.
    """
    if store.npz is not None and os.path.lexists(store.grid):
        log.warning("%s is there already and was not touched; remove it, and the same call makes it", shown(store.grid))
        return store.grid
    images, columns = (np.stack(pictures), 1) if period is None else by_class(np.stack(pictures), period)
    scale = max(1, round(SIDE / images.shape[2])) if period is None else None
    picture = grid(images, columns=columns, scale=scale)
    save_png(picture, store.grid, f"The images are in {store.npz or store.folder}; put that right and {AGAIN}")
    return store.grid
