"""Tensors of other people's files, read without trust: ``.pt``, ``.pth``, ``.ckpt``, ``.bin``, ``.safetensors``.

PyTorch's files are zip archives with a pickle, which is a program. Before torch sees it, the archive is measured (what
it declares is what it has) and the program's opcodes are walked without being run: it may make tensors, and
dictionaries and lists of them, and nothing else. Then torch reads it with ``weights_only``, and maps the file instead
of copying it, so that an optimizer's state next to the weights costs nothing.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ddpm_ip.data.npy import Blocks
from ddpm_ip.data.source import opened
from ddpm_ip.errors import CheckpointError
from ddpm_ip.files import MB
from ddpm_ip.interop.base import State
from ddpm_ip.plain import quoted, reason
from ddpm_ip.run.tensors import FLOATS, LEFT_OUT, POINTER, read_tensors

LARGEST = 64_000 * MB  # bytes of a file; the largest published one has 2,200 MB, 8,000 with its optimizer
LARGEST_PROGRAM = 32 * MB  # bytes of a pickle; of 1,000 tensors it has 0.2 MB
DEPTH, MOST = 5, 10_000  # of nested dictionaries and lists, and how many are looked at
WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "unet.", "ema_model.", "denoise_fn.")
AVERAGE = re.compile(r"(?<![a-z])(ema|swa)(?![a-z])|shadow|averag", re.IGNORECASE)

_STORAGE = re.compile(r"torch (storage )?\w{3,20}Storage|torch\.storage \w{3,20}Storage")
_MAKES_TENSORS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch Size",
    "torch device",
    "_codecs encode",
}
_CALLS = {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}  # of protocols in which torch writes nothing


def states(path: Path) -> list[State]:
    """The named tensors in a file, averages first.

    Raises:
        CheckpointError: it is absent, damaged, holds something else than tensors, or is of a kind that is not read.
    """
    try:
        with opened(path) as file:
            size, start = file.seek(0, 2), file.seek(0)
            head = file.read(16)
            file.seek(start)
            if size > LARGEST:
                raise ValueError(f"it has {size // MB} MB, more than weights have")
            packed = head.startswith(b"PK\x03\x04") and path.suffix != ".safetensors"  # a name that torch, too, goes by
            sizes = _look(file, size) if packed else Counter()
    except CheckpointError:
        raise
    except zipfile.BadZipFile:
        raise CheckpointError(
            f"{path} is damaged, or cut off: it begins as an archive of torch.save, and does not end as one. Fetch or "
            "copy it again"
        ) from None
    except Exception as error:  # whatever a forged archive makes its reader raise
        raise CheckpointError(f"{path} cannot be read: {reason(error) or type(error).__name__}") from None
    if packed:
        found = _unpickled(path)
    elif head[8:9] == b"{" or path.suffix == ".safetensors":
        found = read_tensors(path)
    else:
        raise CheckpointError(f"{path} {_kind(head, path)}")
    found_there = list(_walk(found, ""))
    if shadow := _nameless(found):
        found_there.append(("ema.shadow", _named(shadow, [t for _, t in found_there], path)))
    if isinstance(found, list | tuple) and len(found_there) > 1:  # ermongroup/ddim's: the network, ..., the average
        found_there[-1] = (f"{found_there[-1][0]}, the average", found_there[-1][1])
    named = sorted(found_there, key=lambda pair: AVERAGE.search(pair[0]) is None)
    if packed:
        _refuse_storages(path, sizes, [t for _, tensors in named for t in tensors.values()])
    both = 0 < sum(AVERAGE.search(where) is not None for where, _ in named) < len(named)
    return [State(path, where, _unwrapped(t), _averaged(path, where, both)) for where, t in named]


def numbers(state: State) -> dict[str, Tensor]:
    """The tensors of a state as float32 numbers of their own, no larger in all than twice what the file holds.

    Raises:
        CheckpointError: one is of another kind, or declares more numbers than there are.
    """
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in state.tensors.values()}
    declared = sum(t.numel() * t.element_size() for t in state.tensors.values())
    if declared > 2 * sum(storages.values()):
        raise CheckpointError(f"{state.origin} declares tensors of {declared:,} bytes, which it does not have")
    for name, t in state.tensors.items():
        if t.dtype not in FLOATS or t.layout != torch.strided:
            raise CheckpointError(f"{state.origin}: {name} is {t.dtype}, {t.layout}; weights are dense real numbers")
    return {name: t.detach().float().contiguous().clone() for name, t in state.tensors.items()}


def _look(file: BinaryIO, size: int) -> Counter[int]:
    """Refuses an archive that is not what torch writes, and a program that does more than make tensors.

    Returns:
        The sizes of the storages in it, in bytes, and how many there are of each.

    Raises:
        CheckpointError: the program would do something else.
        ValueError: the archive declares what it does not have; or anything that a damaged one raises.
    """
    with zipfile.ZipFile(Blocks(file)) as archive:
        members = archive.infolist()
        if any(m.compress_type != zipfile.ZIP_STORED or m.file_size != m.compress_size for m in members):
            raise ValueError("it is packed, as torch.save packs nothing")
        if (declared := sum(m.file_size for m in members)) > size:
            raise ValueError(f"it declares {declared:,} bytes, and has {size:,}")
        names = [m.filename for m in members]
        if any(name.endswith("/constants.pkl") for name in names):
            raise ValueError("it is a TorchScript program (torch.jit.save), not weights")
        programs = [m for m in members if m.filename.rpartition("/")[2] == "data.pkl"]
        if len(programs) != 1 or len(set(names)) < len(names):
            raise ValueError("it is an archive, and none of torch.save")
        if programs[0].file_size > LARGEST_PROGRAM:
            raise ValueError(f"its pickle has {programs[0].file_size // MB} MB, which that of no weights has")
        with archive.open(programs[0]) as member:
            program = b"".join(iter(lambda: member.read(MB), b""))
    if wrong := list(dict.fromkeys(_strange(program))):
        named = ", ".join(quoted(name) for name in wrong[:5]) + (" and more" if len(wrong) > 5 else "")
        path = Path(str(getattr(file, "name", "the file")))
        raise CheckpointError(
            f"{path} holds more than tensors: its pickle asks for {named}. Nothing of it was run. {_cure(path)}"
        )

    return Counter(m.file_size for m in members if "/data/" in m.filename)


def _refuse_storages(path: Path, sizes: Counter[int], tensors: Iterable[Tensor]) -> None:
    """Refuses storages that the archive does not hold: torch takes a mapped one as long as the pickle says.

    Raises:
        CheckpointError: there is one.
    """
    used = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if t.layout == torch.strided}
    if Counter(n for n in used.values() if n) - sizes:
        raise CheckpointError(f"{path} is damaged: its pickle tells of numbers that it does not have")


def _strange(program: bytes) -> Iterator[str]:
    """What a pickle calls, or looks up, that makes no tensor; its opcodes are read, and none is run."""
    said: list[str] = []
    for opcode, argument, _ in pickletools.genops(program):
        if opcode.name == "GLOBAL" and not _is_harmless(str(argument)):
            yield str(argument).replace(" ", ".")
        elif opcode.name == "STACK_GLOBAL":
            yield ".".join(said[-2:]) or opcode.name
        elif opcode.name in _CALLS:
            yield str(argument or opcode.name).replace(" ", ".")
        elif isinstance(argument, str):
            said = [*said[-1:], argument]


def _is_harmless(name: str) -> bool:
    module, _, what = name.partition(" ")
    is_dtype = module == "torch" and isinstance(getattr(torch, what, None), torch.dtype)
    return name in _MAKES_TENSORS or is_dtype or _STORAGE.fullmatch(name) is not None


def _unpickled(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever a forged file makes torch raise, in C++, too
        said = (reason(error) or type(error).__name__).split("\n")[0][:300]
        raise CheckpointError(f"{path} is damaged: torch cannot read it ({said})") from None


def _walk(found: Any, where: str) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every dictionary of tensors in nested dictionaries and lists, with its place."""
    waiting, looked = [(found, where, 0)], 0
    while waiting and looked < MOST:
        one, place, depth = waiting.pop(0)
        looked += 1
        if isinstance(one, Mapping):
            tensors = {k: v for k, v in one.items() if isinstance(k, str) and isinstance(v, Tensor)}
            if tensors and 2 * len(tensors) >= len(one):
                yield place, tensors
            inner: Iterable[tuple[Any, Any]] = one.items()
        elif isinstance(one, list | tuple):
            inner = enumerate(one[:64])
        else:
            continue
        if depth < DEPTH:
            nested = [(k, v) for k, v in inner if isinstance(v, Mapping | list | tuple)]
            waiting += [(v, f"{place}.{k}".lstrip(".")[:200], depth + 1) for k, v in nested]


