"""Images that are made when somebody looks at them: what :meth:`ddpm_ip.notebook.Run.sample` gives."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ddpm_ip.data.imageset import Int64
from ddpm_ip.errors import ConfigError
from ddpm_ip.images import UInt8, by_class, grid
from ddpm_ip.memory import enough_memory
from ddpm_ip.run.row import row_label
from ddpm_ip.sample.generator import Generator, Sampled
from ddpm_ip.sample.modes import GAP, Strips
from ddpm_ip.sample.program import SampleOptions, write_samples
from ddpm_ip.sampler import State
from ddpm_ip.sampler.sampling import Sampling

SHOWN = 64  # images of a grid, unless more are asked for


class Samples:
    """The images 0 .. n - 1 of a model and a seed: the same bytes as ``ddpm-ip sample`` writes::

        walk = run.sample(50_000, sampler=ip.DDIM(), steps=50)
        walk.grid()                # a picture of the first 64, as which a notebook shows ``walk``
        walk.images                # all of them, uint8 (N, C, H, W); np.asarray(walk) is the same
        for block in walk.blocks(): ...   # uint8 (B, C, H, W), one block in memory at a time
        for image in walk: ...            # uint8 (C, H, W), likewise
        walk.save("samples")       # PNG files, as of the command

    They keep the weights that they were asked for, even if the run is trained further. A block that was made is kept
    in memory, as ``uint8``, except by :meth:`blocks`, iteration and :meth:`save`, which hold one block at a time. With
    several processes each makes all of them, except in :meth:`save` and :meth:`mine`, which share them out.

    Args:
        model: the network.
        n: how many images.
        sampling: how they are made; its block is known.
        weights: what is known of the weights, for :attr:`facts`.

    Raises:
        ConfigError: this model cannot be sampled so.
    """

    def __init__(self, model: Sampled, n: int, sampling: Sampling, weights: Mapping[str, Any]) -> None:
        if not isinstance(n, (int, np.integer)) or n < 1:
            raise ConfigError(f"the number of images must be a whole number of at least 1, got {n!r}")
        self.n = int(n)
        self._generator = _Keeper(**vars(model.generator(sampling)))
        self._weights = dict(weights)
        self._images: UInt8 | None = None

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.shape[1:]))
        return f"<{self.n} images {size}: {row_label(self.facts)}, {self.evaluations} network evaluations each>"

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[UInt8]:
        """One image after the other, ``uint8`` (C, H, W); a block is in memory at a time."""
        for block in self.blocks():
            yield from block

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """:attr:`images`, for NumPy: ``np.asarray(walk)``."""
        return np.array(self.images, dtype) if copy else np.asarray(self.images, dtype)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        channels, height, width = self._generator.model.shape
        return self.n, channels, height, width

    @property
    def sampling(self) -> Sampling:
        """How they are made, with nothing left open."""
        return self._generator.sampling

    @property
    def evaluations(self) -> int:
        """Network evaluations an image."""
        return self._generator.evaluations

    @property
    def facts(self) -> dict[str, Any]:
        """All that an image depends on apart from its index, as plain values; :meth:`save` writes them to a file."""
        return {**self._weights, **self._generator.facts()}

    @property
    def images(self) -> UInt8:
        """``uint8`` (N, C, H, W), made on first use and kept."""
        if self._images is None:
            size = self._generator.block
            images = np.concatenate([block[: self.n - i * size] for i, block in enumerate(self._kept(self.n))])
            # the blocks are views of the array from now on, so that nothing is in memory twice
            self._generator.kept.update({i: images[i * size : (i + 1) * size] for i in range(self.n_blocks)})
            self._images = images
        return self._images

    @property
    def n_blocks(self) -> int:
        """How many blocks they come in; a block goes through the network together."""
        return -(-self.n // self._generator.block)

    def blocks(self) -> Iterator[UInt8]:
        """One block after the other, ``uint8`` (at most block, C, H, W) each; none is kept."""
        for i in range(self.n_blocks):
            yield self._generator.images(i)[: self._count(i)]

    def mine(self) -> Iterator[UInt8]:
        """This process's blocks, ``uint8`` (at most block, C, H, W) each; none is kept.

        Of P processes the first has blocks 0, P, 2P, ..., the second 1, P + 1, ...; one process has all.
        """
        engine = self._generator.model.engine
        with tqdm(total=self.n, unit="img", disable=self.n_blocks < 2 or not engine.is_main_process) as bar:
            for images in self._generator.mine(self.n):
                yield images
                bar.update(min(len(images) * engine.num_processes, self.n - bar.n))

    def states(self, block: int = 0) -> Iterator[State]:
        """The states of the images of a block, from noise to images, one after each network evaluation.

        Yields:
            ``State(row, t, xt, seen, finished)``: ``xt`` float32 (B, C, H, W) on the device, ``seen`` what the denoiser
            said on the way (:class:`ddpm_ip.denoiser.Prediction`, after all corrections), None at the start.

        Raises:
            ConfigError: there is no such block.
        """
        if not 0 <= block < self.n_blocks:
            raise ConfigError(f"there are blocks 0..{self.n_blocks - 1} of {self._generator.block} images, not {block}")
        n = self._count(block)
        return (_first(state, n) for state in self._generator.states(block))

    def grid(self, n: int = SHOWN, columns: int | None = None, scale: int | None = None) -> Image.Image:
        """The first ``n`` images as a picture.

        Args:
            n: how many, at most all.
            columns: images in a row; by default about a square, of a class-conditional model a row a class.
            scale: whole-number enlargement; by default small images are enlarged to about 64 pixels.

        Returns:
            A picture of Pillow, to be shown or saved: ``walk.grid().save("grid.png")``.
        """
        n = min(n, self.n)
        shown = self._images if self._images is not None else np.concatenate(list(self._kept(n)))
        shown = shown[:n]
        if columns is None:
            shown, columns = by_class(shown, self._generator.period)
        return grid(shown, columns=columns, scale=scale)

    def strips(self, n: int = 8, frames: int = 10, of: Literal["xt", "x0"] = "xt") -> Image.Image:
        """The way from noise to the first ``n`` images as a picture: a row an image, a column a time.

        Args:
            n: rows, at most a block.
            frames: columns, evenly spaced among the states, the finished image last; at most as many as there are.
            of: ``xt``, the noisy states; or ``x0``, the clean images that were predicted on the way.

        Raises:
            ConfigError: ``of`` is neither.
        """
        modes: dict[str, Literal["denoise", "progressive"]] = {"xt": "denoise", "x0": "progressive"}
        if of not in modes:
            raise ConfigError(f"of must be one of {', '.join(modes)}, got {of!r}")
        rows = Strips(self._generator, modes[of], max(1, frames)).block(0)[: max(1, min(n, self.n))]
        whole = np.concatenate([rows[0], *(row[:, GAP:] for row in rows[1:])], axis=1)  # rows share what is between
        return grid(whole[None], gap=0, scale=max(1, round(64 / max(self.shape[2:]))))

    @property
    def labels(self) -> Int64 | None:
        """The classes of the images, int64 (N,), -1 for none; None if the model is unconditional."""
        found = self._generator.labels(torch.arange(self.n))
        return None if found is None else found.numpy()

    def save(self, path: Path | str) -> Path:
        """Writes the images as ``ddpm-ip sample`` does: those that are there already stay, the rest is made.

        Args:
            path: a folder, which gets ``000000.png``, ... and ``sampling.json``; or a file that ends in ``.npz``.

        Raises:
            UserError: it holds other images, or cannot be written; nothing of it is touched.
        """
        write_samples(self._generator, self._weights, Path(path), SampleOptions(self.n, self.sampling))
        return Path(path)

    def _repr_png_(self) -> bytes:
        """How a notebook shows them."""
        file = io.BytesIO()
        self.grid().save(file, format="PNG")
        return file.getvalue()

    def _count(self, block: int) -> int:
        """The images of a block that were asked for."""
        return min(self._generator.block, self.n - block * self._generator.block)

    def _kept(self, n: int) -> Iterator[UInt8]:
        """The blocks of the first ``n`` images, kept from now on."""
        generator = self._generator
        count = -(-n // generator.block)
        missing = count - len(generator.kept.keys() & set(range(count)))
        with tqdm(total=missing, unit="block", disable=missing < 2) as bar:
            for i in range(count):
                if i not in generator.kept:
                    generator.kept[i] = generator.images(i)[: self._count(i)]
                    bar.update()
                yield generator.kept[i]


@dataclass(frozen=True, eq=False)
class _Keeper(Generator):
    """A generator that does not make a block again which was kept.

    Attributes:
        kept: blocks by number, ``uint8`` (at most block, C, H, W), without the images that nobody asked for.
    """

    kept: dict[int, UInt8] = field(default_factory=dict)

    def images(self, block: int) -> UInt8:
        """See :meth:`Generator.images`; the last block may be shorter.

        Raises:
            OutOfMemory: there is too little memory for a block.
        """
        if block in self.kept:
            return self.kept[block]
        _, height, width = self.model.shape
        advice = (
            f"there is too little memory to sample {self.block} images of {height} x {width} px at once: take "
            f"sample(..., block={max(1, self.block // 2)}), or a device that nothing else is using"
        )
        with enough_memory(lambda: advice):
            return super().images(block)


def _first(state: State, n: int) -> State:
    """A state of the first ``n`` images of a block; a copy, since a captured walk overwrites its own."""
    seen = state.seen
    if seen is not None:
        parts = seen._replace(level=None)._asdict().items()
        level = None if seen.level is None else (seen.level[0][:n].clone(), seen.level[1][:n].clone())
        seen = seen._replace(**{name: part[:n].clone() for name, part in parts if part is not None}, level=level)
    return state._replace(xt=state.xt[:n].clone(), seen=seen)
