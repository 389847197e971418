"""Spherical interpolation against its closed form."""

from __future__ import annotations

import math

import pytest
import torch

from ddpm_ip.sampler import slerp


@pytest.mark.parametrize("angle", [0.3, math.pi / 2, 3.0])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_a_point_on_the_arc(angle: float, share: float) -> None:
    """Between unit vectors of a plane the angle is divided; another length of an end is another weight of it."""
    basis = torch.linalg.qr(torch.randn(48, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0].T
    first, other = basis.reshape(2, 3, 4, 4)
    a, b = first[None], (math.cos(angle) * first + math.sin(angle) * other)[None]
    expected = math.cos(share * angle) * a + math.sin(share * angle) * other
    torch.testing.assert_close(slerp(a, b, share), expected, atol=1e-12, rtol=0)
    longer = slerp(a, 2 * b, share) - slerp(a, b, share)
    torch.testing.assert_close(longer, math.sin(share * angle) / math.sin(angle) * b, atol=1e-12, rtol=0)


def test_each_pair_of_a_batch_has_an_angle_of_its_own() -> None:
    """xyfJASON's script takes one angle of the whole batch, so that a strip depends on those beside it."""
    a, b = torch.randn(2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    together = slerp(a, b, 0.3)
    assert together.dtype == torch.float32
    for i in range(5):
        torch.testing.assert_close(slerp(a[i : i + 1], b[i : i + 1], 0.3), together[i : i + 1])
    radii = [z.flatten(1).norm(dim=1) for z in (a, together, b)]
    assert (radii[1] > 0.9 * torch.minimum(radii[0], radii[2])).all(), "it does not fall below those of its ends"


def test_the_ends_are_exact_and_one_direction_is_a_line() -> None:
    a, b = torch.randn(2, 4, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    assert torch.equal(slerp(a, b, 0.0), a)
    assert torch.equal(slerp(a, b, 1.0), b)
    torch.testing.assert_close(slerp(a, 3 * a, 0.25), 1.5 * a)
