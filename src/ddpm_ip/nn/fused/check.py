"""Does the fused network compute what the plain one does? Asked on the actual weights, before they are trusted."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from ddpm_ip.errors import FastPathError
from ddpm_ip.nn.fused.launch import compile_together
from ddpm_ip.nn.fused.operations import Shadow
from ddpm_ip.nn.labels import LabelEmbedding
from ddpm_ip.nn.network import Cond, Network
from ddpm_ip.nn.unet import Block

# Relative errors of outputs and gradients beyond which the fused form is not used. They tell a wrong kernel from
# rounding; how near the errors are to autocast's own is asked in tests/gpu.
LIMITS = {torch.bfloat16: (0.06, 0.12), torch.float32: (0.01, 0.02)}


def compare(network: nn.Module, dtype: torch.dtype, size: Sequence[int], images: int = 8) -> tuple[float, float]:
    """The relative errors of the fused network's outputs and gradients, against the plain one in float32.

    In evaluation mode, since dropout differs. Layers that are still exactly zero, as at the start of a training, would
    hide what lies before them, so a copy is used in which they are random. A conditional network is asked for some
    classes, and for none.

    Args:
        network: on a GPU.
        dtype: of the fused network.
        size: height and width.
        images: how many random images are put through.

    Returns:
        ``|fused - plain| / |plain|`` of all outputs, and of all gradients.

    Raises:
        FastPathError: an error is beyond the limit, or the network has no fused form.
    """
    plain = _filled(network)
    probe = _probe(plain, size, images)
    shadow = Shadow(plain, dtype)
    shadow.module.eval()
    compile_together(lambda: _outputs(shadow, [run for _, run in shadow.pairs], probe))
    errors = _errors(plain, shadow, shadow.pairs, probe)
    if not all(e <= limit for e, limit in zip(errors, LIMITS[dtype], strict=True)):
        raise FastPathError(
            f"the fused network differs from the plain one by {errors[0]:.1e} in its outputs and {errors[1]:.1e} in "
            f"its gradients (at most {LIMITS[dtype][0]} and {LIMITS[dtype][1]}): its results are not used"
        )
    return errors


def compare_outputs(
    network: nn.Module, x: Tensor, t: Tensor, output: Tensor, dtype: torch.dtype, cond: Cond | None = None
) -> float:
    """The relative error of a fused network's output against the plain one in float32.

    Args:
        network: the plain one.
        x, t: what the fused one was given, (B, C, H, W) and (B,).
        output: what it returned, or the first of its channels.
        dtype: that it works in.
        cond: what the fused one was given besides, of as many images.

    Raises:
        FastPathError: the error is beyond the limit.
    """
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        truth = _ask(network, x, t, cond)[:, : output.shape[1]]
    if not truth.any():  # an untrained network
        return float((output - truth).norm())
    error = _relative([output], [truth])
    if not error <= LIMITS[dtype][0]:
        raise FastPathError(
            f"the fused network differs from the plain one by {error:.1e} (at most {LIMITS[dtype][0]}): its images are "
            "not made"
        )
    return error


class _Probe(NamedTuple):
    """Images (B, C, H, W), their times (B,), the direction in which gradients are taken, as the output; and classes."""

    x: Tensor
    t: Tensor
    direction: Tensor
    cond: Cond | None


def _probe(network: nn.Module, size: Sequence[int], images: int) -> _Probe:
    first, last = _ends(network)
    device, generator = first.weight.device, torch.Generator().manual_seed(0)
    x, direction = (
        torch.randn((images, channels, *size), generator=generator).to(device)
        for channels in (first.in_channels, last.out_channels)
    )
    t = torch.linspace(0, 999, images).long().to(device)
    labels = _labels(network, images)
    return _Probe(x, t, direction, None if labels is None else Cond(labels.to(device)))


def _labels(network: nn.Module, images: int) -> Tensor | None:
    """No class, then classes from the first to the last; None of an unconditional network."""
    classes = next((m.num_embeddings for m in network.modules() if isinstance(m, LabelEmbedding)), None)
    if classes is None:
        return None
    return torch.cat((torch.tensor([-1]), torch.linspace(0, classes - 1, images - 1).long()))


def _ends(network: nn.Module) -> tuple[nn.Conv2d, nn.Conv2d]:
    first, last = getattr(network, "conv_in", None), getattr(network, "conv_out", None)
    if not (isinstance(network, Block) and isinstance(first, nn.Conv2d) and isinstance(last, nn.Conv2d)):
        raise FastPathError(
            f"the network {type(network).__name__} has no fused form: it is not a ddpm_ip.nn.unet.Block between two "
            "convolutions conv_in and conv_out"
        )
    return first, last


def _filled(network: nn.Module) -> nn.Module:
    plain = copy.deepcopy(network).eval().requires_grad_(True)
    _fill_zeros(plain)
    return plain


def _errors(
    plain: nn.Module, other: Network, pairs: list[tuple[Parameter, Parameter]], probe: _Probe
) -> tuple[float, float]:
    """Of the outputs and gradients of ``other``, whose parameters are paired with those of ``plain`` in ``pairs``."""
    truth, true = _outputs(plain, [mine for mine, _ in pairs], probe)
    out, gradients = _outputs(other, [run for _, run in pairs], probe)
    return _relative([out], [truth]), _relative(gradients, true)


def _outputs(network: Network, parameters: list[Parameter], probe: _Probe) -> tuple[Tensor, list[Tensor]]:
    with torch.autocast(probe.x.device.type, enabled=False):
        out = _ask(network, probe.x, probe.t, probe.cond).float()
        gradients = torch.autograd.grad((out * probe.direction).mean(), parameters)
    return out.detach(), list(gradients)


def _ask(network: Network, x: Tensor, t: Tensor, cond: Cond | None) -> Tensor:
    return network(x, t) if cond is None else network(x, t, cond)


def _relative(some: list[Tensor], truth: list[Tensor]) -> float:
    difference = sum(float((a.double() - b.double()).square().sum()) for a, b in zip(some, truth, strict=True))
    return float((difference / sum(float(b.double().square().sum()) for b in truth)) ** 0.5)


@torch.no_grad()
def _fill_zeros(network: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        if parameter.ndim > 1 and not parameter.any():
            values = torch.randn(parameter.shape, generator=generator) * parameter[0].numel() ** -0.5
            parameter.copy_(values)
