"""What gradient checkpointing saves: bytes that one image leaves for the backward pass, plain path, float32, on a CPU.

python benchmarks/kept_activations.py --out benchmarks/results/NAME.json
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddpm_ip.config import load
from ddpm_ip.nn.blocks import Residual, recompute_blocks
from ddpm_ip.run.provenance import provenance

CONFIGS = ("adm_ip_cifar10", "ddpm_ip_cifar10", "adm_ip_celeba64")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    here, rows = provenance(), {}
    for name in CONFIGS:
        config = load(f"configs/{name}.yaml")
        network = config.build_network().train()
        images = torch.randn(1, *config.shape)
        plain = kept(network, images)
        recompute_blocks(network)
        rows[name] = {"plain": plain, "gradient_checkpointing": kept(network, images)}
        print(name, rows[name])
    result = {
        "date": date.today().isoformat(),
        **{key: here[key] for key in ("hardware", "versions", "git")},
        "made_by": "benchmarks/kept_activations.py",
        "bytes_of_one_image": rows,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")


def kept(network: nn.Module, images: Tensor) -> int:
    """Bytes that a forward pass keeps, without the network's own weights; each piece of memory counts once."""
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    found: dict[int, Tensor] = {}

    def note(*tensors: Any) -> None:
        for tensor in tensors:
            if isinstance(tensor, tuple):
                note(*tensor)
            elif isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in own:
                found[tensor.untyped_storage().data_ptr()] = tensor  # held, so that its place is not given away

    def pack(tensor: Tensor) -> Tensor:
        note(tensor)
        return tensor

    for module in network.modules():
        if isinstance(module, Residual) and module.recompute:  # keeps what goes in, which no hook below sees
            module.register_forward_pre_hook(lambda module, inputs: note(inputs))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        network(images, torch.tensor([3]))
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


if __name__ == "__main__":
    main()
