"""What can be reproduced, as the sweep that makes it; a new recipe is one entry of :data:`RECIPES`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ddpm_ip.config import read_tree
from ddpm_ip.metric import INCEPTION, usual
from ddpm_ip.presets import find
from ddpm_ip.sweep.plan import Asked


@dataclass(frozen=True)
class Recipe:
    """Runs that are trained and measured.

    Attributes:
        what: it is, in a line.
        preset: the configuration.
        over: the values by which the runs differ.
        table: options of the results table of each, as words of ``ddpm-ip table``.
        extractor: whose features the table needs.
        options: what else differs from the preset.
    """

    what: str
    preset: str
    over: Mapping[str, Sequence[Any]]
    table: Mapping[str, Sequence[str]]
    extractor: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def asked(self, options: Mapping[str, Any], table: Mapping[str, Sequence[str]]) -> Asked:
        """The sweep.

        Args:
            options: items of the configuration that are to be others than published, by dotted path.
            table: options of the table that are to be others, as ``{"--steps": ["50"]}``.

        Raises:
            ConfigError: the preset cannot be read.
        """
        file = find(self.preset)
        words = {"--extractor": [self.extractor], **self.table, **table}
        return Asked(
            read_tree(file),
            self.preset,
            {**self.options, **options},
            self.over,
            seeds=(0,),
            table=[word for option, values in words.items() for word in (option, *values)],
        )


_VARIANCES = {"--variance": ["fixed_large", "fixed_small"], "--spacing": ["uniform-leading"]}
_GAMMAS = {"perturbation.gamma": [0, 0.1]}  # with 0 it is DDPM, bit for bit

RECIPES: Mapping[str, Recipe] = {
    "paper_table": Recipe(
        "DDPM and DDPM-IP on CIFAR-10, FID and IS of 50,000 images under both variances: the table of "
        "xyfJASON/diffusion-models-pytorch, docs/DDPM-IP.md",
        "ddpm_ip_cifar10",
        _GAMMAS,
        {
            **_VARIANCES,
            "--steps": ["1000", "100", "50", "10"],
            "--n_samples": ["50000"],
            "--metrics": [*usual(INCEPTION)],
        },
        INCEPTION,
    ),
}
SMOKE: Mapping[str, Recipe] = {
    "paper_table": Recipe(
        "the same on 1,797 digits with a tiny network, a few steps and distances of pixels: a rehearsal whose numbers "
        "say nothing",
        "ddpm_ip_digits",
        _GAMMAS,
        {**_VARIANCES, "--steps": ["10", "5", "2", "1"], "--n_samples": ["128"], "--batch_size": ["64"]},
        "pixels",
        {
            "model.dim": 8, "diffusion.total_steps": 10, "train.n_steps": 10, "train.batch_size": 16,
            "train.ema_decay": 0.5, "train.lr_warmup": 0, "train.print_freq": 10, "train.sample_steps": 2,
        },
    ),
}  # fmt: skip
"""By the same names: the whole way in a minute, to see that it works here."""
