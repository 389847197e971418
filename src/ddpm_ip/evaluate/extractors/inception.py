"""The Inception network of FID: torch-fidelity's copy of the 2015 TensorFlow graph, without torchvision."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_ip.errors import UserError
from ddpm_ip.evaluate.extractors import weights

SPATIAL_CHANNELS = 7  # of guided-diffusion's sFID


class Inception:
    """The features of FID, IS and KID (pool, logits), and of sFID (spatial), in float32 without TF32.

    * ``pool`` (B, 2048): the last pooling.
    * ``logits`` (B, 1008): the classes without their bias, which IS takes (as torch-fidelity and the original do).
    * ``spatial`` (B, 2023): the first 7 channels of ``mixed_6/conv``, 17 x 17 (as guided-diffusion's evaluator).

    Images of any size are resized to 299 x 299 as TensorFlow 1 did.

    Args:
        device: where.
        file: the weights; by default from :func:`ddpm_ip.evaluate.extractors.weights.weights_folders`.

    Raises:
        UserError: torch-fidelity or the weights are missing, or the file is not the one that it should be.
    """

    name = "inception"

    def __init__(self, device: torch.device, file: Path | None = None) -> None:
        state, self._sha256 = weights.read_weights(weights.INCEPTION, file)
        self._network = _build(state).to(device)
        self._spatial: list[Tensor] = []
        mixed_6 = self._network.get_submodule("Mixed_6d.branch1x1")
        mixed_6.register_forward_hook(lambda module, inputs, output: self._spatial.append(output))

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """``uint8`` (B, 3, H, W) to the features, ``float32``."""
        pool, logits = self._network(images)
        spatial = self._spatial.pop()[:, :SPATIAL_CHANNELS].flatten(1)
        return {"pool": pool, "logits": logits, "spatial": spatial}

    def identity(self) -> Mapping[str, Any]:
        """What the features depend on."""
        return {"weights_sha256": self._sha256, "resize": "299 x 299, bilinear as TensorFlow 1", "precision": "float32"}


def _build(state: dict[str, Tensor]) -> nn.Module:
    """torch-fidelity's network with these weights."""
    module = import_torch_fidelity().feature_extractor_inceptionv3
    # Its constructor takes a file, which it unpickles, or fetches one; it is to take what was checked.
    fetch, module.load_state_dict_from_url = module.load_state_dict_from_url, lambda *_, **__: state
    try:
        network: nn.Module = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"])
    finally:
        module.load_state_dict_from_url = fetch
    return network


def import_torch_fidelity() -> Any:
    """The package ``torch_fidelity``, whether torchvision is there, absent, or broken.

    It imports torchvision for other things than are wanted here. A torchvision that was built for another torch cannot
    even be imported, and is common on machines without a GPU. So empty modules stand in for it while torch-fidelity is
    imported; left there, other packages would believe in them.

    Raises:
        UserError: torch-fidelity is not installed.
    """
    names = ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional")
    stubs = {} if "torchvision" in sys.modules else {name: types.ModuleType(name) for name in names}
    for name, stub in stubs.items():
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(stubs[parent], child, stub)
    for data in ("CIFAR10", "CIFAR100", "STL10") if stubs else ():
        setattr(stubs["torchvision.datasets"], data, type(data, (), {}))
    sys.modules.update(stubs)
    try:
        import torch_fidelity
    except ImportError as error:
        raise UserError(
            f"the Inception features need torch-fidelity ({error}): pip install --no-deps torch-fidelity. "
            "(--no-deps keeps torchvision, which is not needed, from replacing your torch)"
        ) from error
    finally:
        for name in stubs:
            sys.modules.pop(name, None)
    return torch_fidelity
