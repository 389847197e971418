"""Pickled weights (.pt, .pth, .ckpt, .bin) run nothing, whoever they are from: tensors are read, the rest is refused.

What is read of networks from elsewhere is in tests/interop, with more of what is refused. The published weights of
evaluators are read by their SHA-256 and with ``weights_only`` (theme 17, and tests/evaluate/extractors).
"""

import pickle

import pytest
import torch
from tests.tiny import step_folder

from ddpm_ip.cli import main


class Evil:
    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return (open, (self.sentinel, "w"))


def sampled(trained, tmp_path, weights):
    given = [
        "-c",
        str(trained / "config.yaml"),
        "--save_dir",
        str(tmp_path / "a"),
        "--n_samples",
        "2",
        "--respace_steps",
        "2",
    ]
    return main(["sample", "--weights", str(weights), *given])


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "model.ckpt", "pytorch_model.bin", "ema.safetensors"])
@pytest.mark.parametrize("kind", ["pickle", "torch", "torch of old"])
def test_an_evil_file_is_refused_and_not_executed(trained, tmp_path, capsys, name, kind):
    path, evil = tmp_path / name, Evil(str(tmp_path / "executed"))
    if kind == "pickle":
        path.write_bytes(pickle.dumps(evil))
    else:
        torch.save({"state": evil}, path, _use_new_zipfile_serialization=kind == "torch")
    assert sampled(trained, tmp_path, path) == 1
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "a").exists()
    said = capsys.readouterr().err
    assert name in said
    assert "safetensors" in said
    assert "Traceback" not in said


def test_an_honest_pickle_of_no_known_network_is_refused(trained, tmp_path, capsys):
    """A safetensors file of the same weights is taken: they are this program's own, which it writes as such."""
    from safetensors.torch import load_file

    weights = load_file(step_folder(trained, 6) / "ema.safetensors")
    torch.save(weights, tmp_path / "ema.pt")
    assert sampled(trained, tmp_path, tmp_path / "ema.pt") == 1
    assert "of no format that is known here" in capsys.readouterr().err
    assert sampled(trained, tmp_path, step_folder(trained, 6) / "ema.safetensors") == 0
