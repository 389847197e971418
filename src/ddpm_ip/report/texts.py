"""What the page says in words: the method, and what each metric is and is not."""

from __future__ import annotations

from dataclasses import dataclass

from ddpm_ip.report.markup import Markup


@dataclass(frozen=True)
class Metric:
    """A metric in words.

    Args:
        higher: whether more is better.
        what: what it measures.
        limits: what must not be read into it.
    """

    higher: bool
    what: str
    limits: str


METRICS = {
    "FD-pixels": Metric(
        False,
        Markup(
            "The Fréchet distance between two Gaussians, one fitted to the raw pixels of the samples, one to those of "
            "the reference images, all in [0, 1]: ‖<i>μ</i><sub>1</sub> − <i>μ</i><sub>2</sub>‖² + tr(Σ<sub>1</sub> + "
            "Σ<sub>2</sub> − 2 (Σ<sub>1</sub>Σ<sub>2</sub>)<sup>1/2</sup>). It is exact, and needs neither a network "
            "nor the internet."
        ),
        "It compares only within the same data and the same number of images, since a finite set of perfect samples "
        "already has a distance above zero. It sees means and covariances of pixels and nothing else: samples can "
        "score well and still look wrong. It is not FID, and no published FID may be set beside it.",
    ),
    "FID": Metric(
        False,
        "The Fréchet distance between Gaussians fitted to the 2048 pool features of Inception-v3, for samples and for "
        "reference images.",
        "It depends on the weights file, the resizing, the rounding, the reference set and the number of images; two "
        "values compare only if all of these agree. With few images it is biased upwards.",
    ),
    "FD-C56": Metric(
        False,
        "The Fréchet distance between Gaussians fitted to 160 features of a fixed CIFAR-10 classifier (ResNet-56).",
        "It serves to compare sets of samples under one protocol where the Inception weights cannot be had. It is not "
        "FID, and no published FID may be set beside it.",
    ),
    "CS-C56": Metric(
        True,
        "The class score exp E KL(p(y|x) ‖ p(y)) over the 10 classes of a fixed CIFAR-10 classifier (ResNet-56).",
        "At most 10. It is blind to missing variety within a class, and is not the Inception score.",
    ),
    "KID": Metric(
        False,
        "The kernel Inception distance: squared maximum mean discrepancy of Inception-v3 features, polynomial kernel.",
        "Unbiased in the number of images, unlike FID, but it depends on weights and resizing in the same way.",
    ),
    "IS": Metric(
        True,
        "The Inception score exp E KL(p(y|x) ‖ p(y)).",
        "It does not look at the reference images at all, and is blind to missing variety within a class.",
    ),
    "precision": Metric(
        True,
        "The share of samples within the manifold of the reference images, by nearest neighbours of their features.",
        "It says nothing about variety, and depends on the features, on k and on the number of images.",
    ),
    "recall": Metric(
        True,
        "The share of reference images within the manifold of the samples, by nearest neighbours of their features.",
        "It says nothing about quality, and depends on the features, on k and on the number of images.",
    ),
}

UNKNOWN_METRIC = (
    "This page has no description of this metric; see the protocol line beneath the table. Numbers stand side by side "
    "only where metric, reference set and number of images agree."
)


def find_metric(name: str) -> Metric | None:
    """The description of a metric, by name without regard to case."""
    return next((metric for known, metric in METRICS.items() if known.casefold() == name.casefold()), None)


def higher_is_better(name: str) -> bool | None:
    """Which way is better; every other Fréchet or kernel distance (``FD-…``, ``FID-…``) is better low; else unknown."""
    if metric := find_metric(name):
        return metric.higher
    return False if name.casefold().startswith(("fd", "fid", "sfid", "kid")) else None


def _root(radicand: str) -> str:
    return f'<span class="root">√<span class="radicand">{radicand}</span></span>'


_ABAR = "<i>ᾱ<sub>t</sub></i>"
_CLEAN = f"{_root(_ABAR)}&#8202;<i>x</i><sub>0</sub> + {_root(f'1 − {_ABAR}')}&#8202;"

METHOD = tuple(
    Markup(line)
    for line in (
        "Plain DDPM trains a network to find the noise in a noised image: it is fed "
        f'<span class="formula"><i>x<sub>t</sub></i> = {_CLEAN}<i>ε</i></span> and returns <i>ε</i>.',
        "Sampling feeds it its own, slightly wrong, earlier outputs instead, inputs that it has never met in training. "
        "The errors add up along the trajectory: <em>exposure bias</em>.",
        "Input perturbation lets the network meet such inputs in training. It is fed "
        f'<span class="formula"><i>y<sub>t</sub></i> = {_CLEAN}(<i>ε</i> + <i>γ ξ</i>)</span> with fresh noise '
        '<span class="formula"><i>ξ</i> ∼ 𝒩(0, <i>I</i>)</span>.',
        "The target stays the <em>clean</em> noise: "
        '<span class="formula"><i>L</i> = ‖ <i>ε</i> − <i>ε<sub>θ</sub></i>(<i>y<sub>t</sub></i>, <i>t</i>) ‖²</span>. '
        "With <i>γ</i> = 0 this is plain DDPM.",
        "Sampling is unchanged: the same network, the same steps, the same cost.",
    )
)

CITATION = Markup(
    "Ning, Sangineto, Porrello, Calderara, Cucchiara: "
    '<a href="https://arxiv.org/abs/2301.11706">Input Perturbation Reduces Exposure Bias in Diffusion Models</a>, '
    "ICML 2023."
)
