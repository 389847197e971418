"""What is measured of exposure bias, as files and pages say it: named curves over t, each with its uncertainty.

This module knows names and files alone; no torch is loaded. The measurements are in their own modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ddpm_ip.errors import ConfigError

FOLDER = "exposure"  # in the folder of a run, or next to a file of weights


@dataclass(frozen=True)
class Kind:
    """What a curve is.

    Attributes:
        title: a few words, for an axis.
        meaning: one sentence for a reader who sees it for the first time: what it is, and what no bias would look like.
        none: the value that it has everywhere where there is no exposure bias; None where there is no such value.
    """

    title: str
    meaning: str
    none: float | None = None


@dataclass(frozen=True)
class Curve:
    """Numbers by time, rising.

    Attributes:
        t: times, in training steps; -1 is the finished image.
        value: at each.
        se: the standard error of each.
        low, high: the ends of a 95 % bootstrap interval.
    """

    t: tuple[float, ...]
    value: tuple[float, ...]
    se: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        if len({len(x) for x in (self.t, self.value, self.se, self.low, self.high)}) != 1:
            raise ValueError("a curve has a value, a standard error and an interval at each time")


@dataclass(frozen=True)
class Exposure:
    """What was measured of one network and one way to sample it.

    Attributes:
        label: as a row of a table is called, with the number of steps: ``ddim, 10 steps``.
        weights: SHA-256 of the weights.
        sampling: facts about the images (:meth:`ddpm_ip.sampler.sampling.Sampling.facts`).
        n: images behind the curves.
        data: name and SHA-256 of the real images.
        curves: by name, such as ``eps_norm.sampling``; see ``KINDS``.
    """

    label: str
    weights: str
    sampling: Mapping[str, Any]
    n: int
    data: Mapping[str, str]
    curves: Mapping[str, Curve]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any], origin: str) -> Exposure:
        """From what a file holds; other keys are passed over.

        Raises:
            ConfigError: it is no such file.
        """
        try:
            curves = {
                str(name): Curve(**{key: tuple(map(float, curve[key])) for key in ("t", "value", "se", "low", "high")})
                for name, curve in found["curves"].items()
            }
            label, weights, n = str(found["label"]), str(found["weights"]), int(found["n"])
            return cls(label, weights, dict(found["sampling"]), n, dict(found["data"]), curves)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"{origin} holds no curves of exposure bias ({error})") from None


KINDS: dict[str, Kind] = {
    "eps_norm.sampling": Kind(
        "norm of predicted noise, in sampling",
        "How long the predicted noise is on the states of real sampling runs (mean over images of its Euclidean norm).",
    ),
    "eps_norm.training": Kind(
        "norm of predicted noise, on real states",
        "How long the predicted noise is on real noisy images of the same level.",
    ),
    "eps_norm.ratio": Kind(
        "norm in sampling / norm on real states",
        "The two norms divided. 1 everywhere means that the network says as much noise in sampling as it does in "
        "training.",
        1.0,
    ),
    "delta": Kind(
        "delta_t",
        "How far the noise in a sampled state is from what its time says: the squared difference of standard "
        "deviations, in walks that begin with a noisy real image. 0 means no drift.",
        0.0,
    ),
}  # fmt: skip
