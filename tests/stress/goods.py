"""Good files, made by ddpm-ip itself, once in a program; cases damage copies of them."""

from __future__ import annotations

import atexit
import gzip
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from PIL import Image
from tests.stress.cases import SCRATCH
from tests.tiny import options, run, tiny, tree

from ddpm_ip.config import Config, load
from ddpm_ip.evaluate.program import EvaluateOptions, evaluate_files
from ddpm_ip.report.page import write_report
from ddpm_ip.sample.calibrated import keep
from ddpm_ip.sample.program import sample
from ddpm_ip.sampler import DDIM
from ddpm_ip.sampler.correction import Auto
from ddpm_ip.sampler.sampling import Sampling
from ddpm_ip.table.program import TableOptions, table

RUN = {
    "n_steps": 6,
    "save_freq": 2,
    "print_freq": 1,
    "sample_freq": 6,
    "eval": {"every": 3, "n_samples": 8, "steps": 2},
}
TABLE = TableOptions(steps=(2,), n_samples=8, extractor="pixels", sampling=Sampling(block=8))
SAMPLES = options(n_samples=8, batch_size=4, respace_steps=2)
FORMATS = {
    "png": "PNG",
    "jpg": "JPEG",
    "webp": "WEBP",
    "gif": "GIF",
    "bmp": "BMP",
    "tif": "TIFF",
    "ppm": "PPM",
    "jp2": "JPEG2000",
}


@cache
def good(name: str) -> Path:
    """The folder of good files of that name."""
    folder = _shelf() / name
    folder.mkdir()
    MAKERS[name](folder)
    return folder


@cache
def _shelf() -> Path:
    folder, owner = Path(tempfile.mkdtemp(prefix="ddpm-ip-stress-", dir=SCRATCH)), os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(folder, ignore_errors=True))
    return folder


def config() -> Config:
    """Of the good run."""
    return tiny(**RUN)


def _run(folder: Path) -> None:
    """A finished run, as it would be on any machine: clocks, versions and hardware play no part in its bytes."""
    run(config(), folder)
    shutil.rmtree(folder / "tensorboard", ignore_errors=True)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    fixed = [{**line, "images_per_s": 1.0, "seconds": line["step"]} for line in lines]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in fixed))
    record = json.loads((folder / "provenance.json").read_text())
    record |= {"command": "train", "started": "2026-01-01", "versions": {"torch": "2"}, "hardware": "CPU", "git": None}
    (folder / "provenance.json").write_text(json.dumps(record, indent=1))
    (folder / "log.txt").write_text("step 6/6\n")


def _last(folder: Path) -> None:
    """A run with one checkpoint, so that there is no other to fall back on."""
    shutil.copytree(good("run"), folder, dirs_exist_ok=True)
    for path in sorted((folder / "ckpt").glob("step*"))[:-1]:
        shutil.rmtree(path)


def _with_table(folder: Path) -> None:
    shutil.copytree(good("run"), folder, dirs_exist_ok=True)
    table(load(folder / "config.yaml"), folder, TABLE)
    write_report([folder], good("empty") / "report.html")  # a first one may look for fonts, which takes a program


def _samples(folder: Path) -> None:
    sample(config(), good("run"), folder / "png", SAMPLES)
    sample(config(), good("run"), folder / "a.npz", SAMPLES)
    with np.load(folder / "a.npz") as arrays:
        np.save(folder / "a.npy", arrays["images"])
    for samples in ("png", "a.npz"):
        evaluate_files(folder / samples, EvaluateOptions("digits", extractor="pixels"))


def pixels(n: int = 6, channels: int = 3, side: int = 8) -> np.ndarray:
    """``uint8`` (N, H, W, C)."""
    return np.random.default_rng(0).integers(0, 256, (n, side, side, channels), dtype=np.uint8)


def _arrays(folder: Path) -> None:
    np.savez(folder / "a.npz", images=pixels(), labels=np.arange(6))
    np.savez_compressed(folder / "b.npz", images=pixels(channels=4), layout="channels_last")
    np.save(folder / "c.npy", pixels())


