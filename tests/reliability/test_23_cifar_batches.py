"""The CIFAR-10 batches are pickles, and reading one runs nothing, whatever is in it.

The official ones are known by their MD5; any other is read by stand-in classes that only record. Each trick by itself,
also those that crash or fill the process, is in tests/data/test_cifar10.py and tests/data/test_batches.py.
"""

import os
import pickle

import pytest
import yaml
from tests.data.conftest import cifar_batches, tar_gz
from tests.tiny import alone, tree

from ddpm_ip.cli import main


class Evil:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


def command(tmp_path, root):
    data = {"name": "cifar10", "root": str(root), "split": "train"}
    model = {"in_channels": 3}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**tree(model, n_steps=1), "data": data}))
    return main(["train", "-c", str(tmp_path / "c.yaml"), "-e", str(tmp_path / "run")])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_an_evil_batch_among_good_ones(tmp_path, capsys, packed, protocol):
    sentinel = tmp_path / "owned"
    batches = {name: content for name, (content, _, _) in cifar_batches("train").items()}
    evil = {b"data": Evil(os.system, f"touch {sentinel}"), b"labels": Evil(open, str(sentinel), "w")}
    batches["data_batch_3"] = pickle.dumps(evil, protocol=protocol)
    root = tmp_path / "cifar"
    root.mkdir()
    if packed:
        tar_gz(root / "cifar-10-python.tar.gz", {f"cifar-10-batches-py/{k}": v for k, v in batches.items()})
    else:
        for name, content in batches.items():
            (root / name).write_bytes(content)
    assert command(tmp_path, root) == 1
    assert "data_batch_3: refused" in capsys.readouterr().err
    assert not sentinel.exists()
    assert not (tmp_path / "run" / "ckpt").exists()


def test_good_ones_are_trained_on(tmp_path):
    root = tmp_path / "cifar"
    root.mkdir()
    for name, (content, _, _) in cifar_batches("train").items():
        (root / name).write_bytes(content)

    def call():
        assert command(tmp_path, root) == 0

    assert alone(call) == 0
