"""Metrics: what each is called, needs, means and does not mean. This is the one place that describes a metric.

A new metric is an entry of :data:`METRICS` here and a function in :mod:`ddpm_ip.evaluate.metrics` that computes it; the
command line, the configuration, evaluation, training, tables and reports learn of it from the entry.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ddpm_ip.errors import ConfigError

INCEPTION = "inception"  # the extractor that papers use

DEVIATION = "_std"  # at the end of the name of a value: the name of its deviation


@dataclass(frozen=True)
class Value:
    """A number that a metric gives, in words.

    Args:
        inception: its name in the Inception's features, such as ``FID``.
        other: its name in other features, to which ``-extractor`` is added, such as ``FD`` for ``FD-pixels``.
        higher: whether more is better.
        what: what it measures; :attr:`Found.what` adds what the features are.
        limits: what must not be read into it.
    """

    inception: str
    other: str
    higher: bool
    what: str
    limits: str


@dataclass(frozen=True)
class Metric:
    """A metric: one computation, which gives one value or several.

    Args:
        name: on the command line and in configurations.
        values: what it gives, in this order.
        features: the kind that it is taken in, as an extractor calls it: ``pool``, ``logits`` or ``spatial``.
        fewest: images that it needs, of each set.
        rows: whether it needs the features themselves, not only their moments.
        reference: whether it compares with the reference; else the reference plays no part.
        parts: how many parts of the images a deviation is over, given behind each value; 0 for none.
        part: what such a part is called.
        subset: images of a random subset that it is computed on, at most; None for all images.
        published: images behind published values, where a smaller set of perfect samples scores worse than a larger
            one; None where it does not.
        extrapolated: whether it follows from smaller and smaller subsets of the samples.
        elsewhere: a note on values that were taken in other features than the Inception's.
    """

    name: str
    values: tuple[Value, ...]
    features: str
    fewest: int
    rows: bool = True
    reference: bool = True
    parts: int = 0
    part: str = ""
    subset: int | None = None
    published: int | None = None
    extrapolated: bool = False
    elsewhere: str | None = None

    def names(self, extractor: str | None) -> tuple[str, ...]:
        """The names of all numbers that it gives in the features of an extractor, deviations among them.

        None is the Inception network itself. Nothing else gives an FID, whatever it is called.
        """
        names = (v.inception if extractor is None else f"{v.other}-{extractor}" for v in self.values)
        return tuple(n for name in names for n in ((name, name + DEVIATION) if self.parts else (name,)))


_DISTANCE = (
    "It compares only within the same reference set and the same number of images, since a finite set of perfect "
    "samples already has a distance above zero. It sees means and covariances of the features and nothing else."
)
_NEIGHBOURS = "and depends on the features, on the number of neighbours and on the number of images."
_GAUSSIANS = (
    "The Fréchet distance between two Gaussians, one fitted to the features of the samples, one to those of the "
    "reference images: ‖μ₁\u00a0−\u00a0μ₂‖² + tr(Σ₁\u00a0+\u00a0Σ₂\u00a0−\u00a02√(Σ₁Σ₂))."
)

METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "fid",
            (Value("FID", "FD", False, _GAUSSIANS, _DISTANCE),),
            features="pool",
            fewest=2,
            rows=False,
            published=50_000,
            elsewhere="FD is the Fréchet distance in other features than the Inception's: it is not FID.",
        ),
        Metric(
            "isc",
            (
                Value(
                    "IS",
                    "CS",
                    True,
                    "The class score exp E KL(p(y|x) ‖ p(y)), where the features of an image x are the probabilities "
                    "p(y|x) of classes; it is at most their number.",
                    "It does not look at the reference images at all, and is blind to missing variety within a class.",
                ),
            ),
            features="logits",
            fewest=10,
            reference=False,
            parts=10,
            part="splits",
        ),
        Metric(
            "kid",
            (
                Value(
                    "KID",
                    "KD",
                    False,
                    "The squared maximum mean discrepancy, with a cubic kernel, between the features of the samples "
                    "and those of the reference images.",
                    "It is unbiased in the number of images, unlike a Fréchet distance, but depends on the features "
                    "in the same way.",
                ),
            ),
            features="pool",
            fewest=2,
            parts=100,
            part="subsets",
            subset=1000,
        ),
        Metric(
            "prc",
            (
                Value(
                    "precision",
                    "precision",
                    True,
                    "The share of samples within the manifold of the reference images, by nearest neighbours of their "
                    "features.",
                    f"It says nothing about variety, {_NEIGHBOURS}",
                ),
                Value(
                    "recall",
                    "recall",
                    True,
                    "The share of reference images within the manifold of the samples, by nearest neighbours of their "
                    "features.",
                    f"It says nothing about quality, {_NEIGHBOURS}",
                ),
            ),
            features="pool",
            fewest=4,
        ),
        Metric(
            "sfid",
            (Value("sFID", "sFD", False, _GAUSSIANS, _DISTANCE),),
            features="spatial",
            fewest=2,
            rows=False,
            published=50_000,
        ),
        Metric(
            "mind",
            (
                Value(
                    "MIND",
                    "MD",
                    False,
                    "The Monge distance: 3 D times the squared distance of optimal transport between the D features "
                    "of the samples and those of as many reference images, taken along each of 1,000 random lines.",
                    "It compares only within the same reference set and the same number of images, since a finite set "
                    "of perfect samples already has a distance above zero. Its size is not that of an FID.",
                ),
            ),
            features="pool",
            fewest=2,
            published=5_000,
        ),
        Metric(
            "fid_inf",
            (
                Value(
                    "FID_inf",
                    "FD_inf",
                    False,
                    "The Fréchet distance that infinitely many samples would have, by a line through the distances of "
                    "15 random subsets over one divided by their size.",
                    "It may be a little below zero, and is one draw of subsets. It compares only within the same "
                    "reference set. It sees means and covariances of the features and nothing else.",
                ),
            ),
            features="pool",
            fewest=20,
            extrapolated=True,
        ),
        Metric(
            "cdc",
            (
                Value(
                    "clipped_density",
                    "clipped_density",
                    True,
                    "How densely samples lie where reference images do, by nearest neighbours of their features: 1 as "
                    "the reference images themselves, 0.5 as if half of the samples lay nowhere near them.",
                    f"It says nothing about variety, {_NEIGHBOURS}",
                ),
                Value(
                    "clipped_coverage",
                    "clipped_coverage",
                    True,
                    "How much of the reference images samples cover, by nearest neighbours of their features: 0.5 as "
                    "if half of the samples were real images and the others worth nothing.",
                    f"It does not tell how far bad samples are, {_NEIGHBOURS}",
                ),
            ),
            features="pool",
            fewest=6,
        ),
        Metric(
            "copies",
            (
                Value(
                    "copies",
                    "copies",
                    False,
                    "The share of samples that lie no farther from their nearest reference image than that one lies "
                    "from every other reference image, by their features.",
                    "The reference must be the training set. Real images that are new do not have 0: look at what lies "
                    "above the value of held-out images. Bad samples have few copies.",
                ),
            ),
            features="pool",
            fewest=2,
        ),
    )
}
"""All metrics by name, in the order in which they are told."""

FEATURES: dict[str | None, str] = {
    None: "those of the Inception-v3 network of 2015",
    "pixels": "the values of the pixels in [0, 1]",
    "C56": "those of a fixed CIFAR-10 classifier (ResNet-56)",
}
"""Well-known features in words; others are called after their extractor."""


class Found(NamedTuple):
    """What the name of a number means.

    Attributes:
        metric: the metric that gives it.
        value: which of its values.
        extractor: of the features; None for the Inception.
        deviation: whether it is the value's deviation.
    """

    metric: Metric
    value: Value
    extractor: str | None
    deviation: bool

    @property
    def what(self) -> str:
        """What the value measures, in a sentence or two."""
        return f"{self.value.what} The features are {FEATURES.get(self.extractor, f'those of {self.extractor}')}."

    @property
    def limits(self) -> str:
        """What must not be read into it."""
        if self.extractor is None or self.value.inception == self.value.other:
            return self.value.limits
        name = self.value.inception
        return f"{self.value.limits} It is not {name}, and is not comparable with any published {name}."


def find(name: str) -> Found | None:
    """The metric behind the name of a number, such as ``FD-C56``, ``IS_std`` or ``precision-mine``; None if unknown.

    Case does not matter.
    """
    for metric in METRICS.values():
        deviation = bool(metric.parts) and is_deviation(name)
        word, dash, extractor = (name.removesuffix(DEVIATION) if deviation else name).partition("-")
        for value in metric.values:
            words = (value.inception, value.other) if dash else (value.inception,)
            if word.casefold() in (known.casefold() for known in words):
                return Found(metric, value, extractor if dash else None, deviation)
    return None


def is_deviation(name: str) -> bool:
    """Whether a number is the deviation of another, whose name is the same up to the end."""
    return name.endswith(DEVIATION)


def higher_is_better(name: str) -> bool | None:
    """Which way a value is better; None if nothing is known of it."""
    found = find(name)
    return None if found is None else found.value.higher


def fixed(value: float, decimals: int, signs: bool = False) -> str:
    """A number as a table prints it, such as ``1.250``: a value that rounds to zero has no sign.

    Args:
        value: the number.
        decimals: digits after the point.
        signs: whether a positive number has its sign too, as a difference does: ``+1.250``.
    """
    return unsigned_zero(f"{value:{'+' if signs else ''}.{decimals}f}")


def unsigned_zero(text: str) -> str:
    """A printed number, without its sign if that is all that tells it from zero."""
    return text if re.search("[1-9]|inf|nan", text) else text.lstrip("+-")


def chosen(metrics: Sequence[str]) -> list[str]:
    """The metrics, each once, in the order in which they are named.

    Raises:
        ConfigError: one is not known.
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown or not metrics:
        raise ConfigError(f"metrics must be of {', '.join(METRICS)}; got {', '.join(unknown) or 'none'}")
    return list(dict.fromkeys(metrics))


def usual(extractor: str) -> tuple[str, ...]:
    """The metrics that are taken where nobody says which: those that papers print, or the distance alone."""
    return ("fid", "isc") if extractor == INCEPTION else ("fid",)
