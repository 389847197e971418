"""Mutations over every reader: a good file, damaged at random, is read through the function that people's calls use."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from tests.stress import goods
from tests.stress.cases import Case, Fault, asked, copied
from tests.stress.formats import mutated
from tests.stress.goods import good
from tests.stress.mutate import mutated_bytes
from tests.stress.trees import HOSTILE_VALUES
from tests.tiny import run as train_again

from ddpm_ip import files
from ddpm_ip.config import from_dict, load, parse_overrides
from ddpm_ip.data import Cifar10, Folder, Mnist, Npz, Parquet
from ddpm_ip.data.inspect import inspect
from ddpm_ip.doctor.configuration import check_configuration
from ddpm_ip.doctor.run import check_run
from ddpm_ip.engine import start_engine
from ddpm_ip.evaluate.extractors.weights import WeightsFile, read_weights
from ddpm_ip.evaluate.images import open_samples
from ddpm_ip.evaluate.program import keep
from ddpm_ip.report.page import markdown_table, write_report
from ddpm_ip.run import checkpoint
from ddpm_ip.run.lock import Lock
from ddpm_ip.run.log import drop_after
from ddpm_ip.run.measured import Measured
from ddpm_ip.run.record import Evaluation
from ddpm_ip.run.weights import find_weights, load_weights
from ddpm_ip.sample import calibrated
from ddpm_ip.sample.program import sample
from ddpm_ip.sampler.walk import numbers_of
from ddpm_ip.table.program import table
from ddpm_ip.train.loop import fresh_state
from ddpm_ip.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class Reader:
    """What is read, and how.

    Args:
        good: name of the good files, see :mod:`tests.stress.goods`.
        files: which of them may be damaged.
        read: reads the folder; its result is compared, where ``same`` says so.
        same: whether success must give what the good files give, or what ``settle`` gave: where a hash, or a second
            look, notices damage.
        forge: how a stranger makes the damaged file right in the eyes of the reader.
        settle: what has to be made in place, before anything is damaged.
        damage: how it is damaged.
        share: how often, compared with the others: what takes long is tried less.
    """

    good: str
    files: str
    read: Callable[[Path], Any]
    same: bool = False
    forge: Callable[[Path], None] | None = None
    settle: Callable[[Path], Any] | None = None
    damage: Callable[[str, bytes, Random], bytes] = mutated
    share: float = 1.0

    def __call__(self, rng: Random, folder: Path) -> Counter[str]:
        """Damages one file, or two, and reads."""
        home = copied(good(self.good), folder / self.good)
        before = self.settle(home) if self.settle is not None else None
        chosen = sorted(path for path in home.rglob(self.files) if path.is_file())
        for _ in range(rng.choice((1, 1, 1, 2))):
            path = rng.choice(chosen)
            path.write_bytes(self.damage(path.name, path.read_bytes(), rng))
        forged = self.forge is not None and rng.random() < 0.7
        if forged:
            self.forge(home)  # type: ignore[misc]
        word, result = asked(self.read, home)
        if word == "success" and self.same and not forged:
            expected = self.expected() if before is None else before
            if result != expected:
                raise Fault("it was read as something else than what was written")
        return Counter({word: 1})

    def expected(self) -> Any:
        """What the good files give."""
        return _read_good(self.good, self.read)


@cache
def _read_good(name: str, read: Callable[[Path], Any]) -> Any:
    return read(good(name))


# --- files of a run --------------------------------------------------------------------------------------------------


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode("utf-8", "replace") + tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _text_files(home: Path) -> None:
    shape = {"step": int, "name": str}
    calls = [
        (files.read_json, home / "object.json", shape), (files.read_rows, home / "rows.json", shape),
        (files.read_lines, home / "lines.jsonl", shape), (drop_after, home / "lines.jsonl", 2), (files.read_yaml,
        home / "tree.yaml"),
    ]  # fmt: skip
    refused = [message for word, message in (asked(*call) for call in calls) if word == "refused"]
    if refused:
        raise files.UserError(refused[0])


def _config(home: Path) -> None:
    again = load(home / "tree.yaml", {"train.n_steps": 3}).to_dict()
    if from_dict(again).to_dict() != again:
        raise Fault("a configuration that was saved is read as another")


def _overrides(rng: Random, folder: Path) -> Counter[str]:
    """Options of the command line, on a good configuration."""
    known = list(_flat(good_config()))
    tokens = []
    for _ in range(rng.randint(1, 4)):
        key = rng.choice(
            (rng.choice(known), rng.choice(known) + rng.choice(("s", ".x", "")), "", "x", "name", "data.name", ".")
        )
        value = (
            rng.choice(HOSTILE_VALUES).decode()
            if rng.random() < 0.6
            else rng.choice(("1", "-1", "x", "none", "[8, 8]", "{}", "1e9"))
        )
        tokens += rng.choice(([f"--{key}", value], [f"--{key}={value}"], [f"--{key}"], [value]))
    word, _ = asked(lambda: from_dict(good_config(), "tiny.yaml", parse_overrides(tokens)).to_dict())
    return Counter({word: 1})


@cache
def good_config() -> dict[str, Any]:
    return goods.config().to_dict()


def _flat(tree: dict[str, Any], prefix: str = "") -> list[str]:
    below = [_flat(v, f"{prefix}{k}.") if isinstance(v, dict) else [prefix + k] for k, v in tree.items()]
    return [key for keys in below for key in keys]


def _lock(home: Path) -> None:
    with Lock(home / "lock"):
        pass


def resign(home: Path) -> None:
    """Makes the manifests agree with the files, as somebody would who tampers with them."""
    for manifest in home.rglob("manifest.json"):
        parts = [path for path in sorted(manifest.parent.iterdir()) if path != manifest and path.is_file()]
        entries = {path.name: path.read_bytes() for path in parts}
        said = {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in entries.items()
        }
        manifest.write_text(json.dumps(said))


def _checkpoint(home: Path) -> Any:
    """The newest whole one, into a network and an optimizer."""
    found = checkpoint.find(home)
    state = _state()
    state.restore(found)
    finite = all(bool(t.isfinite().all()) for part in state.tensors().values() for t in part.values())
    if not finite:
        raise Fault("weights that are not finite were taken for good ones")
    return found.step, {part: _digest(found.tensors(part)) for part in found.parts}


@cache
def _state() -> TrainState:
    """One for all cases of a process: whatever is restored takes the place of all that it holds."""
    return fresh_state(goods.config(), start_engine("no"))


def _run_weights(home: Path) -> Any:
    found = find_weights(home)
    return _digest(found.tensors)


def _weights_file(home: Path) -> None:
    network = _state().network
    load_weights(network, find_weights(home / "ema.safetensors").tensors, "the file")
    if not all(bool(v.isfinite().all()) for v in network.state_dict().values()):
        raise Fault("weights that are not finite were taken for good ones")


def resumed(home: Path) -> str:
    """The run continues by one step; the hash of what it has then."""
    config = goods.config()
    train_again(dataclasses.replace(config, train=dataclasses.replace(config.train, n_steps=7)), home, "latest")
    return _digest(checkpoint.find(home).tensors("ema"))


@cache
def continued() -> str:
    """What :func:`resumed` gives if nothing is damaged."""
    return resumed(copied(good("run"), good("continued") / "run"))


def _extractor(home: Path) -> str:
    path = home / "extractor.pth"
    expected = hashlib.sha256((good("weights") / path.name).read_bytes()).hexdigest()
    return read_weights(WeightsFile(path.name, expected, "https://example.org", 1, "weights"), path)[1]


# --- what looks at a run ---------------------------------------------------------------------------------------------


def report(home: Path) -> None:
    write_report([home], home / "report.html")
    markdown_table([home])


def doctor(home: Path) -> None:
    for check in (lambda: check_run(home), lambda: check_configuration(None, {}, home)):
        if any(len(f.text) > 20_000 for f in check()):
            raise Fault("an endless finding")


def measured(home: Path) -> None:
    table(goods.config(), home, goods.TABLE)


def _calibrated(home: Path) -> None:
    """Whatever is used is what the network can be sampled with."""
    config = goods.config()
    found = calibrated.read(Measured.beside(64 * "0", home), goods.CALIBRATED, config)
    if found is None:
        raise Fault("a calibration that is there was not seen")
    calibrated.check(calibrated.placed(goods.CALIBRATED, found.chain), config)
    plan = goods.CALIBRATED.plan(config.diffusion.schedule)
    numbers = numbers_of(plan, config.diffusion.schedule, False, found.chain)
    if not all(bool(one.isfinite().all()) for one in numbers.values()) or len(str(found)) > 10_000:
        raise Fault("corrections that are not finite, or an endless line of the log")


def _held(path: Path) -> bytes | None:
    """What is in a file that one may read to its end; None of anything else."""
    return path.read_bytes() if path.is_file() else None


def _keep(name: str) -> Callable[[Path], None]:
    def add(home: Path) -> None:
        path = home / name
        before = _held(path)
        evaluation = Evaluation({"FD-pixels": 1.0}, {"line": "x", "extractor": "pixels"}, [])
        word, message = asked(keep, path, evaluation)
        if word == "refused":
            if _held(path) != before:
                raise Fault("what could not be read was written over")
            raise files.UserError(message)

    return add


def _samples(name: str) -> Callable[[Path], None]:
    def walk(home: Path) -> None:
        for _ in open_samples(home / name).blocks(4, None):
            pass

    return walk


def walked(home: Path) -> None:
    """Whatever `evaluate` reads of samples."""
    for name in ("png", "a.npz", "a.npy"):
        _samples(name)(home)
    _keep("png/evaluation.json")(home)


def again(home: Path) -> Any:
    """The same call, which makes what is missing or damaged."""
    sample(goods.config(), good("run"), home / "png", goods.SAMPLES)
    return [np.asarray(Image.open(path)).tolist() for path in sorted((home / "png").glob("[0-9]*.png"))]


def _as_bytes(name: str, content: bytes, rng: Random) -> bytes:
    """Only what a disk does: a picture that somebody has painted over, with all sums right, is a good picture."""
    return mutated_bytes(content, rng)


# --- data ------------------------------------------------------------------------------------------------------------


def _opened(*sources: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Opens sources, and looks at the images as a person would."""

    def read(home: Path) -> None:
        refused = []
        for source in sources:
            word, found = asked(lambda source=source: source(home).open(progress=False))
            if word == "refused":
                refused.append(found)
            else:
                asked(inspect, found, home / "sheet.png", 4)
        if refused:
            raise files.UserError(refused[0])

    return read


