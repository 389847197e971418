"""A network of your own, from any library, sampled with the samplers and corrections of this one."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_ip.denoiser import Denoiser
from ddpm_ip.draws import Draws
from ddpm_ip.engine import start_engine
from ddpm_ip.errors import ConfigError
from ddpm_ip.sample.generator import Sampled
from ddpm_ip.sample.samples import Samples
from ddpm_ip.sampler import Ancestral
from ddpm_ip.sampler.ancestral import ANALYTIC
from ddpm_ip.sampler.correction import Auto
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.sampler.spacing import OPTIMISED
from ddpm_ip.told import sampling_of

BLOCK = 64  # images that go through the network together, where nobody says


def samples(denoiser: Denoiser, shape: tuple[int, int, int], n: int, **settings: Any) -> Samples:
    """Images of a network of your own, made when they are looked at::

        unet = UNet2DModel.from_pretrained("google/ddpm-cifar10-32").eval()  # of diffusers; or any torch.nn.Module
        denoiser = ip.Denoiser(lambda x, t: unet(x, t).sample, ip.Schedule())
        ip.samples(denoiser, (3, 32, 32), 64, sampler=ip.DPMSolver(order=2), steps=20).grid()

    A checkpoint of diffusers or ADM does more as a run, by :func:`ddpm_ip.load`: it can be measured for exposure bias,
    calibrated, trained further and exported.

    Args:
        denoiser: the network, an unconditional one in evaluation mode, with its schedule and what it predicts. It is
            called with ``x`` float32 (N, C, H, W), scaled to [-1, 1] where there is no noise, and ``t`` (N,), whole or
            fractional times in 0..T-1, and returns (N, C, H, W), or (N, 2C, H, W) with ``learned_variance``. It has to
            be on the device that Accelerate chooses: the GPU, if there is one.
        shape: (C, H, W) of an image.
        n: how many; the images 0 .. n - 1 of the seed.
        settings: as of :meth:`ddpm_ip.Run.sample`. What is not given is that of :class:`ddpm_ip.Sampling`; ``block`` is
            64, and an ancestral sampler has the variance ``fixed_small``, or the learned one. What is measured of
            weights (analytic variances, optimised times, ``auto``) needs a run.

    Returns:
        The samples. Their :attr:`~ddpm_ip.Samples.facts` tell networks apart by a hash of what they say of one noise.

    Raises:
        ConfigError: a setting is unknown or impossible, or the network is in training mode, on another device, told
            a condition, or does not return images.
    """
    size = _checked(shape)
    sampling = sampling_of(Sampling(block=BLOCK), settings)
    _refuse_open(sampling)
    engine = start_engine(sampling.precision, fast=True)
    if denoiser.cond is not None:
        raise ConfigError("a denoiser of your own is asked without a condition: bind it within the network, cond=None")
    _refuse_unready(denoiser.network, engine.device)
    model = Sampled(denoiser, size, engine, "your network")
    model.generator(sampling)  # whose errors are told before the network is asked
    return Samples(model, n, sampling, {"network": _hash(model)})


def _checked(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    if len(shape) != 3 or not all(isinstance(size, int) and size >= 1 for size in shape):
        raise ConfigError(f"the shape of an image is (C, H, W), three whole numbers, not {shape!r}")
    return tuple(shape)  # type: ignore[return-value]


def _refuse_open(sampling: Sampling) -> None:
    """Refuses what is measured for the weights of a run and kept next to them, which is not there."""
    sampler = sampling.sampler
    measured = {
        "the spacing optimised": sampling.spacing == OPTIMISED,
        "an analytic variance": isinstance(sampler, Ancestral) and sampler.var_type in ANALYTIC and not sampler.gammas,
        "the correction auto": any(isinstance(c, Auto) and c.chain is None for c in sampling.corrections),
    }
    if found := [name for name, is_open in measured.items() if is_open]:
        raise ConfigError(
            f"{found[0]} is measured for the weights of a run, and this is a network of your own: load a checkpoint "
            "with ip.load, or choose another setting"
        )


def _refuse_unready(network: Any, device: torch.device) -> None:
    """What can be known of a module before it is asked; a function may hide one, of which nothing is known."""
    if not isinstance(network, nn.Module):
        return
    if network.training:
        raise ConfigError("the network is in training mode, in which it may answer at random: call network.eval()")
    where = next((p.device for p in network.parameters()), device)
    if where.type != device.type:
        raise ConfigError(f"the network is on {where}, and images are made on {device}: network.to({str(device)!r})")


@torch.no_grad()
def _hash(model: Sampled) -> str:
    """SHA-256 of what the network puts out for two noises at half the times, which is checked, too.

    Raises:
        ConfigError: it does not put out such images.
    """
    noise = Draws(0, 0, torch.arange(2, device=model.device)).start(model.shape)
    times = torch.full((2,), model.denoiser.schedule.total_steps // 2, device=model.device)
    with model.autocast():
        output = model.denoiser.network(noise, times)
    channels, *size = model.shape
    expected = (2, channels * (2 if model.denoiser.learned_variance else 1), *size)
    if not isinstance(output, Tensor) or output.shape != expected:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ConfigError(
            f"asked for images {tuple(noise.shape)}, the network returns {found}, not a tensor {expected}. Of "
            "diffusers' models, give ip.Denoiser(lambda x, t: unet(x, t).sample, ...); with a learned variance, "
            "learned_variance=True"
        )
    return hashlib.sha256(output.float().cpu().contiguous().numpy().tobytes()).hexdigest()
