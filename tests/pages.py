"""Pages for people as tests see them: blocks of code, why some are not run, and a folder in which commands run, small.

A command is run as it is written, in this process, with these differences: images are digits, networks are tiny, a run
that the page has from elsewhere is one of a few steps, and options that only cost time are smaller (:data:`SMALL`).
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tests.tiny import ROOT, tree

from ddpm_ip.config import load
from ddpm_ip.plain import yaml_text
from ddpm_ip.presets import find, names

NOT_RUN = re.compile(r"<!-- not run: \S.*-->")  # on a line above a block
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
PROGRAM = re.compile(
    r"(?:(?:ddpm-ip|torchrun\b.*? -m ddpm_ip)\s+(\S+)|(?:accelerate-launch|torchrun)\b.*?\bscripts/(\w+)\.py)\s*(.*)"
)
SCRIPTS = {"train_ddpm_ip": "train", "train_ddpm": "train", "sample_uncond": "sample"}
INSTALLS = (
    "pip install",
    "make ",
    "export ",
)  # what `make test-install` does, and what means something to a shell alone
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: where it is.
        number: how many of the page are before it.
        line: that it begins at.
        language: such as ``shell``.
        text: without the fences.
        marked: whether a line above it says why it is not run.
    """

    page: Path
    number: int
    line: int
    language: str
    text: str
    marked: bool

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def lines(self) -> list[str]:
        """Lines of a shell, joined where one continues, without what is optional, comments and empty ones."""
        joined = self.text.replace("\\\n", " ").splitlines()
        bare = [re.sub(r" \[[-]{1,2}\w.*?\]", "", line).strip() for line in joined]
        return [line for line in bare if line and not line.startswith("#")]

    @property
    def commands(self) -> list[tuple[str, list[str]]]:
        """The commands of this project: name and words."""
        found = [PROGRAM.match(line) for line in self.lines]
        return [(m[1] or SCRIPTS.get(m[2], m[2]), shlex.split(m[3], comments=True)) for m in found if m]

    @property
    def others(self) -> list[str]:
        """The other lines of a shell."""
        return [line for line in self.lines if not PROGRAM.match(line) and not line.startswith(INSTALLS)]


def blocks(page: Path) -> list[Block]:
    """All of a page."""
    text = page.read_text(encoding="utf-8")
    found = []
    for number, match in enumerate(FENCE.finditer(text)):
        above = text[: match.start()].rstrip().rpartition("\n")[2]
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, number, line, match[1], match[2], bool(NOT_RUN.fullmatch(above))))
    return found


SIZES = {"in_channels": 1, "dim": 8, "dim_mults": [1, 2], "use_attn": [False, True], "num_groups": 4}
NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {"name": "unet", **tree()["model"]},
    "adm": {"name": "adm", **SIZES, "head_channels": 8},
}
TRAINING = {"n_steps": 4, "batch_size": 8, "micro_batch": 0, "print_freq": 2, "save_freq": 2, "sample_freq": 0}
TRAINING |= {"n_samples": 4, "sample_steps": 2, "keep_every": 0, "ema_snapshot_freq": 2, "lr_warmup": 0}
# What a command is given in place of what the page says, or besides.
FEW = {"--n_samples": "10", "--batch_size": "10"}
SMALL: dict[str, Mapping[str, str]] = {
    "sample": {"--n_samples": "4", "--batch_size": "4"},
    "table": {**FEW, "--extractor": "pixels"},
    "compare-samplers": {**FEW, "--extractor": "pixels"},
    "exposure": FEW,
    "calibrate": FEW,
    "times": FEW,
}
STEPS = {"--steps", "--respace_steps", "--evaluations", "--spacing"}  # without these all times are visited
OF_RUNS = {"sample", "table", "compare-samplers", "exposure", "calibrate", "times", "ema", "export", "report"}
FEWER = {"--train.n_steps": "8"}  # in place of what a page says, where it does


def small_configuration(path: Path) -> str:
    """A configuration of the package for digits and a tiny network; its method stays."""
    config = load(path).to_dict()
    network = {**NETWORKS[config["model"]["name"]], "dropout": config["model"]["dropout"]}
    return yaml_text({**config, "data": {"name": "digits"}, "model": network, "train": {**config["train"], **TRAINING}})


class Place:
    """An empty folder in which the commands of a block run.

    Args:
        folder: where.
        run: a trained run, of which the page's runs are copies.
    """

    def __init__(self, folder: Path, run: Path) -> None:
        self.folder, self.run = folder, run
        (folder / "configs").mkdir(parents=True)
        for name in ("photos", "IMAGES"):
            (folder / name).mkdir()
            for n in range(4):
                pixels = np.full((8, 8), 60 * n, np.uint8)
                Image.fromarray(pixels).save(folder / name / f"{n}.png")

    def provide(self, words: Sequence[str]) -> None:
        """What a page takes for granted: configurations and runs that a command names."""
        for word in words:
            path = Path(word)
            if word in names():  # of a preset, before which a file of that name counts
                (self.folder / word).write_text(small_configuration(find(word)), encoding="utf-8")
            elif path.parent.name == "configs" and not (self.folder / path).exists():
                as_it_is = words[0] in ("data", "doctor")  # which look at the images that it names
                text = (ROOT / path).read_text(encoding="utf-8") if as_it_is else small_configuration(ROOT / path)
                (self.folder / path).write_text(text, encoding="utf-8")
        for run in runs_of(words):
            if not (self.folder / run).exists():
                shutil.copytree(self.run, self.folder / run)


def runs_of(words: Sequence[str]) -> list[str]:
    """The runs that a command needs: those after these options, and what is no option's value."""
    command, *rest = words
    wanted = {"--weights", "--init-from"} | ({"-e"} if command == "table" or "-r" in rest else set())
    found, after = [], command if command in OF_RUNS else ""
    for word in rest:
        if word.startswith("-"):
            after = word
        elif after in wanted or after == command:
            found.append(word)
    return [word for word in found if word != "digits" and "." not in Path(word).name]


def smaller(command: str, words: Sequence[str]) -> list[str]:
    """The words of a command that takes less time and says the same."""
    given, small = list(words), SMALL.get(command, {})
    for option, value in {**FEWER, **small}.items():
        if option in given:
            given[given.index(option) + 1] = value
        elif option in small:
            given += [option, value]
    if command in ("sample", "table") and not STEPS & {*given}:
        given += ["--steps", "5"]
    return given
