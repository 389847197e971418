"""What the official code makes of DINOv2 networks whose weights come from a seed; its numbers are in the JSON file.

The tests read the file. To record it again, with torch-fidelity installed and a copy of facebookresearch/dinov2 (it was
commit b8931f7bf91576930313be2c6d6af376033b35f0, torch 2.13.0 on a CPU)::

    python tests/evaluate/extractors/dinov2_oracle.py FOLDER_OF_DINOV2

Nothing of our own network takes part in that: the networks are the official ones, and images become features in
torch-fidelity's own ``FeatureExtractorDinoV2``, whose download by ``torch.hub`` is replaced by that folder.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

FILE = Path(__file__).with_suffix(".json")
OFFICIAL = {size: f"dinov2_vit{size}14" for size in "sblg"}
TINY = {"embed_dim": 40, "depth": 3, "num_heads": 2}  # a giant in small: 4 * 40 * 2 / 3 is no multiple of 8


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in sorted(state.items())}


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of all names and shapes."""
    return hashlib.sha256(json.dumps(shapes_of(state)).encode()).hexdigest()


def weights(state: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Numbers in place of those of a network: none of its parts is without effect, and features are not near zero."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in shapes_of(state).items():
        noise = torch.from_numpy(2 * rng.random(shape, dtype=np.float32) - 1)
        if name.endswith(("gamma", "norm.weight", "norm1.weight", "norm2.weight")):
            found[name] = 0.7 + 0.3 * noise
        elif name.endswith("weight"):
            found[name] = noise * (6 / noise[0].numel()) ** 0.5
        else:
            found[name] = noise
    found["cls_token"] *= 0.005  # small, so that the epsilon of the normalizations counts
    found["pos_embed"][:, 0] *= 0.005
    return found


def images() -> list[Tensor]:
    """``uint8`` (2, 3, 32, 32), which is enlarged, and (1, 3, 250, 300), which is reduced; smooth and noisy."""
    rng = np.random.default_rng(2)
    sizes = [(2, 32, 32), (1, 250, 300)]
    found = []
    for n, height, width in sizes:
        wave = np.sin(np.linspace(0, 9, height))[:, None] * np.cos(np.linspace(0, 7, width))
        phase = rng.random((n, 3, 1, 1))
        noise = rng.random((n, 3, height, width))
        found.append(torch.from_numpy((255 * (0.25 + 0.25 * wave * phase + 0.5 * noise)).astype(np.uint8)))
    return found


def torchvision() -> SimpleNamespace:
    """What torch-fidelity's extractor takes from torchvision: ``transforms.functional.normalize``."""

    def normalize(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...], inplace: bool) -> Tensor:
        m, s = (torch.tensor(numbers).view(-1, 1, 1) for numbers in (mean, std))
        return (x - m) / s

    return SimpleNamespace(transforms=SimpleNamespace(functional=SimpleNamespace(normalize=normalize)))


def record(folder: str) -> dict[str, Any]:
    sys.path.insert(0, folder)
    from dinov2.hub import backbones
    from dinov2.models.vision_transformer import DinoVisionTransformer

    from ddpm_ip.evaluate.extractors.inception import import_torch_fidelity

    theirs = import_torch_fidelity().feature_extractor_dinov2
    theirs.torchvision = torchvision()

    def features(network: torch.nn.Module, seed: int) -> list[list[float]]:
        network.load_state_dict(weights(network.state_dict(), seed))
        torch.hub.load = lambda *_: network
        extractor = theirs.FeatureExtractorDinoV2("dinov2-vit-s-14", ["dinov2"])
        rows = torch.cat([extractor(batch)[0] for batch in images()])
        return [[float(f"{x:.8g}") for x in row] for row in rows.tolist()]

    kwargs = {"img_size": 518, "patch_size": 14, "init_values": 1.0, "ffn_layer": "swiglufused", "block_chunks": 0}
    with torch.device("meta"):
        shapes = {
            name: fingerprint(getattr(backbones, name)(pretrained=False).state_dict()) for name in OFFICIAL.values()
        }
    return {
        "shapes_sha256": shapes,
        "vit_s": features(backbones.dinov2_vits14(pretrained=False), 0),
        "tiny_swiglu": features(DinoVisionTransformer(**kwargs, **TINY), 1),
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(record(sys.argv[1])) + "\n", encoding="utf-8")
