"""``ddpm-ip doctor``: does this machine, this configuration, this run have what it takes; if not, what to do about it.

Nothing is opened that takes long, and nothing that is broken can break the doctor: each check stands for itself.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ddpm_ip import __version__
from ddpm_ip.errors import CheckpointError, UserError

if TYPE_CHECKING:
    from ddpm_ip.config import Config
    from ddpm_ip.data import Folder, Parquet
    from ddpm_ip.data.decoded import Item

EXTRAS = {"tensorboard": "log", "matplotlib": "plot", "pyarrow": "parquet"}  # package -> the extra that brings it
GB = 1e9
ROOM = (1 * GB, 5 * GB)  # free bytes below which there is a problem, and a note; a CIFAR-10 checkpoint has 0.57 GB
FORGOTTEN = 0.01  # share of the initial weights in the average that does no harm
HASHED = 2 * GB  # bytes of the largest file that is read through
LOOKED_AT, OPENED = 2000, 20  # images whose first bytes are read, and those whose mode is looked at
GRAY = ("1", "L", "LA", "I", "I;16", "F")
CUDA = "https://pytorch.org/get-started/locally"
TORCH_FIDELITY = "pip install torch-fidelity; on a CPU with --no-deps, or a torchvision comes that does not fit"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        level: a ``problem`` must be cured, a ``note`` be known.
        what: the thing.
        text: its state.
        cure: what to do, where there is something.
    """

    level: Literal["OK", "note", "problem"]
    what: str
    text: str
    cure: str | None = None


def doctor(config_path: Path | str | None, overrides: dict[str, Any], run: Path | None) -> list[Finding]:
    """Looks at the machine; and at a configuration, and a run, if there are any.

    Args:
        config_path: a YAML file; None for the one of the run.
        overrides: of its items, by dotted path.
        run: folder of a run.
    """
    vision = _Torchvision()  # begins now, in a process of its own
    logging.getLogger("ddpm_ip").setLevel(logging.ERROR)  # what modules warn of is said here, in one line
    checks: list[tuple[str, Callable[[], Iterable[Finding]]]] = [
        ("ddpm-ip", _python),
        ("torch", _torch),
        ("GPU", _gpus),
        ("accelerate", _accelerate),
        ("extras", _extras),
        ("weights", _weights),
        ("torch-fidelity", _torch_fidelity),
        ("DINOv2", _dinov2),
        ("disk", _disk),
    ]
    if config_path is not None or run is not None:
        checks.append(("config", partial(_configuration, config_path, overrides, run)))
    if run is not None:
        checks.append(("run", partial(_run, run)))
    return [finding for what, check in [*checks, ("torchvision", vision.findings)] for finding in _safely(what, check)]


def as_text(findings: Sequence[Finding]) -> str:
    """One screen: a line for each finding, its cure beneath."""
    width = max(len(f.what) for f in findings)
    lines = []
    for f in findings:
        lines.append(f"{f.level:<7}  {f.what:<{width}}  {f.text}")
        lines += [f"{'':<7}  {'':<{width}}  -> {f.cure}"] if f.cure else []
    problems, notes = (sum(f.level == level for f in findings) for level in ("problem", "note"))
    return "\n".join([*lines, "", f"{_count(problems, 'problem')}, {_count(notes, 'note')}"])


def as_json(findings: Sequence[Finding]) -> str:
    """The same for programs."""
    problems = sum(f.level == "problem" for f in findings)
    return json.dumps({"problems": problems, "findings": [asdict(f) for f in findings]}, indent=1, ensure_ascii=False)


