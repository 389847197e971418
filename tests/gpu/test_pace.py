"""The speed in operations that a run tells of on a GPU, and that measuring it leaves nothing behind."""

import json
import subprocess
import sys

import pytest
import torch
from tests.tiny import run, tiny

from ddpm_ip.engine import start_device
from ddpm_ip.flops import peak_tflops

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]


FRESH = """
import torch
from ddpm_ip.engine import start_device
from ddpm_ip.flops import peak_tflops

device = torch.device("cuda", torch.cuda.current_device())
torch.zeros(1, device=device)
torch.cuda.synchronize()
torch.cuda.empty_cache()
state, held = torch.cuda.get_rng_state(), torch.cuda.memory_reserved()
assert peak_tflops(device) > 1
assert torch.equal(torch.cuda.get_rng_state(), state)
left = torch.cuda.memory_reserved() - held
assert left < 2**27, f"{left} bytes, and only the workspace of the product may stay"
"""


def test_the_peak_leaves_no_memory_and_no_draw_behind():
    """In a process that has not multiplied anything before, where libraries take what they keep."""
    subprocess.run([sys.executable, "-c", FRESH], check=True)


def test_a_run_tells_of_its_share_of_the_peak(tmp_path):
    run(tiny(n_steps=3), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    peak = peak_tflops(start_device())  # the one that the run measured: another would be of another moment
    for line in lines:
        assert 0 < line["share_of_peak"] < 1
        assert line["tflops"] == pytest.approx(line["share_of_peak"] * peak, rel=1e-3)
    assert "TFLOP/s (" in (tmp_path / "log.txt").read_text()
