r"""What training minimises: the loss of each sample, nothing reduced.

    y_t  = alpha_t x_0 + sigma_t perturb(eps)           what the network is fed
    loss = w_t || network(y_t, t) - target(x_0, eps, t) ||^2 / d     the target is made of the clean eps

(Ho et al. 2020, arXiv 2006.11239, equation 14; with input perturbation Ning et al. 2023, arXiv 2301.11706, equation 8.)
The weight ``w_t`` is :mod:`ddpm_ip.weighting`'s. Where times are not drawn uniformly (:mod:`ddpm_ip.times`), the whole
is multiplied by the importance weight of its time.

A network with learned variance adds ``T / 1000`` times a term of the variational bound, whose gradient reaches only the
variance: the hybrid loss (Nichol & Dhariwal 2021, arXiv 2102.09672, section 3.1; the weight is that of their code's
"rescaled" loss). As in the code of DDPM-IP's authors the bound sees the perturbed ``y_t``, so that the variance also
fits the square of the bias that perturbation gives to the mean, ``(gamma^2 / (1 + gamma^2))^2`` or 10^-4 of the squared
noise at gamma 0.1. With ``vb_input: clean`` it sees the true ``x_t``, for one more evaluation of the network.

The bound may also be the whole loss, ``T`` times it (``loss: vlb``; "rescaled KL" in that code), from which the mean
learns, too. It has better likelihoods and worse images, and is noisy: train it with
``train.times.name: loss_second_moment``. A variance that is not learned is the fixed one, and the bound a weighting of
the squared error. Input perturbation is another method there: the mean of the perturbed ``y_t`` is compared with that
which the true ``x_0`` gives, so the noise that is asked for is ``eps + gamma xi`` (that code would do the same).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ddpm_ip.bound import bound_term, discretized_log_likelihood, gaussian_kl, mean_of_each
from ddpm_ip.denoiser import Denoiser, Prediction
from ddpm_ip.draws import Draws
from ddpm_ip.nn.network import Cond
from ddpm_ip.perturbation import InputPerturbation, NoPerturbation, Perturbation
from ddpm_ip.schedule import expand_like
from ddpm_ip.times import TimeSampler, Uniform
from ddpm_ip.weighting import Constant, Weighting

__all__ = ["BoundInput", "Loss", "LossKind", "Objective", "bound_term", "discretized_log_likelihood", "gaussian_kl"]

LossKind = Literal["simple", "vlb"]
BoundInput = Literal["perturbed", "clean"]


class Loss(NamedTuple):
    """The losses of a batch, nothing reduced.

    Attributes:
        per_sample: what is minimised, (B,): ``unweighted`` times the importance weights.
        terms: the named terms, each (B,), of whose weighted sum ``unweighted`` is made.
        t: the times that were drawn, int64 (B,).
        unweighted: the losses before importance weighting, (B,): what an adaptive time sampler learns from.
    """

    per_sample: Tensor
    terms: Mapping[str, Tensor]
    t: Tensor
    unweighted: Tensor


@dataclass(frozen=True)
class Objective:
    """The simple loss, the hybrid one where the variance is learned, or the bound alone.

    Args:
        perturbation: what is done to the noise in the input.
        times: where the times come from.
        weighting: how much the squared error at each time counts; the bound is not weighted.
        loss: ``simple`` for the squared error, to which a learned variance adds the bound; ``vlb`` for the bound alone.
        vb_input: what the bound of a learned variance, next to the simple loss, sees: the ``perturbed`` input, or the
            ``clean`` one, which costs another evaluation of the network. (On the plain path its dropout masks are
            different.)
        fixed: the variance of the bound alone where it is not learned.
    """

    perturbation: Perturbation = field(default_factory=NoPerturbation)
    times: TimeSampler = field(default_factory=Uniform)
    weighting: Weighting = field(default_factory=Constant)
    loss: LossKind = "simple"
    vb_input: BoundInput = "perturbed"
    fixed: Literal["fixed_large", "fixed_small"] = "fixed_large"

    def __call__(self, denoiser: Denoiser, x0: Tensor, draws: Draws, cond: Cond | None = None) -> Loss:
        """The loss of clean images ``x0`` (B, C, H, W) in [-1, 1], at the times and with the noise of ``draws``.

        Args:
            denoiser: the model.
            x0: float32 (B, C, H, W).
            draws: of the same rows.
            cond: what the images are conditioned on, or None.
        """
        schedule = denoiser.schedule
        t, importance = self.times.draw(draws, schedule.total_steps)
        eps = draws.eps(x0.shape[1:])
        noise = self.perturbation(eps, draws, t, schedule)
        alpha, sigma = schedule.alpha(t, x0), schedule.sigma(t, x0)
        yt = alpha * x0 + sigma * noise
        prediction = denoiser(yt, t, cond)
        if self.loss == "vlb":
            terms = {"vlb": bound_term(schedule, self._with_variance(prediction, t), x0, yt, t, mean_learns=True)}
            loss = schedule.total_steps * terms["vlb"]
            return Loss(importance * loss, terms, t, loss)
        image, weight = x0, self.weighting(schedule, t, denoiser.prediction_type)
        if isinstance(self.perturbation, InputPerturbation) and self.perturbation.target == "consistent":
            strength = self.perturbation.strength(draws, t, schedule)
            image, bounded = self.perturbation.consistent(x0, noise - eps, strength, (alpha, sigma))
            weight = bounded * weight
        terms = {"mse": mean_of_each((prediction.output - denoiser.target(image, eps, t)) ** 2)}
        loss = weight * terms["mse"]
        if prediction.variance_fraction is not None:
            seen = yt
            if self.vb_input == "clean" and noise is not eps:
                seen = alpha * x0 + sigma * eps
                prediction = denoiser(seen, t, cond)
            terms["vlb"] = bound_term(schedule, prediction, x0, seen, t)
            loss = loss + schedule.total_steps / 1000 * terms["vlb"]
        return Loss(importance * loss, terms, t, loss)

    def _with_variance(self, prediction: Prediction, t: Tensor) -> Prediction:
        """The prediction, with the fixed variance if none is learned; at t = 0 both fixed ones are the small."""
        if prediction.variance_fraction is not None:
            return prediction
        large = t > 0 if self.fixed == "fixed_large" else torch.zeros_like(t)
        return prediction._replace(variance_fraction=expand_like(large.float(), prediction.x0))
