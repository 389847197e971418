"""The evaluator's weights: which file, where it comes from, where it is looked for, and how it is read."""

from __future__ import annotations

import os
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ddpm_ip.errors import UserError
from ddpm_ip.plain import reason
from ddpm_ip.run.checkpoint import sha256_of
from ddpm_ip.system import NOT_WAITING

LARGEST = 10_000_000_000  # bytes; twice the largest of the files below


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights that is never fetched unasked.

    Args:
        name: of the file.
        sha256: its SHA-256, hexadecimal.
        url: where it comes from.
        megabytes: its size, for people.
        what: whose weights they are.
    """

    name: str
    sha256: str
    url: str
    megabytes: int
    what: str

    def command(self, folder: Path | None = None) -> str:
        """A line for a shell that fetches the file to where it is looked for first, or into a folder."""
        place = (weights_folders()[0] if folder is None else folder) / self.name
        return shlex.join(["curl", "-fL", "--create-dirs", "-o", str(place), self.url])


INCEPTION = WeightsFile(
    "weights-inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    96,
    "Inception weights of FID",
)


def _dinov2(size: str, megabytes: int, sha256: str) -> WeightsFile:
    name = f"dinov2_vit{size}14"
    url = f"https://dl.fbaipublicfiles.com/dinov2/{name}/{name}_pretrain.pth"
    return WeightsFile(f"{name}_pretrain.pth", sha256, url, megabytes, f"weights of DINOv2 ViT-{size.upper()}/14")


# Meta publishes no hashes. These are what others recorded of the files under the same addresses: all four in
# finegrain-ai/refiners, src/refiners/conversion/models/dinov2.py (at 30dbf44), and each again in several projects that
# have nothing to do with it and each other, such as seruva19/ayase, src/ayase/modules/id_sim.py (ViT-B).
DINOV2 = {
    "dinov2-vit-s-14": _dinov2("s", 88, "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9"),
    "dinov2-vit-b-14": _dinov2("b", 346, "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73"),
    "dinov2-vit-l-14": _dinov2("l", 1218, "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428"),
    "dinov2-vit-g-14": _dinov2("g", 4546, "baf8467e50af277596bbbafa06887c177ee899ab46033649c383577d7e9309d3"),
}
"""The official weights by the name of the extractor (torch-fidelity's names)."""


def weights_folders() -> list[Path]:
    """Where weights are looked for, in order: ``$DDPM_IP_WEIGHTS``, then ``~/.cache/ddpm-ip/weights``."""
    chosen = os.environ.get("DDPM_IP_WEIGHTS")
    named = [chosen, "~/.cache/ddpm-ip/weights"] if chosen else ["~/.cache/ddpm-ip/weights"]
    return [Path(os.path.expanduser(folder)) for folder in named]  # which leaves the home of nobody as it is


def find_weights(file: WeightsFile) -> Path | None:
    """The file, wherever it lies first; its hash is not looked at here."""
    places = (str(folder / file.name) for folder in weights_folders())
    return next((Path(place) for place in places if os.path.isfile(place)), None)  # false of what may not be seen


def read_weights(file: WeightsFile, path: Path | None = None) -> tuple[dict[str, Tensor], str]:
    """The tensors of a file and its SHA-256, which is checked before anything in it is looked at.

    Args:
        file: which one is wanted.
        path: where it is; None to look for it.

    Returns:
        The tensors by name, as they are in the file, on the CPU; and the hexadecimal SHA-256.

    Raises:
        UserError: it is missing, cannot be read, or is another file, or damaged.
    """
    path = path or find_weights(file)
    if path is None:
        looked = weights_folders()
        raise UserError(
            f"the {file.what}, {file.name}, are not in {' or '.join(map(str, looked))}. {_advice(file, looked[0])}"
        )
    try:
        with open(path, "rb", opener=_without_waiting) as content:  # once: what is loaded is what was checked
            found = os.fstat(content.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:
                raise UserError(f"{path}: no file, or far too large a one. {_advice(file, path.parent)}")
            digest = sha256_of(content)
            if digest != file.sha256:
                raise UserError(
                    f"{path}: damaged, or not the {file.what}: {content.tell():,} bytes with SHA-256 {digest[:8]}… "
                    f"instead of {file.sha256[:8]}…. Remove it. {_advice(file, path.parent)}"
                )
            content.seek(0)
            state = torch.load(content, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()):
            raise TypeError("it holds no table of tensors")
        if not all(isinstance(name, str) for name in state):
            raise TypeError("it holds no table of tensors by name")
        return state, digest
    except OSError as error:
        raise UserError(f"{path}: the {file.what} cannot be read: {error.strerror or error}") from error
    except (UserError, MemoryError):
        raise
    except Exception as error:  # PyTorch raises many things, of a file that another version wrote
        raise UserError(f"{path}: this PyTorch cannot read it: {reason(error)}") from error


def _without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | NOT_WAITING)  # of a pipe, for its other end


def _advice(file: WeightsFile, folder: Path) -> str:
    return (
        "Without the file: --extractor pixels, or an extractor of your own (docs/EVALUATION.md). It is looked for in "
        f"the folder that DDPM_IP_WEIGHTS names, too. To fetch it ({file.megabytes:,} MB, SHA-256 {file.sha256[:8]}…): "
        f"{file.command(folder)}"
    )
