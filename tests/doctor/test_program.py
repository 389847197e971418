"""The doctor as a whole: its output, what it loads, and that what is broken does not break it."""

import json
import sys

import torch
from tests.doctor.look import levels, look
from tests.tiny import finish, start

from ddpm_ip.cli import main


def test_a_sound_machine(capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert torch.__version__ in shown
    assert "no problems" in shown
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["problems"] == 0
    assert {"torch", "accelerate", "extras", "weights", "disk", "cache", "torchvision"} <= {
        finding["what"] for finding in report["findings"]
    }


NEEDLESS = {"torchvision", "diffusers", "torch_fidelity", "matplotlib", "tensorboard", "pyarrow", "triton", "scipy"}


LOADED = """
import sys
from ddpm_ip.cli import main

assert main(["doctor", "-e", sys.argv[1]]) == 0
print("loaded", *sys.modules)
"""


def test_it_imports_no_package_that_it_only_names(trained):
    code, output = finish(start("-c", LOADED, trained))
    assert code == 0, output
    loaded = output.splitlines()[-1].split()
    assert "torch" in loaded
    assert not NEEDLESS & set(loaded)
    assert not [name for name in loaded if name.startswith(("torch._dynamo", "ddpm_ip.nn.fused", "ddpm_ip.train."))]


def test_a_check_that_breaks_is_a_finding(monkeypatch):
    monkeypatch.setitem(sys.modules, "ddpm_ip.evaluate.extractors.weights", None)
    findings = look()
    assert levels(findings["weights"]) == ["problem"]
    assert levels(findings["torch"]) == ["OK"]


def test_overrides_need_a_configuration(capsys):
    assert main(["doctor", "--train.n_steps", "3"]) == 2
    assert "-c" in capsys.readouterr().err
