"""What is measured of exposure bias, as files and pages say it: named curves over t, each with its uncertainty.

This module knows only names and files, and loads no torch. The measurements are in their own modules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from ddpm_ip.errors import ConfigError

FOLDER = "exposure"  # in the folder of a run, or next to a file of weights
HAAR, RINGS = 4, 4
BANDS = tuple(f"haar{i}" for i in range(HAAR)) + tuple(f"ring{i}" for i in range(RINGS))  # coarsest first
COLUMNS = ("eps_norm.sampling", "eps_norm.training", "eps_norm.ratio", "delta", "drift")  # of the short table


@dataclass(frozen=True)
class Kind:
    """What a curve is.

    Attributes:
        title: a few words, for an axis.
        meaning: one sentence for a reader who sees it for the first time: what it is, and what no bias would look like.
        none: the value that it has everywhere if there is no exposure bias; None if there is no such value.
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

    def known(self) -> dict[float, float]:
        """The values by time, without those that are not finite: there nothing could be measured."""
        return {t: value for t, value in zip(self.t, self.value, strict=True) if math.isfinite(value)}


@dataclass(frozen=True, repr=False)
class Exposure:
    """What was measured for one network and one way to sample it.

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

    def __repr__(self) -> str:
        return f"<exposure of {self.label}: {self.n} images, {len(self.curves)} curves>"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.as_text())}</pre>"

    def as_text(self) -> str:
        """The curves of ``COLUMNS`` that there are, by time, as a table for people, from noise to image."""
        named = {name: self.curves[name] for name in COLUMNS if name in self.curves}
        cells = {name: curve.known() for name, curve in named.items()}
        times = sorted({t for curve in named.values() for t in curve.t}, reverse=True)
        rows = [["t", *named]]
        rows += [[f"{t:g}", *(f"{found[t]:.5g}" if t in found else "" for found in cells.values())] for t in times]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(
            [f"{self.label}: {self.n} images, real ones of {self.data.get('name', 'unknown data')}", *lines]
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any], origin: str) -> Exposure:
        """From what a file holds; other keys are ignored.

        Args:
            found: plain values, as of :meth:`to_dict`.
            origin: the file, for messages.

        Raises:
            ConfigError: it is no such file.
        """
        try:
            curves = {
                str(name): Curve(**{key: tuple(map(float, curve[key])) for key in ("t", "value", "se", "low", "high")})
                for name, curve in found["curves"].items()
            }
            if not all(math.isfinite(t) for curve in curves.values() for t in curve.t):
                raise ValueError("a time is not a finite number")
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
        "How far a sampled state is from the noisy real image that its walk began with, against the noise of its time: "
        "the squared difference of standard deviations, as ADM-ES measures it. It grows where a walk drifts, and also, "
        "with any sampler, as the walk forgets the image: only walks of one sampler compare, and 0 is no goal.",
    ),
    "drift": Kind(
        "spread in sampling - spread of real states",
        "How much further apart sampled states lie than real noisy images of the same time (standard deviation over "
        "images, mean over pixels), in the walks of delta_t. 0 means that the walk is where its time says.",
        0.0,
    ),
    "x0_error.one_step": Kind(
        "error of x0 after one step",
        "How far the clean image that is predicted from a real noisy one is from the true one (root mean square).",
    ),
    "x0_error.accumulated": Kind(
        "error of x0 after all steps",
        "The same for the image at the end of a walk that begins with the real noisy one.",
    ),
    "nu": Kind(
        "nu_t",
        "Standard deviation over images, mean over pixels, of the true image less the one at the end of a walk that "
        "begins at this time, as DDPM-IP measures it.",
    ),
    "nu.normal": Kind(
        "share of errors that are not normal",
        "Of the errors of nu_t at each pixel, 64 images at a time, the share that a test of normality (D'Agostino and "
        "Pearson) rejects at 5 %. 0.05 means that they look normal, which is why DDPM-IP perturbs with normal noise.",
        0.05,
    ),
    "coupled_time": Kind(
        "coupled time - time",
        "The time whose real noisy images have as much of the finest detail as the sampled states, less the time of "
        "these. Above 0 the states are noisier than their time says.",
        0.0,
    ),
    **{
        f"energy.{what}.{band}.ratio": Kind(
            f"energy of {what} in {band}, sampling / real",
            f"The energy of {words} in the frequency band {band} (haar0 and ring0 are the coarsest), over that on real "
            "noisy images of the same level.",
            1.0,
        )
        for what, words in (("xt", "sampled states"), ("x0", "clean images as predicted in sampling"))
        for band in BANDS
    },
}  # fmt: skip
