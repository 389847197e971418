"""What is public in Python: each name is documented whole, and names of a released version stay."""

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator

import pytest

import ddpm_ip as ip

NAMES = [name for name in ip.__all__ if name != "__version__"]
METHODS = {"Samplers": "sampler", "Corrections": "correction"}  # by the heading of their group
PROTOCOLS = {"plan", "numbers", "wrap", "after", "open"}  # whose arguments Sampler, Correction and ImageSet tell of
OF_0_2 = """
    load new Run Progress Config Samples samples measure Evaluation Exposure Calibration write_figures grid
    Cifar10 Digits Folder ImageSet Mnist Npz Parquet save_images
    Schedule InputPerturbation NoPerturbation Denoiser Prediction Objective Sampling
    Ancestral DDIM DDIMInversion DEIS DPMSolver DPMSolverSDE DPMSolverSingle ERSDE Euler Heun IPNDM IPNDMV Restart
    SASolver UniPC slerp Auto BandGains DCW DynamicThresholding EpsilonScaling Guidance IPEmulator TSR TimeShift
    VarianceNormalisation Plan Rows Sampler State steps walk Correction Row
    UserError CheckpointError ConfigError DataError Diverged OutOfMemory
"""
SOURCE = re.compile(r"arXiv[ :]|NeurIPS|ICLR|ICML|\b(19|20)\d\d\b|wikipedia", re.IGNORECASE)
WITHOUT_SOURCE = {"Sampling", "Auto", "BandGains"}  # a container, and this project's own


def own_members(cls: type) -> Iterator[tuple[str, object]]:
    """Public methods and properties that a class has itself, or of another of this package."""
    for name, member in inspect.getmembers_static(cls) if sys.version_info >= (3, 11) else inspect.getmembers(cls):
        what = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if not name.startswith("_") and inspect.isfunction(what) and what.__module__.startswith("ddpm_ip"):
            yield name, what


def arguments(function: object) -> list[str]:
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    found = inspect.signature(function).parameters.values()
    return [p.name for p in found if p.name not in ("self", "cls") and (p.kind not in kinds or p.name == "settings")]


def missing_arguments(function: object, text: str) -> list[str]:
    """Arguments that a text does not name, where it is about more than one, or says that it has some."""
    return [name for name in arguments(function) if not re.search(rf"(?<![\w.]){re.escape(name)}\b", text)]


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_documented_whole(name: str) -> None:
    value = getattr(ip, name)
    text = inspect.getdoc(value) or ""
    assert re.match(r".{10,}?[.:;]", text, re.DOTALL), "a first sentence"
    assert not text.startswith(f"{name}("), "a signature that a dataclass wrote is no sentence"
    if inspect.isfunction(value):
        assert missing_arguments(value, text) == []
        return
    assert inspect.isclass(value)
    if dataclasses.is_dataclass(value):  # a field may be told of where it is inherited from
        text = "\n".join([text, *(cls.__doc__ or "" for cls in value.__mro__ if cls.__module__.startswith("ddpm_ip"))])
        fields = [f.name for f in dataclasses.fields(value) if f.name != "name"]
        assert [f for f in fields if not re.search(rf"\b{f}\b", text)] == []
    for method, function in own_members(value):
        said = inspect.getdoc(getattr(value, method)) or ""
        assert said, f"{name}.{method}"
        if method not in PROTOCOLS:
            assert missing_arguments(function, f"{said}\n{text}") == [], f"{name}.{method}"


@pytest.mark.parametrize("name", [n for group in METHODS for names in ip._GROUPS[group].values() for n in names])
def test_a_method_names_its_source(name: str) -> None:
    """In its own text, or in that of its module, which says what of the paper is here."""
    value = getattr(ip, name)
    text = f"{inspect.getdoc(value)}\n{sys.modules[value.__module__].__doc__}"
    assert (SOURCE.search(text) is None) == (name in WITHOUT_SOURCE)


def test_names_are_there_that_were_promised() -> None:
    """A name that goes, or is called otherwise, first warns for a minor version: the policy in the documentation."""
    assert set(OF_0_2.split()) <= set(NAMES)


def test_each_name_has_one_place() -> None:
    found = [name for group in ip._GROUPS.values() for names in group.values() for name in names]
    assert sorted(found) == sorted(NAMES)
    assert len(found) == len(set(found))