def _pictures(ending: str) -> Reader:
    def source(home: Path) -> Folder:
        return Folder(root=str(home / ending), image_size=8, mode="auto", cache=str(home / "cache"))

    return Reader("pictures", f"*.{ending}", _opened(source), share=0.6)


def _cached(home: Path) -> Any:
    images = Folder(root=str(home / "png"), image_size=4, cache=str(home / "cache")).open(progress=False)
    return images.fingerprint, hashlib.sha256(images.pixels.tobytes()).hexdigest()


READERS: dict[str, Callable[[Random, Path], Counter[str]]] = {
    "texts": Reader("texts", "*[nl]", _text_files),
    "config": Reader("texts", "*.yaml", _config),
    "overrides": _overrides,
    "lock": Reader("texts", "lock", _lock),
    "checkpoint": Reader("last", "step*/*", _checkpoint, same=True, forge=resign, share=0.5),
    "run-weights": Reader("last", "step*/*", _run_weights, same=True),
    "weights-file": Reader("weights", "*.safetensors", _weights_file),
    "extractor-weights": Reader("weights", "*.pth", _extractor, same=True),
    "resume": Reader("run", "*[nlt]", resumed, share=0.05),
    "resume-forged": Reader("run", "step*/*", resumed, forge=resign, share=0.05),
    "report": Reader("table", "*.*", report, share=0.05),
    "doctor": Reader("last", "*.*", doctor, share=0.3),
    "table": Reader("table", "table/*/*.json", measured, share=0.15),
    "calibration": Reader("calibration", "*.json", _calibrated),
    "evaluation": Reader("samples", "*evaluation.json", _keep("png/evaluation.json")),
    "samples-png": Reader("samples", "png/*", _samples("png")),
    "samples-npz": Reader("samples", "a.npz", _samples("a.npz")),
    "samples-npy": Reader("samples", "a.npy", _samples("a.npy")),
    "samples-parquet": Reader("parquet", "*", _samples("train-0.parquet")),
    "sample-again": Reader("samples", "png/0*.png", again, same=True, damage=_as_bytes, share=0.2),
    "npz": Reader("arrays", "*.npz", _opened(lambda home: Npz(root=str(home / "a.npz"), image_size=8),
    lambda home: Npz(root=str(home / "b.npz"), image_size=8))),
    "npy": Reader("arrays", "*.npy", _opened(lambda home: Npz(root=str(home / "c.npy"), image_size=8))),
    "mnist": Reader("mnist", "train*", _opened(lambda home: Mnist(root=str(home)))),
    "mnist-gz": Reader("mnist", "t10k*", _opened(lambda home: Mnist(root=str(home), split="test"))),
    "cifar-batches": Reader("cifar", "*_batch*", _opened(lambda home: Cifar10(root=str(home / "unpacked"),
    download=False))),
    "cifar-archive": Reader("cifar", "*.gz", _opened(lambda home: Cifar10(root=str(home / "packed"), download=False))),
    "parquet": Reader("parquet", "*", _opened(lambda home: Parquet(root=str(home), image_size=8,
    cache=str(home / "cache")))),
    **{ending: _pictures(ending) for ending in goods.FORMATS},
    "decoded-cache": Reader("pictures", "cache/*/*", _cached, same=True, settle=_cached),
}  # fmt: skip


def prepare(name: str) -> None:
    """Makes the good files of a reader, and reads them."""
    reader = READERS[name]
    if isinstance(reader, Reader):
        good(reader.good)
        if reader.same and reader.settle is None:
            reader.expected()
    good("run")


def share(name: str) -> float:
    """How many cases a reader has, compared with others."""
    return getattr(READERS[name], "share", 1.0)


def play(case: Case, home: Path) -> Counter[str]:
    """One mutation of a reader's files."""
    return READERS[case.name](case.rng, home)
