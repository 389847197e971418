"""An Apple GPU is tried before it is used; what it computes wrongly, or not at all, sends everything to the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from tests.standin import standing_in
from tests.tiny import AcceleratorState

from ddpm_ip import apple, engine
from ddpm_ip.doctor import machine
from ddpm_ip.engine import start_device, start_engine
from ddpm_ip.run.provenance import hardware


@pytest.fixture
def mps(monkeypatch: pytest.MonkeyPatch) -> None:
    """An Apple GPU, which PyTorch says is there."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: True)
    apple.refused.cache_clear()


@pytest.fixture(autouse=True)
def forgotten() -> object:
    yield
    apple.refused.cache_clear()


def test_a_device_that_computes_as_the_cpu_does_has_no_fault() -> None:
    with standing_in() as device:
        assert apple.fault(device) is None


@pytest.mark.parametrize("what", apple.TRIED)
def test_what_comes_out_otherwise_is_a_fault(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = apple.TRIED[what]
    monkeypatch.setitem(apple.TRIED, what, lambda device: right(torch.device("cpu")) + (device.type != "cpu"))
    with standing_in() as device:
        assert str(apple.fault(device)).startswith(f"{what} come out otherwise")


def test_a_gpu_that_cannot_be_used_is_left_alone_with_a_line(mps: None, warnings_of: Callable[[], list[str]]) -> None:
    """This PyTorch has no operation for Apple's GPUs, as an older one lacks some of them."""
    assert start_engine(None).device.type == "cpu"
    AcceleratorState._reset_state(True)
    assert start_device().type == "cpu"
    (told,) = warnings_of()
    assert told.startswith("the Apple GPU is not used, and everything runs on the CPU: random words: ")


def test_a_gpu_without_fault_is_used(
    mps: None, monkeypatch: pytest.MonkeyPatch, warnings_of: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr(apple, "fault", lambda device: None)
    assert start_device().type == "mps"
    assert warnings_of() == []
    AcceleratorState._reset_state(True)


def test_several_processes_meet_on_the_cpu(mps: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apple, "fault", lambda device: None)
    assert not engine._on_cpu()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert engine._on_cpu()


@pytest.mark.parametrize("reason", [None, "random words come out otherwise"])
def test_the_doctor_and_a_run_say_what_computes(mps: None, monkeypatch: pytest.MonkeyPatch, reason: str | None) -> None:
    monkeypatch.setattr(apple, "fault", lambda device: reason)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 12 * 2**30)
    (finding,) = machine.gpus()
    if reason is None:
        assert (finding.level, finding.text) == ("OK", "Apple's (mps), 12 GiB; without the fast path")
        assert hardware().startswith("Apple GPU (mps), ")
    else:
        assert (finding.level, finding.text) == ("note", f"an Apple GPU that is not used: {reason}")
        assert "CPU core" in hardware()


@pytest.mark.parametrize(("system", "said"), [("darwin", "1"), ("linux", "None")])
def test_on_a_mac_pytorch_is_told_to_compute_what_it_lacks_on_the_cpu(system: str, said: str) -> None:
    """PyTorch reads that when it is loaded, so a process of its own is asked."""
    code = f"import sys; sys.platform = {system!r}; import os; import ddpm_ip; "
    code += "assert 'torch' not in sys.modules; print(os.environ.get('PYTORCH_ENABLE_MPS_FALLBACK'))"
    env = {k: v for k, v in os.environ.items() if k != "PYTORCH_ENABLE_MPS_FALLBACK"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == said
