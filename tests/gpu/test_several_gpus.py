"""Several GPUs, and several nodes of one GPU each on one machine: `pytest tests/gpu -m gpu`, by hand."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpm_ip.config import from_dict

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")]

ROOT = Path(__file__).parents[2]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
# NCCL takes processes of different names of a host for those of different machines, and speaks through sockets.
NODE = {"NCCL_SOCKET_IFNAME": "lo", "NCCL_IB_DISABLE": "1"}
FOLLOWING = {"train.times.name": "loss_second_moment", "classes.count": 10, "diffusion.total_steps": 20}


def config_file(path: Path, **more: Any) -> Path:
    """A tiny network on the digits, in float32, with dropout."""
    model = {"in_channels": 1, "dim": 32, "dim_mults": [1, 2], "use_attn": [False, True], "num_groups": 8}
    training = {"n_steps": 200, "batch_size": 64, "flip": False, "sample_freq": 0, "save_freq": 100, "print_freq": 1}
    tree = {"data": {"name": "digits"}, "model": model, "train": {**training, "mixed_precision": "no"}}
    path.write_text(from_dict(tree, overrides=more).to_yaml())
    return path


def together(gpus: int, *arguments: object) -> None:
    """A program on so many GPUs of one node."""
    command = [*TORCHRUN, "--standalone", f"--nproc_per_node={gpus}", *map(str, arguments)]
    subprocess.run(command, check=True, cwd=ROOT)


def on_two_nodes(*arguments: object) -> None:
    """A program on two nodes, each of which sees one GPU and no other way to the other node than the network."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    there = [*TORCHRUN, "--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1", f"--master_port={port}"]
    nodes = [
        subprocess.Popen(
            [*there, f"--node_rank={node}", *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, **NODE, "CUDA_VISIBLE_DEVICES": str(node), "NCCL_HOSTID": f"node{node}"},
        )
        for node in range(2)
    ]
    assert [node.wait() for node in nodes] == [0, 0]


def trained(config: Path, run: Path, where: int | str) -> list[float]:
    """The losses of all steps."""
    command = ("scripts/train_ddpm_ip.py", "-c", config, "-e", run)
    on_two_nodes(*command) if where == "nodes" else together(int(where), *command)
    assert "fast path (float32)" in (run / "log.txt").read_text()
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module", params=[{}, FOLLOWING], ids=["uniform times", "times that follow from the losses"])
def one(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    home = tmp_path_factory.mktemp("one")
    config = config_file(home / "config.yaml", **request.param)
    return config, trained(config, home / "run", 1)


@pytest.mark.parametrize("where", [2, 4, "nodes"])
def test_they_train_as_one(one: tuple[Path, list[float]], tmp_path: Path, where: int | str) -> None:
    """Also where the graph gathers the losses of all, from which the next times follow."""
    if where != "nodes" and torch.cuda.device_count() < int(where):
        pytest.skip(f"needs {where} GPUs")
    config, alone = one
    apart = np.abs(np.array(trained(config, tmp_path / "run", where)) - np.array(alone))
    if "loss_second_moment" not in config.read_text():
        assert apart.max() < 1e-3
        return
    # A rounding of the losses can move a time that follows from them, and with it the loss of a row and what follows
    assert (apart < 1e-3).mean() > 0.9, f"the losses are apart: {apart.tolist()}"
    assert apart.max() < 0.1


def test_they_make_the_same_images(one: tuple[Path, list[float]], tmp_path: Path) -> None:
    run, found = one[0].parent / "run", {}
    for where in (1, 2, 4, "nodes"):
        if where == "nodes" or torch.cuda.device_count() >= int(where):
            folder = tmp_path / str(where)
            command = ("scripts/sample_uncond.py", "--weights", run, "--n_samples", 100, "--save_dir", folder)
            command = (*command, "--respace_steps", 5, "--batch_size", 16)
            on_two_nodes(*command) if where == "nodes" else together(int(where), *command)
            pictures = sorted(folder.glob("*.png"))
            found[where] = [hashlib.sha256(path.read_bytes()).hexdigest() for path in pictures]
    assert len(set(found[1])) == 100
    assert all(hashes == found[1] for hashes in found.values())


def test_nodes_continue_what_gpus_began(one: tuple[Path, list[float]], tmp_path: Path) -> None:
    """And their log tells how many there are."""
    config = config_file(tmp_path / "config.yaml", **{"train.n_steps": 20, "train.save_freq": 10})
    run = tmp_path / "run"
    together(2, "scripts/train_ddpm_ip.py", "-c", config, "-e", run, "--train.n_steps", 10)
    on_two_nodes("scripts/train_ddpm_ip.py", "-e", run, "-r", "latest", "--train.n_steps", 20)
    assert "continuing from" in (run / "log.txt").read_text()
    assert "on 2 nodes" in (run / "log.txt").read_text()
