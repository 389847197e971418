"""Where the time of a training step goes on a GPU: milliseconds by kind of kernel, plain path and fast path.

    python benchmarks/profile_step.py --batch 512 --out benchmarks/results/NAME.json [--key value ...]

The network, recipe and random images are those of `ddpm-ip bench`. The plain path runs in bf16 too (autocast).
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState
from torch.profiler import ProfilerActivity, profile

from ddpm_ip.bench.measure import forget
from ddpm_ip.config import from_dict, merge, parse_overrides
from ddpm_ip.data.imageset import from_arrays
from ddpm_ip.engine import start_engine
from ddpm_ip.run.provenance import provenance
from ddpm_ip.train.loop import build

STEPS = 5
KINDS = {  # the first whose word is in the kernel's name
    "norm, forward": ("_norm_forward", "RowwiseMoments"),
    "norm, backward": ("_norm_backward", "ComputeInternalGradients", "GammaBeta"),
    "convolution, weights": ("wgrad",),
    "convolution, input": ("dgrad",),
    "convolution": ("fprop",),
    "attention": ("sdpa", "flash", "fmha", "cudnn::fusion"),
    "matrix product": ("nvjet", "gemm", "splitK", "_add_product"),
    "optimizer, average, clipping": ("multi_tensor", "NormTwoOps"),
    "sums": ("_column_sum", "reduce_kernel"),
    "joining": ("CatArray",),
    "doubling": ("_pick", "_spread", "_fold", "upsample"),
    "adding, copying, elementwise": ("_add", "_frame", "elementwise", "copy", "Memcpy", "Memset", "dropout"),
    "random numbers": ("_draw",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument(
        "--out", type=Path, default=Path(f"{Path(__file__).stem}.json"), help="default: %(default)s here"
    )
    args, rest = parser.parse_known_args()
    here = provenance()
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        **{key: here[key] for key in ("hardware", "versions", "git", "command")},
        "batch": args.batch,
        "unit": f"milliseconds of GPU time a step, mean of {STEPS}",
        "paths": {fast: step_profile(args.batch, fast, rest) for fast in ("off", "auto")},
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    for fast, found in result["paths"].items():
        print(f"fast {fast}: {found['kernels']:.0f} kernels, {found['sum_ms']:.2f} ms")
        for kind, ms in found["ms"].items():
            print(f"  {ms:8.2f}  {kind}")


def step_profile(batch: int, fast: str, overrides: list[str]) -> dict[str, Any]:
    """Kernels, and milliseconds by kind, of a step."""
    forget(torch.device("cuda"))
    AcceleratorState._reset_state(True)
    tree = {"data": {"name": "cifar10"}, "perturbation": {"name": "input", "gamma": 0.1}}
    given = {"train.batch_size": batch, "train.fast": fast, **parse_overrides(overrides)}
    config = from_dict(merge(tree, given))
    pixels = np.random.default_rng(0).integers(0, 256, (4096, *config.shape), dtype=np.uint8)
    images = from_arrays(pixels, None, "random", config.data.image_size, progress=False)
    _, step = build(config, images, start_engine("bf16"))
    for _ in range(5):
        step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(STEPS):
            step()
        torch.cuda.synchronize()
    sums: dict[str, float] = defaultdict(float)
    kernels = 0.0
    for event in seen.key_averages():
        if event.device_time_total > 0:
            sums[kind(event.key)] += event.device_time_total / 1000 / STEPS
            kernels += event.count / STEPS
    ordered = dict(sorted(sums.items(), key=lambda item: -item[1]))
    return {"kernels": kernels, "sum_ms": sum(sums.values()), "ms": {k: round(v, 3) for k, v in ordered.items()}}


def kind(name: str) -> str:
    return next((kind for kind, words in KINDS.items() if any(word in name for word in words)), "other")


if __name__ == "__main__":
    main()
