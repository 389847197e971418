"""Evaluation during training: a distance between a few samples of the averaged network and the training set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from accelerate import Accelerator
from torch import nn

from ddpm_ip.config import Config
from ddpm_ip.data import ImageSet
from ddpm_ip.evaluate.evaluate import Evaluation, check, compare
from ddpm_ip.evaluate.features import find_extractor
from ddpm_ip.evaluate.images import open_samples
from ddpm_ip.images import UInt8
from ddpm_ip.sample.generator import Generator, make_generator
from ddpm_ip.sampler import Ancestral, VarType
from ddpm_ip.schedule import RespaceType, respace

BLOCK = 256  # images at once; on the CPU a quarter


class Judge:
    """Judges a network as ``train.eval`` says: always the same starting noise, so that values can be compared.

    Samples are drawn with small variance (with the learned one where there is one), since large variance leaves visible
    noise at few steps. All processes share the samples; only the first has anything to do after that.

    Args:
        config: of the run.
        images: the training set, the reference.
        accelerator: where.

    Raises:
        UserError: the extractor cannot be had or does not give what the metrics need, or there are too few images for
            them; said before the first step rather than at the first evaluation.
    """

    def __init__(self, config: Config, images: ImageSet, accelerator: Accelerator) -> None:
        self._config, self._images, self._accelerator = config, images, accelerator
        chosen, device = config.train.eval, accelerator.device
        self._extractor = find_extractor(chosen.extractor, device)
        check(
            images, extractor=self._extractor, metrics=chosen.metrics, n_images=chosen.n_samples, device=device
        )  # fmt: skip

    def __call__(self, network: nn.Module) -> Callable[[], Evaluation] | None:
        """Samples of a network in evaluation mode and their features, by all processes together.

        Returns:
            On the first process what computes the metrics of ``train.eval`` from them, which may take minutes, on the
            CPU alone: a thread may do it while a CUDA graph is captured or replayed. None on the others.

        Raises:
            UserError: as :func:`ddpm_ip.evaluate.evaluate.compare`.
        """
        config, chosen = self._config, self._config.train.eval
        diffusion, device = config.diffusion, self._accelerator.device
        var_type: VarType = "learned_range" if diffusion.learned_variance else "fixed_small"
        steps = min(chosen.steps, diffusion.total_steps)
        block = min(BLOCK if device.type == "cuda" else BLOCK // 4, chosen.n_samples)
        rule: RespaceType = "uniform-linspace"
        times = respace(diffusion.total_steps, steps, rule)
        generator = make_generator(config, network, Ancestral(var_type), times, config.seed, block, self._accelerator)
        about = {
            "averaged": True,
            "sampler": "ancestral",
            "var_type": var_type,
            "respace_type": rule,
            "steps": steps,
            "seed": config.seed,
            "block": block,
            "precision": self._accelerator.mixed_precision,
            "fast": generator.replayed is not None,
            "device": device.type,
        }
        comparison = compare(
            open_samples(self._share(generator), about),
            self._images,
            extractor=self._extractor,
            metrics=chosen.metrics,
            n_images=chosen.n_samples,
            device=device,
        )
        return None if comparison is None else partial(comparison.conclude, torch.device("cpu"))

    def _share(self, generator: Generator) -> Iterator[UInt8]:
        """This process's blocks."""
        n, size = self._config.train.eval.n_samples, generator.block
        blocks = range(-(-n // size))
        for block in blocks[self._accelerator.process_index :: self._accelerator.num_processes]:
            yield generator.images(block)[: n - block * size]
