"""How long the kernels of the CIFAR-10 network take to compile for a Hopper GPU, which needs none.

    python benchmarks/compile_time.py --out benchmarks/results/NAME.json

One after the other, as a training step meets them, and together (ddpm_ip.nn.fused.launch), each in a process and with a
cache of its own, the network's operations on the CPU included. They are those of a step in bf16, forward and backward.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import torch

from ddpm_ip.config import load
from ddpm_ip.run.provenance import provenance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", choices=("together", "apart"), help="measure one of the two here, and print it")
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args.only == "together")))
        return
    here = provenance()
    result = {
        "date": date.today().isoformat(),
        **{key: here[key] for key in ("hardware", "versions", "git")},
        "made_by": "benchmarks/compile_time.py",
        **{how: fresh(how) for how in ("apart", "together")},
    }
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def fresh(how: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as cache:
        environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": cache}
        done = subprocess.run([sys.executable, __file__, "--only", how], stdout=subprocess.PIPE, env=environment)
        done.check_returncode()
        return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(together: bool) -> dict[str, float]:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    from ddpm_ip.nn.fused.launch import compile_together
    from ddpm_ip.nn.fused.operations import Shadow

    class Hopper:
        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", 90, 32)

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int | None = None) -> int:
            return 0

    driver.set_active(Hopper())
    run, compiled = JITFunction.run, []
    triton.knobs.compilation.listener = lambda src, **_: compiled.append(src.name)
    network = load(Path("configs/ddpm_ip_cifar10.yaml"), {}).build_network()
    shadow = Shadow(network, torch.bfloat16)
    images = 8
    shadow.masks.keys = torch.zeros(images, dtype=torch.int64)

    def step() -> None:
        shadow(torch.zeros(images, 3, 32, 32), torch.zeros(images).long()).float().sum().backward()

    def compile_only(self: JITFunction, *args: object, grid: object, warmup: bool, **options: object) -> object:
        return run(self, *args, grid=grid, warmup=True, **options)

    start = time.monotonic()
    if together:
        compile_together(step)
    else:
        JITFunction.run = compile_only
        step()
    seconds = time.monotonic() - start
    JITFunction.run = compile_only
    start = time.monotonic()
    step()  # once more, with nothing left to compile
    return {"kernels": len(compiled), "seconds": round(seconds, 1), "again": round(time.monotonic() - start, 1)}


if __name__ == "__main__":
    main()
