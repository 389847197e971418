"""This machine: Python and its packages, the GPU, weights of feature extractors, room on the disk."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from ddpm_ip import __version__
from ddpm_ip.doctor.findings import Finding
from ddpm_ip.extras import how_to_install

# package -> the extra that brings it
EXTRAS = {"tensorboard": "log", "matplotlib": "plot", "pyarrow": "parquet", "huggingface_hub": "hub", "gradio": "demo"}
GB = 1e9
ROOM = (1 * GB, 5 * GB)  # free bytes below which there is a problem, and a note; a CIFAR-10 checkpoint has 0.57 GB
HASHED = 2 * GB  # bytes of the largest file that is read through
CUDA = "https://pytorch.org/get-started/locally"
TORCH_FIDELITY = "pip install torch-fidelity; on a CPU with --no-deps, or a torchvision comes that does not fit"


def python() -> Iterable[Finding]:
    """The versions of this package and of Python."""
    yield Finding("OK", "ddpm-ip", f"{__version__} on Python {platform.python_version()}")


def torch_build() -> Iterable[Finding]:
    """Whether PyTorch is new enough, and built for the GPU that is here."""
    import torch

    build = "built for the CPU" if torch.version.cuda is None else f"built for CUDA {torch.version.cuda}"
    found = f"{torch.__version__}, {build}"
    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    if (major, minor) < (2, 6):
        yield Finding("problem", "torch", found, "pip install 'torch>=2.6'")
    elif torch.version.cuda is None and _has_nvidia_device():
        yield Finding("problem", "torch", f"{found}, but an NVIDIA GPU is here", f"install a CUDA build: {CUDA}")
    else:
        yield Finding("OK", "torch", found)


def gpus() -> Iterable[Finding]:
    """The GPUs that PyTorch can use, and whether the fast path can."""
    import torch

    if not torch.cuda.is_available():
        if torch.version.cuda is not None and _has_nvidia_device():
            yield Finding(
                "problem", "GPU", "torch cannot use it", "see what nvidia-smi says: the driver may be older than CUDA's"
            )
        elif torch.backends.mps.is_available():
            yield _apple()
        else:
            yield Finding("note", "GPU", "none that torch can use: everything runs on the CPU, without the fast path")
        return
    for i in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(i)
        bf16 = "bf16" if (card.major, card.minor) >= (8, 0) else "no bf16"
        yield Finding("OK", f"GPU {i}", f"{card.name}, {card.total_memory / 2**30:.0f} GiB, {bf16}")
    from ddpm_ip.engine import start_engine, why_not_fast

    reason = why_not_fast("auto", start_engine(None, fast=True))
    if reason is None:
        yield Finding("OK", "fast path", f"possible (Triton {installed('triton')})")
    else:
        yield Finding("note", "fast path", f"off: {reason}")


def _apple() -> Finding:
    import torch

    from ddpm_ip.apple import fault

    if reason := fault(torch.device("mps")):
        return Finding("note", "GPU", f"an Apple GPU that is not used: {reason}", "update macOS and PyTorch")
    held = f"{torch.mps.recommended_max_memory() / 2**30:.0f} GiB"
    return Finding("OK", "GPU", f"Apple's (mps), {held}; without the fast path")


def accelerate() -> Iterable[Finding]:
    """Whether Accelerate is installed."""
    if found := installed("accelerate"):
        yield Finding("OK", "accelerate", found)
    else:
        yield Finding("problem", "accelerate", "not installed", "pip install accelerate")


def extras() -> Iterable[Finding]:
    """Which optional packages are installed."""
    there = {name: found for name in EXTRAS if (found := installed(name))}
    if there:
        yield Finding("OK", "extras", ", ".join(f"{name} {found}" for name, found in there.items()))
    if absent := [name for name in EXTRAS if name not in there]:
        extras = [EXTRAS[name] for name in absent]
        yield Finding("note", "extras", f"without {', '.join(absent)}", f"if wanted: {how_to_install(*extras)}")


class Torchvision:
    """ddpm-ip does not need torchvision, but one that does not fit torch breaks other packages.

    It is imported by a process of its own, where a broken one harms nothing, while the other checks continue.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        if importlib.util.find_spec("torchvision") is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "import torchvision; print(torchvision.__version__)"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )

    def findings(self) -> Iterable[Finding]:
        """Whether it could be imported; waits for the process."""
        if self._process is None:
            yield Finding("OK", "torchvision", "not installed, and not needed")
            return
        output, errors = self._process.communicate()
        if self._process.returncode == 0:
            yield Finding("OK", "torchvision", f"{output.strip()}, fits torch (not needed)")
        else:
            yield Finding(
                "problem",
                "torchvision",
                f"is installed and cannot be imported ({(errors.strip().splitlines() or ['no message'])[-1]}); it "
                "breaks diffusers, torchmetrics and torch-fidelity",
                "pip uninstall torchvision, which ddpm-ip does not need, or install the build made for this torch",
            )


