"""What a picture of ``ddpm-ip sample`` shows, a class a mode: finished images, strips of how they came about, strips
between two of them, given images next to what their noise gives again.

Pictures are made in blocks of consecutive indices, like images, and for the same reason.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ddpm_ip.data import Folder, ImageSet
from ddpm_ip.engine import in_turns
from ddpm_ip.errors import ConfigError, DataError
from ddpm_ip.images import PICTURES, UInt8, grid, to_unit
from ddpm_ip.sample.generator import Generator
from ddpm_ip.sample.whole import Shape
from ddpm_ip.sampler import DDIMInversion, State, slerp
from ddpm_ip.sampler.classes import KnownClasses
from ddpm_ip.sampler.sampling import Sampling

GAP = 2  # pixels around the images of a strip


@dataclass(frozen=True)
class Pictures:
    """Finished images, and what the other modes share.

    Args:
        generator: of the walk from noise to images.
    """

    generator: Generator

    @property
    def size(self) -> int:
        """Pictures of a block."""
        return self.generator.block

    @property
    def most(self) -> int | None:
        """How many there are; None if there is no end of them."""
        return None

    @property
    def shape(self) -> Shape:
        """(C, H, W) of a picture."""
        return self.generator.model.shape

    @property
    def evaluations(self) -> int:
        """Of the network, for one picture."""
        return self.generator.evaluations

    def facts(self) -> dict[str, Any]:
        """What a picture depends on besides its mode, its frames and the facts of the generator, for JSON."""
        return {}

    def block(self, block: int) -> list[UInt8]:
        """The pictures of a block, ``uint8`` (C, H, W) each."""
        return list(self.generator.images(block))

    def told(self, pictures: Iterable[UInt8]) -> str | None:
        """What is to be said about all pictures in the end."""
        return None


@dataclass(frozen=True)
class Strips(Pictures):
    """For each image a strip of finished states (``denoise``), or of the clean images predicted on the way to them.

    Args:
        of: which of the two.
        frames: pictures in a strip, evenly spaced, the last among them; at most as many as there are.
    """

    of: Literal["denoise", "progressive"]
    frames: int

    @property
    def shape(self) -> Shape:
        return _strip_shape(self.generator, len(self.rows()))

    def rows(self) -> list[int]:
        """The states that go into a strip, by the visits before them. Inner stages of a step are none."""
        finished = [i + 1 for i, state in enumerate(self.generator.plan.state.tolist()) if state]
        if self.of == "denoise":
            finished = [0, *finished]  # nothing is predicted yet at the start
        last = len(finished) - 1
        return sorted({finished[last - round(i * last / max(self.frames - 1, 1))] for i in range(self.frames)})

    def block(self, block: int) -> list[UInt8]:
        rows = self.rows()
        frames = [self._frame(state) for state in self.generator.states(block) if state.row in rows]
        return [_strip(images) for images in np.stack(frames, axis=1)]

    def _frame(self, state: State) -> UInt8:
        picture = state.xt if self.of == "denoise" else state.x0
        assert picture is not None
        return self.generator.pixels(state, picture)


@dataclass(frozen=True)
class Interpolations(Pictures):
    """Strip ``i`` goes from image ``2 i`` to image ``2 i + 1`` of the seed, by noises on the arc between theirs.

    The noise that a sampler adds on the way, and the class, are those of image ``2 i`` all along the strip.

    Args:
        frames: images of a strip, both ends among them.
    """

    frames: int

    @property
    def size(self) -> int:
        """So many strips that their images fill a block; at least one, whose images may take several walks."""
        return max(1, self.generator.block // self.frames)

    @property
    def shape(self) -> Shape:
        return _strip_shape(self.generator, self.frames)

    @property
    def evaluations(self) -> int:
        return self.generator.evaluations * self.frames

    def block(self, block: int) -> list[UInt8]:
        generator = self.generator
        first = 2 * torch.arange(block * self.size, (block + 1) * self.size, device=generator.model.device)
        begin, end = generator.noise(first), generator.noise(first + 1)
        shares = [j / max(self.frames - 1, 1) for j in range(self.frames)]
        noise = torch.stack([slerp(begin, end, share) for share in shares], dim=1).flatten(0, 1)
        images = images_from(generator, noise, first.repeat_interleave(self.frames))
        return [_strip(row) for row in images.reshape(self.size, self.frames, *images.shape[1:])]


@dataclass(frozen=True)
class Reconstructions(Pictures):
    """Given images, and next to each the image that is made from the noise that DDIM inversion finds for it.

    Args:
        inversion: the generator of the way up, see :func:`inverse`.
        images: those that are given.
    """

    inversion: Generator
    images: ImageSet

    @property
    def most(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> Shape:
        return _strip_shape(self.generator, 2)

    @property
    def evaluations(self) -> int:
        return self.inversion.evaluations + self.generator.evaluations

    def facts(self) -> dict[str, Any]:
        up = self.inversion
        return {
            "inversion": {**asdict(up.sampling.sampler), "evaluations": up.evaluations},
            "input": self.images.fingerprint,
        }

    def block(self, block: int) -> list[UInt8]:
        given = self.images.pixels[block * self.size : (block + 1) * self.size]
        indices = torch.arange(len(given), device=self.generator.model.device) + block * self.size
        noise = noise_behind(self.inversion, to_unit(torch.from_numpy(np.array(given))), indices)
        made = images_from(self.generator, noise, indices)
        return [_strip(pair) for pair in np.stack((given, made), axis=1)]

    def told(self, pictures: Iterable[UInt8]) -> str:
        """The distance between both images of a pair, of those that the pictures show."""
        channels, height, _ = self.shape
        squares = []
        for picture in pictures:
            pair = picture[:, GAP:-GAP, GAP:].reshape(channels, height - 2 * GAP, 2, -1)[..., :-GAP].astype(np.float64)
            squares.append(float(np.mean((pair[:, :, 0] - pair[:, :, 1]) ** 2)))
        ratios = [math.inf if square == 0 else 10 * math.log10(255**2 / square) for square in squares]
        distance = sum(map(math.sqrt, squares)) / len(squares)
        return (
            f"reconstruction of {len(squares)} images: mean PSNR {sum(ratios) / len(ratios):.2f} dB, "
            f"root mean square error {distance:.2f} of 255"
        )


def inverse(sampling: Sampling) -> Sampling:
    """DDIM inversion on the times of a sampling: what the network itself says of the same classes, without corrections
    or clipping.
    """
    up: Any = DDIMInversion()  # not among those that a person chooses
    return Sampling(
        up,
        clip="none",
        steps=sampling.steps,
        spacing=sampling.spacing,
        seed=sampling.seed,
        block=sampling.block,
        precision=sampling.precision,
        classes=sampling.classes,
    )


def of_given(sampling: Sampling, classes: KnownClasses | None) -> Sampling:
    """The same for images, or noise, that are given, of which nobody knows the class unless the sampling says it.

    A class-conditional model is then asked without a class, and guidance has nothing to magnify.

    Args:
        sampling: as it is wanted.
        classes: of the model; None for an unconditional one.
    """
    if classes is None or sampling.classes is not None:
        return sampling
    return replace(sampling, classes=(-1,))


def refuse_unfit(given: Tensor, right: bool, generator: Generator, expected: str) -> None:
    """Refuses images, or noise, of another shape, or where the kind of their numbers is not ``right``.

    Raises:
        DataError: says what is ``expected``.
    """
    if not right or given.shape[1:] != generator.model.shape or not len(given):
        size = " x ".join(map(str, generator.model.shape))
        raise DataError(f"{expected} (N, {size}); these are {given.dtype} {tuple(given.shape)}")


def noise_behind(inversion: Generator, images: Tensor, indices: Tensor) -> Tensor:
    """``x_T`` of which DDIM makes images, float32 (N, C, H, W) on the model's device.

    Args:
        inversion: a generator of :func:`inverse`.
        images: float32 (N, C, H, W) in [-1, 1].
        indices: int64 (N,) on the model's device.
    """
    found = []
    for state, n in _ends(inversion, images, indices):
        inversion.pixels(state, state.xt)  # refuses what is not finite
        found.append(state.xt[:n].clone())
    return torch.cat(found)


def images_from(generator: Generator, noise: Tensor, indices: Tensor) -> UInt8:
    """The images that come of given noise, ``uint8`` (N, C, H, W).

    Args:
        generator: of the walk.
        noise: ``x_T``, float32 (N, C, H, W); the plan may scale it.
        indices: int64 (N,) on the model's device: whose noise a sampler adds on the way.
    """
    start = noise if generator.plan.start == 1 else generator.plan.start * noise
    return np.concatenate([generator.pixels(state, state.xt)[:n] for state, n in _ends(generator, start, indices)])


def _ends(generator: Generator, start: Tensor, indices: Tensor) -> Iterator[tuple[State, int]]:
    """The last states of walks from any number of states, block by block, and how many of each block are wanted."""
    size, device = generator.block, generator.model.device
    for first in range(0, len(start), size):
        some = start[first : first + size].to(device)
        filled = torch.arange(size, device=device).clamp(max=len(some) - 1)  # up to the block, by the last one
        (last,) = deque(generator.walk(indices[first + filled], some[filled]), maxlen=1)
        yield last, len(some)


def input_images(folder: Path, shape: Shape, progress: bool = True) -> ImageSet:
    """The images of a folder, sorted by path, as the network takes them: cut to its proportions and resized.

    Args:
        folder: of image files (:class:`ddpm_ip.data.folder.Folder`).
        shape: (C, H, W) of the network.
        progress: show a bar while decoding.

    Raises:
        ConfigError: no image file has this many channels.
        DataError: there is no image, or one cannot be used.
    """
    channels, height, width = shape
    if channels not in PICTURES:
        raise ConfigError(f"--mode reconstruction reads image files, and none has the {channels} channels of the model")
    mode: Literal["gray", "rgb", "rgba"] = "gray" if channels == 1 else "rgb" if channels == 3 else "rgba"
    try:
        return Folder(root=str(folder), image_size=(height, width), mode=mode).open(progress)
    except DataError as error:
        text = str(error).replace("data.root", "--input_dir").replace(", or leave them out with data.on_bad: skip", "")
        raise DataError(text) from error


def reconstructions(generator: Generator, folder: Path) -> Reconstructions:
    """The mode ``reconstruction`` of a folder of images; all processes call this together.

    Raises:
        UserError: the images cannot be read, or not be inverted.
    """
    model, engine = generator.model, generator.model.engine
    images = in_turns(engine, lambda: input_images(folder, model.shape, engine.is_main_process))
    sampling = of_given(generator.sampling, model.classes)
    generator = generator if sampling == generator.sampling else model.generator(sampling)
    return Reconstructions(generator, model.generator(inverse(sampling)), images)


def _strip(frames: UInt8) -> UInt8:
    """Pictures (frames, C, H, W) side by side, (C, H, W)."""
    strip = np.asarray(grid(frames, columns=len(frames), gap=GAP, scale=1))
    return strip[None] if strip.ndim == 2 else strip.transpose(2, 0, 1)


def _strip_shape(generator: Generator, frames: int) -> Shape:
    channels, height, width = _strip(np.zeros((frames, *generator.model.shape), np.uint8)).shape
    return channels, height, width
