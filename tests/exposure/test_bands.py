"""The energy of images by frequency band."""

from __future__ import annotations

import pytest
import torch

from ddpm_ip.exposure.bands import energies, finest_of_noise
from ddpm_ip.exposure.curves import BANDS


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_energies_add_up_and_are_those_of_plain_waves() -> None:
    found = energies(normal(5, 3, 16, 24))
    mean = normal(5, 3, 16, 24).square().flatten(1).mean(dim=1)
    torch.testing.assert_close(found[:, :4].sum(dim=1), mean)
    torch.testing.assert_close(found[:, 4:].sum(dim=1), mean)
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).tile(8, 8)[None, None]
    for image, bands in ((board, {"haar3", "ring3"}), (torch.ones(1, 1, 16, 16), {"haar0", "ring0"})):
        assert {name for name, energy in zip(BANDS, energies(image)[0], strict=True) if energy > 1e-6} == bands


@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_the_finest_detail_of_noise_is_known(size: tuple[int, int]) -> None:
    found = energies(normal(4000, 1, *size))[:, 3]
    assert finest_of_noise(*size) == pytest.approx(float(found.mean()), abs=4 * float(found.std()) / 4000**0.5)
