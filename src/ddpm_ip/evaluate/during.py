"""Evaluation during training: a distance between a few samples of the averaged network and the training set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from ddpm_ip.config import Config
from ddpm_ip.data import ImageSet
from ddpm_ip.errors import ConfigError
from ddpm_ip.evaluate.evaluate import Evaluator
from ddpm_ip.evaluate.features import find_extractor
from ddpm_ip.evaluate.images import open_samples
from ddpm_ip.run.record import Evaluation
from ddpm_ip.sample.generator import Model
from ddpm_ip.sampler.spacing import OPTIMISED

BLOCK = 256  # images at once; on the CPU a quarter


def check_sampling(config: Config) -> None:
    """Raises before the first step what would be raised when a run makes its first images, or its network is sampled.

    Raises:
        ConfigError: such images cannot be made.
    """
    t, d = config.train, config.diffusion
    wanted = (("sample_steps", t.sample_freq, t.sample_steps), ("eval.steps", t.eval.every, t.eval.steps))
    for key, often, steps in wanted:
        try:
            if often:
                config.sampling_in_training(steps).check(d.schedule, d.learned_variance, config.classes, d.objective)
        except ConfigError as error:
            raise ConfigError(
                f"images during training (train.{key}: {steps}, and the section sampling): {error}"
            ) from None
    try:
        if config.sampling.spacing != OPTIMISED:  # these are known when the weights are
            config.sampling.times(d.schedule)
    except ConfigError as error:
        raise ConfigError(f"images of the trained network (the section sampling): {error}") from None


class Judge:
    """Judges a model as ``train.eval`` says: always the same starting noise, so that values can be compared.

    :meth:`ddpm_ip.config.Config.sampling_in_training` says how the samples are made. All processes share them; only the
    first has anything to do after that.

    Args:
        config: of the run.
        images: the training set, the reference.
        model: the averaged network as it is sampled.

    Raises:
        UserError: the extractor is missing or does not give what the metrics need, or there are too few images for
            them; raised before the first step rather than at the first evaluation.
    """

    def __init__(self, config: Config, images: ImageSet, model: Model) -> None:
        self._images, self._model, self._n_samples = images, model, config.train.eval.n_samples
        chosen, device = config.train.eval, model.device
        block = min(BLOCK if device.type == "cuda" else BLOCK // 4, chosen.n_samples)
        self._sampling = replace(config.sampling_in_training(chosen.steps), block=block)
        self._evaluator = Evaluator(find_extractor(chosen.extractor, device), chosen.metrics, device)
        self._evaluator.check(images, chosen.n_samples)

    def __call__(self) -> Callable[[], Evaluation] | None:
        """Samples of the present weights and their features, by all processes together.

        Returns:
            On the first process what computes the metrics of ``train.eval`` from them, which may take minutes, on the
            CPU alone: a thread may do it while a CUDA graph is captured or replayed. None on the others.

        Raises:
            UserError: as :meth:`ddpm_ip.evaluate.evaluate.Evaluator.compare`.
        """
        generator = self._model.generator(self._sampling)
        samples = open_samples(generator.mine(self._n_samples), {"averaged": True, **generator.facts()})
        comparison = self._evaluator.compare(samples, self._images, self._n_samples)
        return None if comparison is None else partial(comparison.conclude, torch.device("cpu"))