def _safely(what: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """A check that fails is a finding itself."""
    try:
        return list(check())
    except UserError as error:
        return [Finding("problem", what, str(error))]
    except Exception as error:
        return [Finding("problem", what, f"{type(error).__name__}: {error}", "install it again")]


def _python() -> Iterable[Finding]:
    yield Finding("OK", "ddpm-ip", f"{__version__} on Python {platform.python_version()}")


def _torch() -> Iterable[Finding]:
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


def _gpus() -> Iterable[Finding]:
    import torch

    if not torch.cuda.is_available():
        if torch.version.cuda is not None and _has_nvidia_device():
            yield Finding(
                "problem", "GPU", "torch cannot use it", "see what nvidia-smi says: the driver may be older than CUDA's"
            )
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
        yield Finding("OK", "fast path", f"possible (Triton {_version('triton')})")
    else:
        yield Finding("note", "fast path", f"off: {reason}")


def _accelerate() -> Iterable[Finding]:
    if found := _version("accelerate"):
        yield Finding("OK", "accelerate", found)
    else:
        yield Finding("problem", "accelerate", "not installed", "pip install accelerate")


def _extras() -> Iterable[Finding]:
    there = {name: found for name in EXTRAS if (found := _version(name))}
    if there:
        yield Finding("OK", "extras", ", ".join(f"{name} {found}" for name, found in there.items()))
    if absent := [name for name in EXTRAS if name not in there]:
        extras = ",".join(EXTRAS[name] for name in absent)
        yield Finding("note", "extras", f"without {', '.join(absent)}", f'if wanted: pip install "ddpm-ip[{extras}]"')


class _Torchvision:
    """ddpm-ip does not need torchvision, but one that does not fit torch breaks other packages.

    It is imported by a process of its own, where a broken one harms nothing, while the other checks go on.
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


def _weights() -> Iterable[Finding]:
    from ddpm_ip.evaluate.extractors.weights import INCEPTION, find_weights, weights_folders
    from ddpm_ip.run.checkpoint import sha256

    path = find_weights(INCEPTION)
    get = f"from {INCEPTION.url}"
    if path is None:
        text = f"{INCEPTION.name} is not here, so neither FID nor IS can be measured"
        yield Finding("note", "weights", text, f"put it into {weights_folders()[0]}, {get}")
    elif (found := sha256(path)) != INCEPTION.sha256:
        text = f"{path} is damaged: its SHA-256 begins {found[:8]}, not {INCEPTION.sha256[:8]}"
        yield Finding("problem", "weights", text, f"remove it, and fetch it again {get}")
    else:
        yield Finding("OK", "weights", f"{path} (SHA-256 {found[:8]})")


def _torch_fidelity() -> Iterable[Finding]:
    if found := _version("torch-fidelity"):
        yield Finding("OK", "torch-fidelity", found)
    else:
        text = "not installed, so neither FID nor IS can be measured"
        yield Finding("note", "torch-fidelity", text, f"if wanted: {TORCH_FIDELITY}")


def _dinov2() -> Iterable[Finding]:
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
            yield Finding("problem", "DINOv2", text, f"remove it, and fetch it again from {file.url}")
    if sound:
        yield Finding("OK", "DINOv2", ", ".join(sound))
    elif not any(map(find_weights, DINOV2.values())):
        yield Finding("OK", "DINOv2", f"no weights in {weights_folders()[0]}; only --extractor dinov2-... needs them")


def _disk() -> Iterable[Finding]:
    from ddpm_ip.evaluate.collect import cache_folder

    decoded = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ddpm-ip"
    features = cache_folder().parent
    places = [("disk", Path.cwd()), ("cache", decoded), *([("features", features)] if features != decoded else [])]
    for what, folder in places:
        place = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(place).free
        level: Literal["OK", "note", "problem"] = "problem" if free < ROOM[0] else "note" if free < ROOM[1] else "OK"
        cure = None if level == "OK" else "make room: checkpoints are kept two or three at a time"
        yield Finding(level, what, f"{free / GB:.1f} GB free in {folder}", cure)


def _configuration(path: Path | str | None, overrides: dict[str, Any], run: Path | None) -> Iterable[Finding]:
    from ddpm_ip.config import load

    if path is None:
        assert run is not None
        path = run / "config.yaml"
    config = load(path, overrides)
    yield Finding("OK", "config", f"{path} can be used")
    yield from _data(config)
    yield from _average(config, "train.n_steps", config.train.n_steps)
    yield from _evaluation(config)


def _evaluation(config: Config) -> Iterable[Finding]:
    """Whether train.eval has its extractor's weights; without them training refuses to start."""
    from ddpm_ip.evaluate.extractors.weights import DINOV2, INCEPTION, find_weights, weights_folders

    chosen = config.train.eval
    file = {"inception": INCEPTION, **DINOV2}.get(chosen.extractor)
    if chosen.every and file is not None and find_weights(file) is None:
        yield Finding(
            "problem",
            "train.eval",
            f"{file.name} is not here, without which training with train.eval.extractor {chosen.extractor} does not "
            "start",
            f"put it into {weights_folders()[0]}, from {file.url}; or choose --train.eval.extractor pixels",
        )
    if chosen.every and file is not None and config.model.in_channels not in (1, 3):
        yield Finding(
            "problem",
            "train.eval",
            f"{chosen.extractor} takes RGB or gray images, not {config.model.in_channels} channels: training does not "
            "start",
            "choose --train.eval.extractor pixels",
        )
    if chosen.every and chosen.extractor == "inception" and _version("torch-fidelity") is None:
        text = "torch-fidelity is not installed, without which training with this extractor does not start"
        yield Finding("problem", "train.eval", text, TORCH_FIDELITY)


def _data(config: Config) -> Iterable[Finding]:
    data = config.data
    root = getattr(data, "root", None)
    place = Path(root).expanduser() if root is not None else None
    if place is None:
        yield Finding("OK", "data", f"{data.name}, in the package")
    elif place.is_dir() and not any(place.iterdir()):
        if getattr(data, "download", False):
            yield Finding("note", "data", f"{data.name}: {place} is empty; the first use fetches it")
        else:
            yield Finding("problem", "data", f"data.root: {place} is empty", "set --data.root to where the images are")
    elif place.exists():
        yield Finding("OK", "data", f"{data.name}, {place} is there (not opened: `ddpm-ip data inspect` does)")
    elif getattr(data, "download", False):
        yield Finding("note", "data", f"{data.name} is not in {place}; the first use fetches it")
    else:
        yield Finding(
            "problem", "data", f"data.root: {place} does not exist", "set --data.root to where the images are"
        )
    yield from _images(config, place)
    yield from _fit(config)


def _fit(config: Config) -> Iterable[Finding]:
    """Whether images and network go together, as far as the configuration says."""
    channels, height, width = config.shape
    step = 2 ** (len(config.model.dim_mults) - 1)
    if height % step or width % step:
        yield Finding(
            "problem",
            "data",
            f"images of {height}x{width} cannot be halved {len(config.model.dim_mults) - 1} times (model.dim_mults)",
            f"choose a data.image_size divisible by {step}, or fewer model.dim_mults",
        )
    mode = getattr(config.data, "mode", "auto")
    given = {"gray": 1, "rgb": 3, "rgba": 4}.get(mode, channels)
    if given != channels:
        yield Finding(
            "problem",
            "data",
            f"data.mode {mode} gives {given} channels, model.in_channels is {channels}",
            f"--model.in_channels {given}, or another data.mode",
        )
    if channels not in (1, 3):
        yield Finding(
            "note",
            "data",
            f"images of {channels} channels: the Inception and DINOv2 do not take them",
            "measure with --extractor pixels, or with one of your own that has gray = True",
        )


def _images(config: Config, place: Path | None) -> Iterable[Finding]:
    """Gray and JPEG images, which make a reference that does not compare with others."""
    from ddpm_ip.data import Folder, Parquet

    data = config.data
    if config.model.in_channels == 1:
        yield Finding(
            "note",
            "data",
            "gray images: the Inception sees them as three equal channels",
            "compare their FID only with FIDs of the same set taken the same way",
        )
    if not isinstance(data, Folder | Parquet) or not place or not place.exists():
        return
    try:
        jpeg, gray = _shares(data)
    except UserError as error:
        yield Finding("problem", "data", str(error), "see `ddpm-ip data inspect`")
        return
    if gray == 1 and config.model.in_channels == 3:
        yield Finding(
            "note",
            "data",
            "the images that were looked at are gray: network and Inception see them as three equal channels",
            "--model.in_channels 1 --data.mode gray; compare their FID only with FIDs of the same set taken so",
        )
    if jpeg:
        yield Finding(
            "note",
            "data",
            f"{jpeg:.0%} of the images are JPEG: its artefacts are in the reference, and move a FID by points",
            "take lossless originals if there are any; never compare with a FID of PNG references",
        )


def _average(config: Config, name: str, steps: int) -> Iterable[Finding]:
    decay = config.train.ema_decay
    share = decay**steps
    text = f"the average keeps {share:.2g} of the initial weights ({decay}^{steps}, {name})"
    if share <= FORGOTTEN:
        yield Finding("OK", "EMA", text)
        return
    needed, fitting = math.ceil(math.log(FORGOTTEN) / math.log(decay)), math.floor(FORGOTTEN ** (1 / steps) * 1e5) / 1e5
    yield Finding(
        "problem",
        "EMA",
        f"{text}: its samples look undertrained",
        f"train at least {needed} steps, or choose --train.ema_decay {fitting:g} before training",
    )


def _run(run: Path) -> Iterable[Finding]:
    from ddpm_ip.config import load
    from ddpm_ip.run.checkpoint import newest

    if not run.is_dir():
        yield Finding("problem", "run", f"{run} does not exist", "give the folder that training wrote (its EXP_DIR)")
        return
    try:
        found = newest(run / "ckpt")
    except CheckpointError as error:
        yield Finding("problem", "run", str(error))
        return
    if found is None:
        yield Finding(
            "problem", "run", f"{run} has no checkpoint", "train until train.save_freq, or look at its log.txt"
        )
        return
    last = max(path.name for path in (run / "ckpt").glob("step*"))
    if found.path.name == last:
        yield Finding("OK", "run", f"{found.path} is whole")
    else:
        yield Finding(
            "note", "run", f"{last} is damaged; sampling takes {found.path.name}", "resume with -r latest to replace it"
        )
    if found.step < (config := load(run / "config.yaml")).train.n_steps:
        yield from _average(config, "newest checkpoint", found.step)


def _shares(data: Folder | Parquet) -> tuple[float, float]:
    """The shares of JPEG and of gray images among the first of a set, by their bytes; 0 of none."""
    from PIL import Image

    from ddpm_ip.evaluate.images import is_jpeg

    looked_at, jpeg = 0, 0
    gray: list[bool] = []
    for item in islice(_first_images(data), LOOKED_AT):
        looked_at += 1
        jpeg += is_jpeg(item)
        if len(gray) < OPENED:
            try:
                with Image.open(BytesIO(item.source) if isinstance(item.source, bytes) else item.source) as image:
                    gray.append(image.mode in GRAY)
            except Exception:
                continue  # `ddpm-ip data inspect` counts what is no image
    return jpeg / max(looked_at, 1), sum(gray) / max(len(gray), 1)


def _first_images(data: Folder | Parquet) -> Iterator[Item]:
    """In the order of the disk, since listing a large folder takes long."""
    from ddpm_ip.data import Parquet
    from ddpm_ip.data.decoded import Item
    from ddpm_ip.data.folder import walk

    if isinstance(data, Parquet):
        yield from data.listing().items()
    else:
        yield from (Item(path.name, path, None) for path in walk(Path(data.root).expanduser()))


def _has_nvidia_device() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*"))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"
