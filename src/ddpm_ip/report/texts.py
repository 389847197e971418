"""What the page says in words of the method, and of metrics that :mod:`ddpm_ip.metric` does not describe."""

from __future__ import annotations

from ddpm_ip.report.markup import Markup

UNKNOWN_METRIC = (
    "This page has no description of this metric; see the protocol line beneath the table. Numbers stand side by side "
    "only where metric, reference set and number of images agree."
)


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
    "<cite>Input Perturbation Reduces Exposure Bias in Diffusion Models</cite>, ICML 2023 (arXiv:2301.11706)."
)

LOSS = Markup(
    "The losses of runs with different <i>γ</i> do not compare: input perturbation hides part of <i>ε</i> from any "
    "network, so that even a perfect one has a higher loss. At pure noise, where it is fed "
    '<span class="formula"><i>ε</i> + <i>γ ξ</i></span>, the least possible loss is '
    '<span class="formula"><i>γ</i>²/(1 + <i>γ</i>²)</span>: '
)
