"""The GPU kernels compile for a Hopper GPU, which needs none; the interpreter lets pass what the compiler does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

SHARED = 227 << 10  # bytes of shared memory that a program can have on a Hopper GPU

# Every kernel is compiled when it would be launched, and then is not. The results are memory that nobody has written.
# First all of them together, in threads; then one after the other, as they are met, when nothing must be left to do.
PROGRAM = """
import json, re, threading
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

class Hopper:
    def get_current_target(self): return GPUTarget("cuda", 90, 32)
    def get_current_device(self): return 0
    def get_current_stream(self, device=None): return 0

driver.set_active(Hopper())
launch, found, compiled = JITFunction.run, [], []

def compiling(src, metadata, **_):
    compiled.append((src.name, threading.current_thread() is threading.main_thread()))

triton.knobs.compilation.listener = compiling

def compile_only(self, *args, grid, warmup, **options):
    kernel = launch(self, *args, grid=grid, warmup=True, **options)
    wide = len(re.findall(r"(?:ld|st)[.]global[^;]*v4", kernel.asm["ptx"]))
    modulated = "_norm" in self.__name__ and all(a is not None for a in args)
    found.append((self.__name__ + ", modulated" * modulated, wide, kernel.metadata.shared))

from ddpm_ip import draws_kernel
from ddpm_ip.nn.fused.operations import Shadow
from ddpm_ip.nn.fused.launch import compile_together
from ddpm_ip.nn.adm import ADM, ADMConfig
from ddpm_ip.nn.unet import UNet

sizes = {"dim": 32, "dim_mults": (1, 2), "use_attn": (False, True), "num_res_blocks": 1, "num_groups": 8}
unet, adm = UNet(3, 3, **sizes, dropout=0.6), ADM(ADMConfig(**sizes, dropout=0.6, attention_order="legacy"), 3, 3)
shadows = [Shadow(network, torch.bfloat16) for network in (unet, adm)]

def work():
    for shadow in shadows:
        shadow.masks.keys = torch.zeros(2, dtype=torch.int64)
        shadow(torch.zeros(2, 3, 16, 16), torch.zeros(2).long()).float().sum().backward()

compile_together(work)
together = len(compiled)
JITFunction.run = compile_only
work()
left = compiled[together:]
rows, step = torch.arange(2), torch.tensor(3)
draws_kernel.normal(rows, step, 2**64 - 1, 1, (3, 8, 8))
draws_kernel.bits(rows, step, 5, 1, 1)
print(json.dumps({"found": found, "together": compiled[:together], "left": left}))
"""


def test_every_kernel_compiles_and_moves_sixteen_bytes_at_a_time(tmp_path: object) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    found = result["found"]
    names = {name for name, *_ in found}
    kernels = {
        "_norm_forward", "_norm_backward", "_add", "_add_product", "_column_sum", "_frame", "_pick", "_spread", "_fold",
        "_halve", "_double", "_phases", "_phases_gradient", "_draw",
    }  # fmt: skip
    assert names == kernels | {"_norm_forward, modulated", "_norm_backward, modulated"}
    for name in names - {"_draw", "_column_sum", "_phases", "_phases_gradient"}:
        assert any(wide > 0 for n, wide, _ in found if n == name), f"{name} moves single numbers"
    assert max(shared for *_, shared in found) <= SHARED
    assert {name for name, _ in result["together"]} == kernels - {"_draw"}
    assert not any(in_main_thread for _, in_main_thread in result["together"])
    assert result["left"] == []