def _nameless(found: Any) -> list[Tensor]:
    """The average of an ``EMA`` that keeps a list in the order of the parameters, as xyfJASON's ``ema.pt`` does."""
    inner = found.get("ema", found) if isinstance(found, Mapping) else None
    shadow = inner.get("shadow") if isinstance(inner, Mapping) else None
    is_one = isinstance(shadow, list | tuple) and bool(shadow) and all(isinstance(t, Tensor) for t in shadow)
    return list(shadow) if is_one and shadow is not None else []


def _named(shadow: list[Tensor], named: list[dict[str, Tensor]], path: Path) -> dict[str, Tensor]:
    """A list of tensors with the names of a network's, which lies in the same file or in ``model.pt`` next to it.

    Raises:
        CheckpointError: there is none, or it is another network's.
    """
    beside = path.with_name("model.pt")
    if not named and beside != path and beside.is_file():
        named = [dict(state.tensors) for state in states(beside)]
    for tensors in named:
        if [t.shape for t in tensors.values()] == [t.shape for t in shadow]:
            return dict(zip(tensors, shadow, strict=True))
    raise CheckpointError(
        f"{path} holds an average whose tensors have no names, and no model.pt of the same network is next to it: "
        "give ema_model.pt, which has them"
    )


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that DataParallel, torch.compile and the like put before every name."""
    named = dict(tensors)
    while prefix := next((w for w in WRAPPERS if all(name.startswith(w) for name in named)), None):
        named = {name.removeprefix(prefix): t for name, t in named.items()}
    return named


def _averaged(path: Path, where: str, both: bool) -> bool | str:
    if AVERAGE.search(where):
        return True
    if both:  # the average is next to them
        return False
    if AVERAGE.search(path.name):
        return True
    return False if re.fullmatch(r"model\d*\.\w+", path.name) else "unknown"  # what guided-diffusion and others write


def _kind(head: bytes, path: Path) -> str:
    """What a file with this beginning is, and what to do about it."""
    if head.startswith(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9"):  # torch's own number
        old = "is of the format that torch.save wrote before version 1.6, whose sizes cannot be looked at beforehand"
        return f"{old}. {_cure(path)}"
    if head[:1] == b"\x80":
        return f"is a bare pickle, which can run code when it is loaded. {_cure(path)}"
    if head.startswith(POINTER[: len(head)]) and head:
        return LEFT_OUT
    told = "is empty" if not head else "is neither a file of torch.save nor of safetensors"
    return f"{told}: give weights in one of these, the folder of a run, or a checkpoint"


def _cure(path: Path) -> str:
    """How to turn a file into one that can be read."""
    return (
        "If you trust who made it, save its tensors as safetensors on a machine of yours that holds nothing else: "
        "`from safetensors.torch import save_file; state = torch.load(FILE, map_location='cpu', weights_only=False); "
        f"save_file(state, 'weights.safetensors')`, where {quoted(path.name)} may hold the tensors' dictionary in "
        "another one (state['ema'], state['state_dict'])"
    )
