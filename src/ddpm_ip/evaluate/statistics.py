"""References that are not images but statistics: ``mu`` and ``sigma`` of Inception features, in an ``.npz`` file.

pytorch-fid, clean-fid and EDM keep references in this form, and guided-diffusion's ``VIRTUAL_*.npz`` files hold them
next to 10,000 of the images. Nothing in such a file says which images they are of, how these were resized, and which
Inception network saw them. That is taken on trust, and an evaluation says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ddpm_ip.data.arrays import array_names, read_array
from ddpm_ip.errors import ConfigError, DataError
from ddpm_ip.evaluate.metrics import UNKNOWN, Features, Float64, Moments
from ddpm_ip.metric import INCEPTION, METRICS
from ddpm_ip.run.checkpoint import sha256

FEATURES = 2048  # of the Inception's last pooling
LARGEST = 1e40  # of a number in such a file
TRUST = (
    "the reference is statistics (mu, sigma): which images they are of, how these were resized, and which Inception "
    "network saw them is not in the file and was taken on trust"
)
IMAGES = {"arr_0", "images"}  # what guided-diffusion's reference files and others hold besides the statistics


def holds_statistics(path: Path) -> bool:
    """Whether a file holds ``mu`` and ``sigma``; a look at the names in it."""
    return {"mu", "sigma"} <= array_names(path)


def what_it_is(path: Path, problem: str) -> str:
    """A file of statistics and a problem with it in words, and how to use images that are in it."""
    advice = "".join(
        f". To use its images ({name}), save them in a file of their own: np.savez(path, images=...)"
        for name in sorted(array_names(path) & IMAGES)[:1]
    )
    return f"{path} holds statistics (mu, sigma) of Inception features: {problem}{advice}"


def check_use(path: Path, extractor: str, metrics: Sequence[str]) -> None:
    """Refuses before any work what such a file cannot be used for.

    Args:
        path: the file.
        extractor: the name of the one that the samples are seen by.
        metrics: names of :data:`ddpm_ip.metric.METRICS`.

    Raises:
        ConfigError: the features are not the Inception's, or a metric needs more than mean and covariance of them.
    """
    if extractor != INCEPTION:
        raise ConfigError(what_it_is(path, f"with --extractor {extractor} the reference must be images"))
    needy = [n for n in metrics if METRICS[n].reference and (METRICS[n].rows or METRICS[n].features != "pool")]
    if needy:
        raise ConfigError(
            what_it_is(path, f"they give fid alone, and {', '.join(needy)} must see the images themselves")
        )


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and covariance of the pool features of a reference, from a file.

    Attributes:
        path: the file.
        sha256: of the file, hexadecimal.
        moments: of 2,048 features, of an unknown number of images.
    """

    path: Path
    sha256: str
    moments: Moments

    @property
    def name(self) -> str:
        """For people."""
        return self.path.stem

    @property
    def fingerprint(self) -> str:
        """What distinguishes this reference from others."""
        return self.sha256

    @property
    def features(self) -> Features:
        """All that is known about the images."""
        return Features(UNKNOWN, (), {"pool": self.moments}, {})


@dataclass(frozen=True)
class StatisticsFile:
    """A file of statistics as a source of a reference."""

    path: Path

    def open(self, progress: bool = True) -> Statistics:
        """Reads and checks the statistics; ``progress`` plays no part.

        Raises:
            DataError: they are damaged, or not those of 2,048 features.
        """
        mean = self._numbers("mu", (FEATURES,))
        covariance = self._numbers("sigma", (FEATURES, FEATURES))
        variances = np.diag(covariance)
        scale = max(float(variances.max()), np.finfo(np.float64).tiny)
        uneven = float(np.abs(covariance - covariance.T).max())
        bound = np.sqrt(np.outer(np.clip(variances, 0, None), np.clip(variances, 0, None)))
        if variances.min() < 0 or uneven > 1e-4 * scale or (np.abs(covariance) > 1.001 * bound + 1e-6 * scale).any():
            raise DataError(f"{self.path}: sigma is no covariance: not symmetric, or larger than its variances allow")
        moments = Moments(UNKNOWN, mean, np.zeros(FEATURES), (covariance + covariance.T) / 2)
        return Statistics(self.path, sha256(self.path), moments)

    def _numbers(self, name: str, shape: tuple[int, ...]) -> Float64:
        found: npt.NDArray[np.floating] = read_array(self.path, name, 8 * FEATURES ** len(shape))
        if found.dtype.kind != "f" or found.dtype.itemsize not in (4, 8) or found.shape != shape:
            raise DataError(
                f"{self.path}: {name} is {found.dtype} {found.shape}. Statistics of Inception features have {name} as "
                f"float64 {shape}"
            )
        numbers = found.astype(np.float64)
        if not (np.abs(numbers) < LARGEST).all():  # written so that NaN is refused, too
            raise DataError(f"{self.path}: {name} is not finite, or absurdly large")
        return numbers
