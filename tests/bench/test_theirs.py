"""The rival is a fair one: the same network, and it learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tests.tiny import tiny

from ddpm_ip.bench import theirs
from ddpm_ip.config import from_dict
from ddpm_ip.errors import ConfigError

WIDER = {"in_channels": 3, "n_heads": 2, "dim_mults": [1, 2, 2], "use_attn": [False, True, True]}


OTHER = {"padding": "both", "norm_eps": 1e-5, "head_channels": 4, "freq_shift": 0}


@pytest.mark.parametrize("model", [{}, WIDER, OTHER])
def test_the_rival_has_the_same_network(model: dict[str, Any]) -> None:
    config = tiny(model)
    same = [
        sum(p.numel() for p in network.parameters()) for network in (config.build_network(), theirs._network(config))
    ]
    assert same[0] == same[1]
    dropout = {m.p for m in theirs._network(config).modules() if isinstance(m, torch.nn.Dropout) and m.p}
    assert dropout == {config.model.dropout}


def test_a_network_that_diffusers_does_not_have_is_refused() -> None:
    config = from_dict({"data": {"name": "digits"}, "model": {"name": "adm"}})
    with pytest.raises(ConfigError, match="no network like model"):
        theirs._network(config)


def test_the_rival_learns() -> None:
    """The loss of its step is that of predicting noise, and falls."""
    config = tiny(batch_size=32)
    step = theirs.train(config, Accelerator(cpu=True))
    losses = [step() for _ in range(30)]
    assert losses[0] == pytest.approx(1, abs=0.4)
    assert np.mean(losses[-5:]) < losses[0]
