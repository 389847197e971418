"""FD-C56 (cifar_features.py) as an extractor of one's own for ``ddpm-ip evaluate``; the pattern to copy for another.

    PYTHONPATH=benchmarks C56_CLASSIFIER=resnet56-4bfd9763.th \
        ddpm-ip evaluate SAMPLES --reference cifar10-train --extractor c56:C56 --metrics fid,isc

The classifier is the published CIFAR-10 ResNet-56 of akamaster/pytorch_resnet_cifar10. FD-C56 and CS-C56 are NOT
comparable with FID and IS. FD-C56 is that of cifar_features.py; CS-C56 splits the images at random, as the Inception
score does, where cifar_features.py takes them in order, so it differs a little in the spread.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from cifar_features import load_extractor
from torch import Tensor

from ddpm_ip.errors import UserError

# The standard deviation of each feature over the 50,000 training images, by which it is divided.
SCALE = Path(__file__).with_name("c56_scale.json")


class C56:
    """``pool`` (B, 160), scaled, and ``logits`` (B, 10), of ``uint8`` (B, 3, 32, 32).

    Args:
        device: where.
        weights: the classifier's file; by default the one that ``$C56_CLASSIFIER`` names.
    """

    name = "C56"

    def __init__(self, device: torch.device, weights: Path | None = None) -> None:
        path = weights or Path(os.environ.get("C56_CLASSIFIER", ""))
        if not path.is_file():
            raise UserError("C56_CLASSIFIER must name the file resnet56-4bfd9763.th (benchmarks/README.md)")
        self._sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self._network = load_extractor(str(device), path)
        colour = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], device=device)
        self._mean, self._std = colour[:, :, None, None]
        self._scale = torch.tensor(json.loads(SCALE.read_text())["scale"], dtype=torch.float64, device=device)

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        if images.shape[1:] != (3, 32, 32):
            raise UserError(f"C56 judges 3 x 32 x 32 images, not {tuple(images.shape[1:])}")
        features, logits = self._network((images.float() / 255 - self._mean) / self._std)
        return {"pool": features.double() / self._scale, "logits": logits}

    def identity(self) -> Mapping[str, Any]:
        return {
            "weights_sha256": self._sha256,
            "scale_sha256": hashlib.sha256(SCALE.read_bytes()).hexdigest(),
            "resize": "none",
        }
