"""The learning rate against torch's own schedulers, and what the formulas leave no doubt of."""

import math

import pytest
import torch
from tests.tiny import tiny
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR

from ddpm_ip.train.step import learning_rate

STEPS, RATE = 40, 3e-4


def ours(name, warmup=0, **settings):
    schedule = {"name": name, **settings}
    config = tiny(n_steps=STEPS, lr_warmup=warmup, lr_schedule=schedule, optim={"lr": RATE})
    return [learning_rate(config, step) for step in range(STEPS)]


def theirs(scheduler, steps, **settings):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    found = scheduler(optimizer, **settings)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        found.step()
    return rates


@pytest.mark.parametrize("warmup", [0, 7])
@pytest.mark.parametrize("end", [0.0, 0.1])
def test_linear_and_cosine_are_torchs_after_the_warm_up(end, warmup):
    left = STEPS - warmup
    line = theirs(LinearLR, left, start_factor=1.0, end_factor=end, total_iters=left)
    wave = theirs(CosineAnnealingLR, left, T_max=left, eta_min=end * RATE)
    rising = [RATE * (step + 1) / warmup for step in range(warmup)]
    assert ours("linear", warmup, end=end) == pytest.approx([*rising, *line], rel=1e-9)
    assert ours("cosine", warmup, end=end) == pytest.approx([*rising, *wave], rel=1e-9)


@pytest.mark.parametrize("warmup", [0, 7])
def test_inverse_sqrt_is_the_papers(warmup):
    def factor(step):
        return 1 / math.sqrt(max(step / 9, 1)) * (min(1, (step + 1) / warmup) if warmup else 1)

    assert ours("inverse_sqrt", warmup, reference=9) == pytest.approx(theirs(LambdaLR, STEPS, lr_lambda=factor), 1e-12)
    assert ours("inverse_sqrt", reference=9)[36] == RATE / 2


@pytest.mark.parametrize("warmup", [0, 7, 5 * STEPS])
def test_constant_is_to_the_bit_what_it_was(warmup):
    before = [RATE * min(1.0, (step + 1) / warmup if warmup else 1.0) for step in range(STEPS)]
    assert ours("constant", warmup) == before


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_a_warm_up_of_all_steps_leaves_nothing_to_fall(name):
    assert ours(name, STEPS) == ours("constant", STEPS)
