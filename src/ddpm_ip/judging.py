"""Samples and real images compared from Python, as ``ddpm-ip evaluate`` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from ddpm_ip.config import Config
from ddpm_ip.data import ImageSet
from ddpm_ip.engine import start_device
from ddpm_ip.errors import ConfigError, DataError
from ddpm_ip.evaluate.evaluate import Reference, evaluate
from ddpm_ip.evaluate.features import Extractor, find_extractor
from ddpm_ip.evaluate.images import Source, from_pixels, open_samples
from ddpm_ip.evaluate.program import find_reference
from ddpm_ip.images import UInt8
from ddpm_ip.metric import usual
from ddpm_ip.places import expanded
from ddpm_ip.run.record import Evaluation
from ddpm_ip.sample.samples import Samples


@runtime_checkable
class Trained(Protocol):
    """What is compared with its own training images: a run."""

    config: Config


def measure(
    samples: Samples | UInt8 | torch.Tensor | Path | str,
    reference: Trained | ImageSet | Path | str,
    features: Extractor | str = "inception",
    metrics: Sequence[str] | None = None,
    n: int | None = None,
) -> Evaluation:
    """Compares samples with real images, as ``ddpm-ip evaluate`` does.

    Args:
        samples: of a run; or ``uint8`` (N, C, H, W); or a folder of PNG files, an ``.npz``, ``.npy`` or Parquet file.
        reference: a name (``cifar10-train``, ``digits``, ...), a folder, a file, or a configuration's ``.yaml``, see
            :func:`ddpm_ip.evaluate.program.find_reference`; a set of images; or a run, for its training images.
        features: an extractor (:class:`ddpm_ip.evaluate.features.Extractor`) or the name of one: ``inception``,
            ``pixels``, ``dinov2-vit-l-14``, ``package.module:object``, ...
        metrics: of ``fid``, ``isc``, ``kid``, ``prc``, ``sfid``; by default ``fid``, of Inception ``isc``, too.
        n: how many samples, the first; by default all.

    Returns:
        The numbers (``values``), what they depend on (``protocol``), and what to beware of (``warnings``); ``print``
        shows them all.

    Raises:
        UserError: the samples, the reference or the extractor cannot be used.
    """
    return compared(_source(samples), reference, features, metrics, n)


def compared(
    source: Source,
    reference: Trained | ImageSet | Path | str,
    features: Extractor | str,
    metrics: Sequence[str] | None = None,
    n: int | None = None,
) -> Evaluation:
    """A source of samples compared with real images; all processes call this together. See :func:`measure`."""
    device = start_device()
    extractor = find_extractor(features, device) if isinstance(features, str) else features
    if isinstance(extractor, type) or not isinstance(extractor, Extractor):
        raise ConfigError(f"features must be the name of an extractor, or one (docs/EVALUATION.md), not {features!r}")
    if metrics is None:
        metrics = usual(extractor.name)
    return evaluate(
        source,
        _reference(reference, source.shape),
        extractor=extractor,
        metrics=[metrics] if isinstance(metrics, str) else metrics,
        n_images=n,
        device=device,
    )


def streamed(samples: Samples) -> Source:
    """Samples as a source that makes them block by block, each process its own, and keeps none."""
    return Source("samples", lambda size, n: samples.mine(), samples.n, samples.shape[1:], samples.facts)


def _source(samples: Samples | UInt8 | torch.Tensor | Path | str) -> Source:
    if isinstance(samples, Samples):
        return from_pixels("samples", samples.images, samples.facts)
    if isinstance(samples, (str, Path)):
        return open_samples(expanded(samples))
    array = samples.cpu().numpy() if isinstance(samples, torch.Tensor) else samples
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 4:
        kind = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise DataError(f"samples come as uint8 (N, C, H, W), as a path, or from run.sample(); these are {kind}")
    return from_pixels("samples", array)


def _reference(reference: Trained | ImageSet | Path | str, shape: tuple[int, int, int] | None) -> Reference:
    if isinstance(reference, ImageSet):
        return reference
    if isinstance(reference, (str, Path)):
        return find_reference(str(reference), None, shape).open()
    if not isinstance(reference, Trained):
        raise ConfigError(f"a reference is a name, a path, a run or an ImageSet, not {type(reference).__name__}")
    return reference.config.data.open()
