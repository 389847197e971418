"""The energy of images by frequency band."""

from __future__ import annotations

import torch

from ddpm_ip.exposure.bands import energies, haar_energy
from ddpm_ip.exposure.curves import BANDS, HAAR
from ddpm_ip.sampler.correction.band_gains import LEVELS


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


def test_haars_bands_are_those_of_the_correction() -> None:
    assert 1 + LEVELS == HAAR
    torch.testing.assert_close(energies(normal(3, 3, 12, 7))[:, :HAAR], haar_energy(normal(3, 3, 12, 7)).float())
