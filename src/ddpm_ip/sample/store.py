"""Samples on the disk: image files that say what they are made of, and refuse to be mixed."""

from __future__ import annotations

import glob
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image

from ddpm_ip.data.npy import archive
from ddpm_ip.data.passed_over import GRID, MARK
from ddpm_ip.errors import ConfigError, UserError
from ddpm_ip.files import MB, is_partial, read_bytes, read_json, sweep, write_json, write_text, writing
from ddpm_ip.images import PICTURES, UInt8, save_png
from ddpm_ip.plain import parse_json
from ddpm_ip.run.lock import Lock
from ddpm_ip.run.record import differences, understood
from ddpm_ip.sample.whole import Shape, is_whole, largest

Mode = Literal["sample", "denoise", "progressive", "interpolate", "reconstruction"]
LOCK = ".lock"
LABELS = "labels.csv"  # next to images of a class-conditional model
LATE = 60.0  # seconds after which a file system that nodes share surely shows what another has written
AGAIN = "give the same call again, which makes only what is missing"


@dataclass(frozen=True)
class Store:
    """Images on the disk: a folder of PNG files, which for an npz is next to it until all are there.

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
        return self.folder / MARK

    @property
    def grid(self) -> Path:
        """The picture of the first images: in their folder, or next to the npz."""
        return self.folder / GRID if self.npz is None else self.npz.with_name(f"{self.npz.stem}.{GRID}")

    def block(self) -> int | None:
        """The block of the images that are there already; None if there are none, or their mark cannot be read."""
        try:
            block: int = read_json(self._mark, {"block": int})["block"]
        except UserError:
            return None  # no mark; a damaged one is told by claim
        return block if block > 0 else None

    def is_finished(self, identity: dict[str, Any], n: int) -> bool:
        """Whether the npz of the same call is there already: readable, and of as many images."""
        if self.npz is None or self.npz.is_symlink() or not self.npz.is_file():
            return False
        try:
            with archive(self.npz) as found:
                said, count = found.text("sampling"), len(found.read("images"))
            old = {k: v for k, v in parse_json(said or "{}").items() if k != "schema"}
            return count == n and not self._changed(old, identity)
        except Exception:  # what is garbage may raise anything; it is not what the call would have made
            return False

    def remove_parts(self) -> None:
        """Of an npz that is there; a kill in between leaves them."""
        if self.npz is not None and self.folder.is_dir():
            with Lock(self.folder / LOCK, "making images in"):
                shutil.rmtree(self.folder)

    @staticmethod
    def _changed(old: Any, identity: dict[str, Any]) -> list[str]:
        """Whether weights are averaged is known by their hash, whatever their file is called."""
        return differences(*({k: v for k, v in d.items() if k != "averaged"} for d in (understood(old), identity)))

    @contextmanager
    def claimed(self, identity: dict[str, Any], accelerator: Accelerator) -> Iterator[None]:
        """The folder for as long as one call fills it, marked with what its images are made of.

        Where no image was made, nothing is left behind (but by one of several processes, which may not know).

        Args:
            identity: all that the images depend on besides their index.
            accelerator: the processes of the call; the main one takes the folder for all.

        Raises:
            ConfigError: another call fills it, or it holds other images or other files; on every process.
        """
        with ExitStack() as stack:
            refused = [self._take(identity, stack) if accelerator.is_main_process else None]
            if accelerator.num_processes > 1:
                torch.distributed.broadcast_object_list(refused)
            if refused[0]:
                raise ConfigError(refused[0])
            if accelerator.num_processes == 1:  # of several another may be about to write
                stack.callback(self._remove_lonely_mark)
            yield

    def _take(self, identity: dict[str, Any], stack: ExitStack) -> str | None:
        """Takes the folder until the stack is closed; a sentence if it cannot be had."""
        if refused := self._refusal(identity):
            return refused
        absent = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        stack.callback(_remove_empty, absent)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(Lock(self.folder / LOCK, "making images in"))
        except (OSError, UserError) as error:
            return f"{error} (--save_dir)"
        sweep(self.folder, self._mark.name, LABELS, f"*{self.suffix}")
        if self.npz is not None:
            sweep(self.npz.parent, glob.escape(self.npz.name))
        return self._claim(identity)

    def _claim(self, identity: dict[str, Any]) -> str | None:
        """Marks the folder; a sentence if it cannot be had."""
        if (refused := self._refusal(identity)) or self._mark.exists():
            return refused
        try:
            write_json(self._mark, identity)
        except UserError as error:
            return str(error)
        return None

    def _refusal(self, identity: dict[str, Any]) -> str | None:
        """Why images of such an identity cannot go here; None if they can."""
        if self.npz is not None and os.path.lexists(self.npz):
            return f"{self.npz} exists already, and was not touched: choose another --save_dir"
        if self._mark.exists():
            advice = "What is in the folder is unknown: choose another --save_dir"
            try:
                changed = self._changed(read_json(self._mark, advice=advice), identity)
            except UserError as error:
                return str(error)
            if changed:
                return f"{self.folder} holds images made otherwise ({'; '.join(changed)}): choose another --save_dir"
        elif self.folder.is_dir() and not all(p.name == LOCK or is_partial(p) for p in self.folder.iterdir()):
            return f"{self.folder} holds other files: choose an empty or a new folder as --save_dir"
        return None

    def _remove_lonely_mark(self) -> None:
        """Without images it marks nothing."""
        with suppress(OSError):
            if {p.name for p in self.folder.iterdir()} <= {self._mark.name, LOCK}:
                self._mark.unlink()

    def look(self, n: int, shape: Shape) -> tuple[set[int], list[Path]]:
        """Which of the first ``n`` images are there.

        A file appears whole, but nothing says that it stayed so: a power failure leaves an empty one, a bad disk or a
        copy that was cut off a garbled one.

        Args:
            n: images.
            shape: of each, (C, H, W).

        Returns:
            The indices of those that are whole, and the files that are not.
        """
        whole, damaged = set(), []
        names = set(os.listdir(self.folder)) if self.folder.is_dir() else set()
        for index in range(n):
            path = self._file(index)
            if path.name not in names:
                continue
            try:
                fine = is_whole(read_bytes(path, largest(shape), links=False), self.suffix, shape)
            except UserError:
                fine = False
            if fine:
                whole.add(index)
            else:
                damaged.append(path)
        return whole, damaged

    def picture(self, index: int) -> UInt8:
        """One that is there, ``uint8`` (C, H, W)."""
        picture = self._read(index)
        return picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)

    def first(self, n: int) -> list[UInt8]:
        """The first ``n`` that are there, ``uint8`` (C, H, W) each: as files, or in the finished npz."""
        if self.npz is None or self.folder.is_dir():
            return [self.picture(index) for index in range(n)]
        with archive(self.npz) as found:
            return [image.transpose(2, 0, 1) for image in found.read("images")[:n]]

    def put(self, index: int, picture: UInt8) -> None:
        path, advice = self._file(index), "Images that were written stay; put that right and " + AGAIN
        if self.suffix == ".png":
            save_png(picture, path, advice)
            return
        with writing(path, advice=advice) as file:
            np.save(file, np.ascontiguousarray(picture))

    def check_all_there(self, n: int, patience: float = 0) -> None:
        """Looks whether every process's images are here.

        Args:
            n: images.
            patience: seconds to wait, since a shared file system may show late what another machine wrote.

        Raises:
            ConfigError: some are missing, as where the nodes do not share the folder.
        """
        end = time.monotonic() + patience
        while True:
            names = set(os.listdir(self.folder))
            missing = [p for p in map(self._file, range(n)) if p.name not in names and not p.exists()]
            if not missing:
                return
            if time.monotonic() >= end:
                break
            time.sleep(1)
        raise ConfigError(
            f"{len(missing)} of {n} images are not in {self.folder}, {missing[0].name} among them: they were removed, "
            "or another node wrote them to its own disk. On several nodes --save_dir must be on a file system that all "
            f"of them share; {AGAIN}"
        )

    def finish(self, n: int, classes: Sequence[int] | None = None) -> None:
        """Gathers the npz and removes its parts; writes next to images in a folder which classes they are of.

        Args:
            n: images.
            classes: of images 0, 1, ..., over and over, -1 for none; None if they have no classes.
        """
        if self.npz is None:
            if classes is not None:
                there = [(path.name, classes[int(path.stem) % len(classes)]) for path in sample_files(self.folder)]
                text = "".join(f"{name},{label}\n" for name, label in [("file", "label"), *there])
                write_text(self.folder / LABELS, text, advice=f"Put that right and {AGAIN}")
            return
        images = [self._read(i) for i in range(n)]
        array = np.stack([image[..., None] if image.ndim == 2 else image for image in images])
        arrays: dict[str, Any] = {"images": array}
        if array.shape[3] not in (1, 3):  # a shape such as (N, 6, 10, 5) has two readings
            arrays["layout"] = np.array("channels_last")
        if classes is not None:
            arrays["labels"] = np.resize(np.array(classes, np.int64), n)
        arrays["sampling"] = np.array(read_bytes(self._mark, MB).decode())  # what the images are made of
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


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def sample_files(folder: Path) -> list[Path]:
    """The images of a folder of samples, by index."""
    return sorted(p for p in folder.glob("*.png") if re.fullmatch(r"\d{6,}", p.stem))