def weights() -> Iterable[Finding]:
    """Whether the Inception's weights are here and whole."""
    from ddpm_ip.evaluate.extractors.weights import INCEPTION, find_weights
    from ddpm_ip.run.checkpoint import sha256

    path = find_weights(INCEPTION)
    if path is None:
        text = f"{INCEPTION.name} ({INCEPTION.megabytes} MB) is not here, so neither FID nor IS can be measured"
        yield Finding("note", "weights", text, INCEPTION.command())
    elif (found := sha256(path)) != INCEPTION.sha256:
        text = f"{path} is damaged: its SHA-256 begins {found[:8]}, not {INCEPTION.sha256[:8]}"
        yield Finding("problem", "weights", text, f"remove it, and fetch it again: {INCEPTION.command(path.parent)}")
    else:
        yield Finding("OK", "weights", f"{path} (SHA-256 {found[:8]})")


def torch_fidelity() -> Iterable[Finding]:
    """Whether torch-fidelity is installed."""
    if found := installed("torch-fidelity"):
        yield Finding("OK", "torch-fidelity", found)
    else:
        text = "not installed, so neither FID nor IS can be measured"
        yield Finding("note", "torch-fidelity", text, f"if wanted: {TORCH_FIDELITY}")


def dinov2() -> Iterable[Finding]:
    """Weights that few need: what is there is looked at, what is absent is no matter."""
    from ddpm_ip.evaluate.extractors.weights import DINOV2, find_weights, weights_folders
    from ddpm_ip.run.checkpoint import sha256

    sound = []
    for name, file in DINOV2.items():
        if (path := find_weights(file)) is None:
            continue
        if path.stat().st_size > HASHED:
            found, wanted = (f"{mb:,} MB" for mb in (round(path.stat().st_size / 1e6), file.megabytes))
            state = f"{found}; its SHA-256 is looked at when it is used"
        else:
            found, wanted = sha256(path)[:8], file.sha256[:8]
            state = f"SHA-256 {found}"
        if found == wanted:
            sound.append(f"{name} ({state})")
        else:
            text = f"{path} is damaged: {found} instead of {wanted}"
            yield Finding("problem", "DINOv2", text, f"remove it, and fetch it again: {file.command(path.parent)}")
    if sound:
        yield Finding("OK", "DINOv2", ", ".join(sound))
    elif not any(map(find_weights, DINOV2.values())):
        yield Finding("OK", "DINOv2", f"no weights in {weights_folders()[0]}; only --extractor dinov2-... needs them")


def disk() -> Iterable[Finding]:
    """Free bytes where runs, decoded images and features are written."""
    from ddpm_ip.evaluate.collect import cache_folder
    from ddpm_ip.places import expanded

    decoded = expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "ddpm-ip"
    features = cache_folder().parent
    places = [("disk", Path.cwd()), ("cache", decoded), *([("features", features)] if features != decoded else [])]
    for what, folder in places:
        place = next(path for path in (folder, *folder.parents) if os.path.exists(path))
        free = shutil.disk_usage(place).free
        level: Literal["OK", "note", "problem"] = "problem" if free < ROOM[0] else "note" if free < ROOM[1] else "OK"
        cure = None if level == "OK" else "make room: checkpoints are kept two or three at a time"
        yield Finding(level, what, f"{free / GB:.1f} GB free in {folder}", cure)


def _has_nvidia_device() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*"))


def installed(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
