"""What the distance without a network does not depend on, and what it does with images that say nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ddpm_ip.exposure.mismatch import Mismatch, statistics


def images(n: int, seed: int, channels: int = 3, contrast: float = 1.0) -> Tensor:
    """Smooth fields with more or less noise on them, (N, C, 8, 8) in [-1, 1]."""
    source = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, channels, 2, 2, generator=source).repeat_interleave(4, -1).repeat_interleave(4, -2)
    share = 0.02 + 0.08 * torch.rand(n, 1, 1, 1, generator=source)
    noise = torch.randn(n, channels, 8, 8, generator=source)
    return (0.3 * coarse + contrast * share * noise).clamp(-1, 1)


JUDGE = Mismatch.to(statistics(images(4000, seed=0)))


def test_order_and_mirrors_change_nothing() -> None:
    found = statistics(images(300, seed=1))
    shuffled = found[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    assert JUDGE(shuffled) == pytest.approx(JUDGE(found), rel=1e-5)
    assert JUDGE(statistics(images(300, seed=1).flip(-1))) == pytest.approx(JUDGE(found), rel=1e-4)


def test_a_small_sample_adds_as_much_to_every_mismatch_so_that_equal_numbers_compare() -> None:
    """About 1 / n of it: shares of equal n keep their order, and are nearer to 1 than those of many images."""
    few, many = (torch.tensor([JUDGE(statistics(images(n, seed))) for seed in range(5)]) for n in (200, 1600))
    assert float(few.mean() / many.mean()) == pytest.approx(8, rel=0.35)
    other = torch.tensor([JUDGE(statistics(images(200, seed, contrast=1.3))) for seed in range(5)])
    assert (other > few).all()


def test_what_is_the_same_in_all_real_images_is_left_out() -> None:
    """Gray images with three equal channels: a colour that is off by rounding must not outweigh everything else."""
    gray = images(600, 2, channels=1).expand(-1, 3, -1, -1)
    judge = Mismatch.to(statistics(gray))
    found = images(300, 3, channels=1).expand(-1, 3, -1, -1)
    coloured = found + torch.randn(300, 3, 8, 8, generator=torch.Generator().manual_seed(0)) / 255
    assert judge(statistics(coloured)) == pytest.approx(judge(statistics(found)), rel=0.2)
    one = Mismatch.to(statistics(images(600, 2, channels=1)))
    assert judge(statistics(found)) == pytest.approx(one(statistics(found[:, :1])), rel=1e-5)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 12), (2, 7, 9)])
def test_images_that_are_all_one_colour_are_far_from_others_and_near_to_themselves(shape: tuple[int, int, int]) -> None:
    black = statistics(torch.full((50, *shape), -1.0))
    assert black.isfinite().all()
    assert Mismatch.to(black)(black) == 0
    real = torch.rand(200, *shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert math.isfinite(found := Mismatch.to(statistics(real))(black))
    assert found > 100
