"""STAND-IN, to be replaced by the real `ddpm-ip evaluate` on merging: the Fréchet distance in pixels, nothing else.

It keeps the interface that ``table.py`` is written against.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddpm_ip.data import ImageSet
from ddpm_ip.errors import ConfigError, UserError
from ddpm_ip.evaluate.features import Extractor, pixels
from ddpm_ip.evaluate.metrics import Moments, frechet_distance, moments
from ddpm_ip.images import UInt8


@dataclass(frozen=True)
class Evaluation:
    """Numbers, and what they were measured under."""

    values: dict[str, float]
    protocol: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(
    samples: Path | Iterable[UInt8],
    reference: ImageSet,
    *,
    extractor: Extractor,
    metrics: Sequence[str],
    n_images: int | None = None,
    batch_size: int = 256,
    device: torch.device,
    about: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Of several processes each gives its own share of the images, and all get the same numbers."""
    if list(metrics) != ["fid"]:
        raise ConfigError(f"the stand-in knows the metric fid only, not {metrics}")
    fake = Moments(reference.channels * reference.size**2)
    for batch in _folder(samples) if isinstance(samples, Path) else samples:
        fake.add(pixels(batch))
    if torch.distributed.is_initialized():
        shares: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(shares, (fake.count, fake.total, fake.outer))
        if isinstance(samples, Path):
            shares = shares[:1]
        fake.count, fake.total, fake.outer = (sum(parts) for parts in zip(*shares, strict=True))
    if n_images is not None and fake.count != n_images:
        raise UserError(f"{fake.count} images, {n_images} were asked for")
    real = moments([pixels(np.asarray(reference.pixels))], fake.dimensions)
    protocol = {
        "extractor": extractor.name,
        "n_images": fake.count,
        "reference": reference.name,
        "reference_sha256": reference.fingerprint,
        "n_reference": len(reference),
        "about": dict(about or {}),
    }
    return Evaluation({f"FD-{extractor.name}": frechet_distance(real, fake)}, protocol)


def _folder(path: Path) -> Iterable[UInt8]:
    from PIL import Image

    for file in sorted(path.glob("*.png")):
        image = np.asarray(Image.open(file))
        yield (image[None] if image.ndim == 2 else image.transpose(2, 0, 1))[None]