def _mnist(folder: Path) -> None:
    images = struct.pack(">IIII", 0x803, 6, 28, 28) + pixels(6, 1, 28).tobytes()
    labels = struct.pack(">II", 0x801, 6) + bytes(range(6))
    for kind, content in (("images-idx3", images), ("labels-idx1", labels)):
        (folder / f"train-{kind}-ubyte").write_bytes(content)
        (folder / f"t10k-{kind}-ubyte.gz").write_bytes(gzip.compress(content, mtime=0))


def _cifar(folder: Path) -> None:
    batches = {}
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        data = np.random.default_rng(len(batches)).integers(0, 256, (2, 3072), dtype=np.uint8)
        batch = {b"batch_label": b"a batch", b"labels": [1, 2], b"data": data, b"filenames": [b"a.png", b"b.png"]}
        batches[name] = pickle.dumps(batch, protocol=2)
    (folder / "unpacked").mkdir()
    for name, content in batches.items():
        (folder / "unpacked" / name).write_bytes(content)
    (folder / "packed").mkdir()
    with tarfile.open(folder / "packed" / "cifar-10-python.tar.gz", "w:gz") as tar:
        for name, content in batches.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def _encoded(image: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def _parquet(folder: Path) -> None:
    images = [{"bytes": _encoded(image, "PNG"), "path": f"{i}.png"} for i, image in enumerate(pixels())]
    pq.write_table(pa.table({"image": images, "label": list(range(6))}), folder / "train-0.parquet")


def _pictures(folder: Path) -> None:
    for ending, kind in FORMATS.items():
        (folder / ending).mkdir()
        for i, image in enumerate(pixels(2)):
            (folder / ending / f"{i}.{ending}").write_bytes(_encoded(image, kind))


def _texts(folder: Path) -> None:
    rows = [{"schema": 1, "step": i, "name": f"row {i}", "values": {"a": 0.5, "b": [1, None]}} for i in range(1, 5)]
    (folder / "object.json").write_text(json.dumps(rows[0], indent=1))
    (folder / "rows.json").write_text(json.dumps(rows, indent=1))
    (folder / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tree.yaml").write_text(yaml.safe_dump(tree(**RUN), sort_keys=False))
    (folder / "lock").write_text(json.dumps({"schema": 1, "pid": 2**22 + 1, "host": os.uname().nodename}))


def _weights(folder: Path) -> None:
    newest = sorted((good("run") / "ckpt").glob("step*"))[-1]
    shutil.copy(newest / "ema.safetensors", folder / "ema.safetensors")
    torch.save({"weight": torch.arange(12.0)}, folder / "extractor.pth")


CALIBRATED = Sampling(DDIM(), (Auto(),), steps=3)


def _calibration(folder: Path) -> None:
    chain = [{"name": "epsilon_scaling", "times": [0, 500], "scales": [0.99, 1.02]}, {"name": "dcw", "low": 0.01}]
    found = {
        "corrections": chain, "chosen": "a table", "why": "It is nearest.", "expects": ["Less."],
        "cannot_know": ["All."], "suggestions": {"perturbation.gamma": "0.15"},
        "candidates": [{"name": "a", "corrections": [], "mismatch": 0.1, "distance": None}],
        "curves": {"eps_norm.ratio": {"t": [0, 1], "value": [1.0, 1.1]}},
    }  # fmt: skip
    keep(CALIBRATED, config(), 64 * "0", folder, found)


MAKERS: dict[str, Callable[[Path], None]] = {
    "run": _run, "last": _last, "table": _with_table, "samples": _samples, "arrays": _arrays, "mnist": _mnist,
    "cifar": _cifar, "parquet": _parquet, "pictures": _pictures, "texts": _texts, "weights": _weights,
    "calibration": _calibration, "empty": lambda folder: None, "continued": lambda folder: None,
}  # fmt: skip
