"""Samples on the disk: image files that say what they are made of, and refuse to be mixed."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image

from ddpm_ip.errors import ConfigError, UserError
from ddpm_ip.files import is_partial, read_json, write_json, writing
from ddpm_ip.images import PICTURES, UInt8, save_png
from ddpm_ip.run.record import differences, understood

Mode = Literal["sample", "denoise", "progressive"]
AGAIN = "give the same call again, which makes only what is missing"


@dataclass(frozen=True)
class Store:
    """Images on the disk: a folder of PNG files, which for an npz is beside it until all are there.

    Images that no PNG can hold, those of other than 1, 3 or 4 channels, go to an npz; its parts are ``.npy`` files.
    """

    folder: Path
    npz: Path | None
    suffix: Literal[".png", ".npy"] = ".png"

    @classmethod
    def at(cls, save_dir: Path, mode: Mode, channels: int) -> Store:
        """The store of finished images, or of the strips of another mode, at a place.

        Raises:
            ConfigError: the place cannot hold them.
        """
        npz = save_dir if save_dir.suffix == ".npz" else None
        if npz is not None and mode != "sample":
            raise ConfigError(f"an npz takes finished images only: give a folder as --save_dir for --mode {mode}")
        is_picture = mode != "sample" or channels in PICTURES
        if npz is None and not is_picture:
            raise ConfigError(
                f"no PNG can hold images of {channels} channels: use a file that ends in .npz as --save_dir"
            )
        return cls(npz.with_name(f"{npz.stem}.parts") if npz else save_dir, npz, ".png" if is_picture else ".npy")

    @property
    def _mark(self) -> Path:
        return self.folder / "sampling.json"

    def block(self) -> int | None:
        """The block of the images that are there already; None if there are none, or their mark cannot be read."""
        try:
            block: int = read_json(self._mark, {"block": int})["block"]
        except UserError:
            return None  # no mark; a damaged one is told by claim
        return block if block > 0 else None

    def claim(self, identity: dict[str, Any], accelerator: Accelerator) -> None:
        """Marks the folder with what its images are made of.

        Raises:
            ConfigError: it holds other images or other files, on every process.
        """
        refused = [self._claim(identity) if accelerator.is_main_process else None]
        if accelerator.num_processes > 1:
            torch.distributed.broadcast_object_list(refused)
        if refused[0]:
            raise ConfigError(refused[0])

    def _claim(self, identity: dict[str, Any]) -> str | None:
        """Marks the folder; a sentence if it cannot be had."""
        if self.npz is not None and self.npz.exists():
            return f"{self.npz} exists already, and was not touched: choose another --save_dir"
        mark = self._mark
        if mark.exists():
            try:
                old = understood(read_json(mark, advice="What is in the folder is unknown: choose another --save_dir"))
            except UserError as error:
                return str(error)
            # Whether weights are averaged is known by their hash, whatever their file is called.
            changed = differences(*({k: v for k, v in d.items() if k != "averaged"} for d in (old, identity)))
            if changed:
                return f"{self.folder} holds images made otherwise ({'; '.join(changed)}): choose another --save_dir"
            return None
        if self.folder.is_dir() and not all(map(is_partial, self.folder.iterdir())):
            return f"{self.folder} holds other files: choose an empty or a new folder as --save_dir"
        try:
            write_json(mark, identity)
        except UserError as error:
            return str(error)
        return None

    def has(self, indices: range) -> bool:
        # a file appears whole; an empty one is what a power failure leaves
        return all(self._file(i).exists() and self._file(i).stat().st_size > 0 for i in indices)

    def put(self, index: int, picture: UInt8) -> None:
        path, advice = self._file(index), "Images that were written stay; put that right and " + AGAIN
        if self.suffix == ".png":
            save_png(picture, path, advice)
            return
        with writing(path, advice=advice) as file:
            np.save(file, picture)

    def finish(self, n: int) -> None:
        """Gathers the npz and removes its parts."""
        if self.npz is None:
            return
        images = [self._read(i) for i in range(n)]
        array = np.stack([image[..., None] if image.ndim == 2 else image for image in images])
        arrays: dict[str, Any] = {"images": array}
        if array.shape[3] not in (1, 3):  # a shape such as (N, 6, 10, 5) has two readings
            arrays["layout"] = np.array("channels_last")
        with writing(self.npz, advice=f"The images are in {self.folder}; put that right and {AGAIN}") as file:
            np.savez(file, **arrays)
        shutil.rmtree(self.folder)

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:06d}{self.suffix}"

    def _read(self, index: int) -> UInt8:
        """(H, W) or (H, W, C)."""
        if self.suffix == ".png":
            return np.asarray(Image.open(self._file(index)))
        return np.load(self._file(index), allow_pickle=False).transpose(1, 2, 0)  # type: ignore[no-any-return]


def sample_files(folder: Path) -> list[Path]:
    """The images of a folder of samples, by index."""
    return sorted(p for p in folder.glob("*.png") if re.fullmatch(r"\d{6,}", p.stem))
