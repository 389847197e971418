"""Samples on the disk: image files that say what they are made of, and refuse to be mixed."""

from __future__ import annotations

import json
import os
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
from ddpm_ip.images import PICTURES, UInt8, save_png

Mode = Literal["sample", "denoise", "progressive"]


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
            block = json.loads(self._mark.read_text(encoding="utf-8"))["block"]
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None  # no mark; a damaged one is told by claim
        return block if isinstance(block, int) and block > 0 else None

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
                old = dict(json.loads(mark.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError, RecursionError) as error:
                return (
                    f"{mark} cannot be read ({error}), so what is in the folder is unknown: choose another --save_dir"
                )
            # Whether weights are averaged is known by their hash, whatever their file is called.
            changed = [f"{k}: {old.get(k)} -> {v}" for k, v in identity.items() if k != "averaged" and old.get(k) != v]
            if changed:
                return f"{self.folder} holds images made otherwise ({'; '.join(changed)}): choose another --save_dir"
            return None
        if self.folder.is_dir() and any(self.folder.iterdir()):
            return f"{self.folder} holds other files: choose an empty or a new folder as --save_dir"
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = mark.with_suffix(".partial")
        partial.write_text(json.dumps(identity, indent=1), encoding="utf-8")
        os.replace(partial, mark)
        return None

    def has(self, indices: range) -> bool:
        # a file appears whole; an empty one is what a power failure leaves
        return all(self._file(i).exists() and self._file(i).stat().st_size > 0 for i in indices)

    def put(self, index: int, picture: UInt8) -> None:
        path = self._file(index)
        try:
            save_png(picture, path) if self.suffix == ".png" else _save_npy(picture, path)
        except OSError as error:
            raise UserError(
                f"{path} cannot be written: {error.strerror or error}. Images that were written stay; put that right "
                "and give the same call again, which makes only what is missing"
            ) from error

    def finish(self, n: int) -> None:
        """Gathers the npz and removes its parts."""
        if self.npz is None:
            return
        images = [self._read(i) for i in range(n)]
        array = np.stack([image[..., None] if image.ndim == 2 else image for image in images])
        partial = self.npz.with_name(f".{self.npz.name}.partial.npz")
        arrays: dict[str, Any] = {"images": array}
        if array.shape[3] not in (1, 3):  # a shape such as (N, 6, 10, 5) has two readings
            arrays["layout"] = np.array("channels_last")
        np.savez(partial, **arrays)
        os.replace(partial, self.npz)
        shutil.rmtree(self.folder)

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:06d}{self.suffix}"

    def _read(self, index: int) -> UInt8:
        """(H, W) or (H, W, C)."""
        if self.suffix == ".png":
            return np.asarray(Image.open(self._file(index)))
        return np.load(self._file(index), allow_pickle=False).transpose(1, 2, 0)  # type: ignore[no-any-return]


def _save_npy(image: UInt8, path: Path) -> None:
    """Writes (C, H, W) so that it appears whole or not at all."""
    partial = path.with_name(f".{path.name}.partial.npy")
    try:
        np.save(partial, image)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def sample_files(folder: Path) -> list[Path]:
    """The images of a folder of samples, by index."""
    return sorted(p for p in folder.glob("*.png") if re.fullmatch(r"\d{6,}", p.stem))
