"""Imports point one way, no file can run code, and the command line answers before anything heavy loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ddpm_ip

PACKAGE = Path(ddpm_ip.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

PLAIN = {"errors", "extras", "plain", "files", "places", "system"}
CORE = {"draws", "schedule", "nn", "ema", "perturbation", "denoiser", "times", "weighting", "bound", "objective"}
CORE |= {"sampler", "errors", "images", "learning_rate", "power", "precise", "variants"}
MODEL = CORE | PLAIN | {"memory", "signals", "output", "data", "engine", "config", "metric", "presets", "turns"}
# Part of the package: which third-party packages and which other parts it may import, even inside a function.
ALLOWED: dict[str, tuple[set[str], set[str]]] = {
    "__init__": (set(), set()),
    "__main__": (set(), {"cli"}),
    "errors": (set(), set()),
    "extras": (set(), set()),
    "variants": ({"pydantic_core"}, set()),
    "metric": (set(), {"errors"}),
    "translation": (set(), {"errors"}),
    "mistakes": (set(), {"plain", "translation", "variants"}),
    "texts": (set(), {"plain", "errors"}),
    "options": (set(), {"texts", "errors"}),
    "plain": ({"yaml"}, {"errors"}),
    "memory": (set(), {"errors"}),
    "signals": (set(), set()),
    "system": (set(), set()),
    "precise": ({"torch"}, set()),
    "turns": (set(), {"system"}),
    "output": (set(), {"errors", "memory", "plain"}),
    "places": (set(), {"errors", "plain"}),
    "files": (set(), {"errors", "plain", "places", "system"}),
    "presets": (set(), {"errors", "extras", "files", "plain"}),
    "images": ({"torch", "numpy", "PIL"}, PLAIN),
    "draws_kernel": ({"torch", "triton"}, set()),
    "draws": ({"torch"}, {"draws_kernel"}),
    "ema": ({"torch"}, {"power"}),
    "power": ({"torch"}, set()),
    "learning_rate": ({"annotated_types"}, set()),
    "schedule": ({"torch"}, {"errors"}),
    "nn": ({"torch", "annotated_types"}, {"errors"}),
    "nn.fused.launch": ({"torch", "triton"}, set()),
    "nn.fused.kernels": ({"torch", "triton"}, {"errors"}),
    "nn.fused.norm": ({"torch", "triton"}, {"errors"}),
    "nn.fused.norm_kernels": ({"triton"}, set()),
    "nn.fused.phases": ({"torch", "triton"}, {"errors"}),
    "nn.fused.tiles": ({"triton"}, set()),
    "perturbation": ({"torch"}, {"draws", "precise", "schedule", "variants", "errors"}),
    "denoiser": ({"torch"}, {"schedule", "nn", "errors"}),
    "times": ({"torch"}, {"draws", "precise", "schedule", "errors"}),
    "weighting": ({"torch"}, {"schedule", "denoiser"}),
    "bound": ({"torch"}, {"schedule", "denoiser"}),
    "objective": (
        {"torch"}, {"bound", "draws", "schedule", "nn", "perturbation", "denoiser", "times", "weighting", "errors"},
    ),
    "sampler": ({"torch"}, {"variants", "draws", "precise", "schedule", "nn", "perturbation", "denoiser", "errors"}),
    "sampler.update_kernel": ({"torch", "triton"}, {"draws", "draws_kernel", "denoiser"}),
    "data": ({"numpy", "PIL", "tqdm", "pyarrow", "pillow_heif"}, PLAIN | {"cores"}),
    "data.inspect": ({"numpy", "PIL"}, {"data", "errors", "images", "plain"}),
    "cores": (set(), set()),
    "apple": ({"torch"}, {"draws"}),
    "engine": ({"torch", "accelerate"}, {"apple", "cores", "errors"}),
    "sections": (
        {"pydantic"},
        {"denoiser", "extras", "learning_rate", "metric", "objective", "power", "sampler", "schedule", "times"}
        | {"variants", "weighting"},
    ),
    "config": (
        {"torch", "pydantic"}, {"sections"} | CORE | PLAIN | {"data", "metric", "mistakes", "presets", "translation"},
    ),
    "settings": (set(), {"config", "errors", "files", "run", "translation", "variants"}),
    "keys": (set(), {"config", "errors", "mistakes", "settings", "variants"}),
    "run": (
        {"torch", "safetensors", "numpy", "PIL", "tqdm"},
        PLAIN | {"apple", "cores", "images", "metric", "power", "__init__"},
    ),
    "sample": (
        {"torch", "accelerate", "safetensors", "numpy", "PIL", "tqdm"},
        MODEL | {"cores", "run", "settings", "__init__"},
    ),
    "evaluate": (
        {"torch", "torch_fidelity", "accelerate", "safetensors", "numpy", "PIL", "tqdm"},
        MODEL | {"run", "sample", "__init__"},
    ),
    "estimate": ({"torch"}, {"config", "plain"}),
    "table": (
        {"torch", "accelerate", "PIL"}, MODEL | {"estimate", "run", "settings", "sample", "evaluate", "__init__"},
    ),
    "tracking": (set(), PLAIN | {"run"}),
    "tracking.tensorboard": ({"accelerate", "torch", "numpy", "PIL"}, {"tracking"}),
    "tracking.wandb": ({"accelerate", "wandb"}, {"tracking"}),
    "tracking.trackio": ({"accelerate", "trackio"}, {"tracking"}),
    "tracking.mlflow": ({"accelerate", "mlflow"}, {"tracking"}),
    "flops": ({"torch"}, {"config"}),
    "train": (
        {"torch", "accelerate", "safetensors", "numpy", "PIL", "tqdm"},
        MODEL | {"estimate", "flops", "interop", "run", "settings", "sample"} | {"evaluate", "tracking", "__init__"},
    ),
    "bench": (
        {"torch", "accelerate", "diffusers", "numpy"},
        MODEL | {"cores", "flops", "run", "sample", "train", "__init__"},
    ),
    "doctor": (
        {"torch", "PIL"},
        PLAIN | {"apple", "config", "data", "ema", "engine", "metric", "run", "schedule", "evaluate"}
        | {"tracking", "__init__"},
    ),
    "doctor.findings": (set(), set()),
    "exposure": (
        {"torch", "accelerate", "numpy", "tqdm"},
        MODEL | {"run", "settings", "sample", "evaluate", "table", "__init__"},
    ),
    "exposure.curves": (set(), {"errors"}),
    "report": (
        {"numpy", "PIL", "matplotlib"}, PLAIN | {"exposure", "exposure.curves", "images", "metric", "run", "__init__"},
    ),
    "sweep": (
        {"torch"},
        MODEL
        | {"estimate", "exposure", "exposure.curves", "places", "report", "run", "settings", "train", "__init__"},
    ),
    "sweep.child": (set(), {"cli"}),
    "reproduce": ({"torch"}, MODEL | {"evaluate", "settings", "sweep", "table"}),
    "ui": (
        {"torch", "numpy", "PIL", "matplotlib"},
        PLAIN | {"config", "denoiser", "images", "notebook", "options", "report", "run", "sample", "sampler", "texts"},
    ),
    "ui.page": ({"gradio", "uvicorn", "fastapi", "starlette"}, PLAIN | {"notebook", "output", "run", "ui"}),
    "demo": (
        {"torch"},
        MODEL
        | {"evaluate", "exposure", "extras", "metric", "presets", "report", "run", "sample", "table", "train"},
    ),
    "parser": (set(), {"errors", "config", "mistakes"}),
    "completion": ({"argcomplete"}, {"metric", "options", "presets", "texts"}),
    "cli": (set(), {"commands", "completion", "cores", "engine", "errors", "output", "parser", "signals", "__init__"}),
    "commands": (
        set(),
        MODEL
        | {"options", "texts", "run", "settings", "sample", "evaluate", "table", "train", "bench", "doctor", "report"}
        | {"demo", "exposure", "exposure.curves", "keys", "parser", "reproduce", "sweep", "ui"}
        | {"interop", "__init__"},
    ),
    "interop": (
        {"torch", "safetensors"},
        CORE | PLAIN | {"config", "data", "metric", "report", "run", "settings", "translation", "__init__"},
    ),
    "interop.hub": ({"huggingface_hub"}, PLAIN),
    "interop.push": ({"huggingface_hub"}, PLAIN),
    "told": (set(), {"config", "errors", "interop", "places", "run", "sampler", "__init__"}),
    "about": ({"torch", "numpy"}, MODEL | {"run"}),
    "own": ({"torch"}, MODEL | {"told", "sample"}),
    "judging": ({"torch", "numpy"}, MODEL | {"run", "sample", "evaluate"}),
    "notebook": (
        {"torch", "numpy"},
        MODEL | {"about", "evaluate", "exposure", "interop", "judging", "run", "settings", "sample", "told", "train"},
    ),
}  # fmt: skip


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def part_of(module: str) -> str:
    return module if module in ALLOWED else module.split(".")[0]


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, at the top or inside a function, also for types only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                path = PACKAGE.parent.joinpath(*inner.split("."))
                is_module = inner.startswith("ddpm_ip.") and (path.with_suffix(".py").exists() or path.is_dir())
                yield inner if is_module else str(node.module)


def without_types(tree: ast.AST) -> ast.Module:
    """A module without what it imports for type checkers alone (``__init__`` lists so what is public)."""
    assert isinstance(tree, ast.Module)
    return ast.Module([node for node in tree.body if not types_only(node)], [])


def types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def violations(module: str, tree: ast.AST) -> list[str]:
    part = part_of(module)
    if part not in ALLOWED:
        return [f"{module}: give this part a line in ALLOWED"]
    outside, inside = ALLOWED[part]
    wrong = []
    for name in imports(tree if module != "__init__" else without_types(tree)):
        top, _, rest = name.partition(".")
        if top == "ddpm_ip":
            # Another part is known by its first name; data.inspect is looked at as data.
            other = rest.split(".")[0] or "__init__"
            fine = other in inside or other == part.split(".")[0]
        else:
            fine = top in sys.stdlib_module_names or top in outside
        if not fine:
            wrong.append(f"{module} imports {name}")
    return wrong


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_one_way(path: Path) -> None:
    assert violations(module_name(path), ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("draws", "from ddpm_ip.schedule import Schedule"),
        ("schedule", "import numpy as np"),
        ("nn.unet", "def f():\n    from ddpm_ip.config import Config"),
        ("nn.unet", "from pydantic import Field"),
        ("weighting", "from ddpm_ip.objective import Objective"),
        ("data.folder", "import torch"),
        ("data.folder", "from ddpm_ip.images import grid"),
        ("data", "from ddpm_ip import images"),
        ("report.page", "import torch"),
        ("report.run", "import yaml"),
        ("files", "import torch"),
        ("plain", "from ddpm_ip.files import read_json"),
        ("sampler.ancestral", "from ddpm_ip.objective import Objective"),
        ("config", "from ddpm_ip.train.loop import train"),
        ("table.program", "from ddpm_ip.report.page import write_report"),
        ("sample.program", "from ddpm_ip.train.state import TrainState"),
        ("evaluate.during", "from ddpm_ip.train.loop import train"),
        ("doctor", "import torchvision"),
        ("doctor.findings", "from ddpm_ip.config import Config"),
        ("cli", "import torch"),
        ("cli", "from ddpm_ip.notebook import load"),
        ("notebook", "from ddpm_ip.table.program import table"),
        ("__init__", "from ddpm_ip.notebook import load"),
        ("schedule", "if TYPE_CHECKING:\n    from ddpm_ip.config import Config"),
        ("novelty", "import os"),
    ],
)
def test_the_rule_sees_a_wrong_edge(module: str, line: str) -> None:
    assert violations(module, ast.parse(line))


def test_the_allowed_edges_have_no_circle() -> None:
    """A part may import what stands above it only: the table is in order (``data.inspect`` counts as data)."""
    done: set[str] = set()
    parts = {part: {p for p in inside if p != part.split(".")[0]} for part, (_, inside) in ALLOWED.items()}
    while parts:
        ready = [part for part, needs in parts.items() if needs <= done]
        assert ready, f"a circle among {sorted(parts)}"
        for part in ready:
            done.add(part)
            del parts[part]


def called(tree: ast.AST) -> set[str]:
    """The dotted names of everything that is called."""
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_file_can_run_code(path: Path) -> None:
    """No pickle, no eval, no YAML but with a safe loader.

    Four modules have one exception each: the name of an extractor, which a person gives, is imported; so are, of this
    package, the modules of public names; and the evaluator's weights, whose hash was checked, are read by PyTorch's
    loader of tensors only, and so are networks from elsewhere.
    """
    module, tree = module_name(path), ast.parse(path.read_text(encoding="utf-8"))
    forbidden = {"eval", "exec", "compile", "__import__", "torch.load", "torch.save", "torch.hub.load", "os.system"}
    forbidden |= {"yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "importlib.import_module"}
    exceptions = {"evaluate.features": {"importlib.import_module"}, "evaluate.extractors.weights": {"torch.load"}}
    exceptions["interop.read"] = {"torch.load"}
    forbidden = forbidden | {"import_module"}
    forbidden -= {**exceptions, "__init__": {"import_module"}}.get(module, set())
    assert not called(tree) & forbidden
    assert not {name.split(".")[0] for name in imports(tree)} & {"dill", "cloudpickle", "joblib", "shelve", "marshal"}
    if module == "evaluate.extractors.weights":
        assert {name for name in called(tree) if name.startswith("pickle.")} == set()  # it knows pickle's errors only
    else:
        assert "pickle" not in {name.split(".")[0] for name in imports(tree)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        name = ast.unparse(node.func)
        if name in ("np.load", "numpy.load"):
            assert keywords.get("allow_pickle") == "False"
        if name == "yaml.load":
            assert (module, keywords.get("Loader")) == ("plain", "_Loader")
        if name == "yaml.dump":
            assert (module, keywords.get("Dumper")) == ("plain", "_Dumper")
        assert keywords.get("shell", "False") == "False"
        assert keywords.get("weights_only", "True" if name != "torch.load" else "not said") == "True"


# Calls that read or write a file by themselves. What comes with the package (importlib.resources) is no file of a run.
OTHER_WAYS = {"os.replace", "json.load", "json.dump", "yaml.dump", "yaml.safe_dump", "yaml.safe_load", "yaml.load"}
OTHER_WAYS_OF_A_PATH = {"read_text", "write_text", "write_bytes"}
WITH_ANOTHER_WAY = {
    "plain": {"yaml.dump", "yaml.load"},
    "files": {"os.replace"},
    "data.cifar10": {"os.replace"},  # the archive that it downloads
    "run.provenance": {"Path('/proc/cpuinfo').read_text"},
    "cores": {"path.read_text"},  # of the system's
}


def other_ways(module: str, tree: ast.AST) -> set[str]:
    """Calls that read or write a file otherwise than ``files.py`` does."""
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, given = ast.unparse(node.func), ast.unparse(node.args[0]) if node.args else ""
        owner, _, last = name.rpartition(".")
        own = name in OTHER_WAYS or (owner and last in OTHER_WAYS_OF_A_PATH and not owner.startswith("files("))
        if own or (name == "json.loads" and not given.startswith(("json.dumps(", "files("))):
            found.add(name)
    return found - WITH_ANOTHER_WAY.get(module, set())


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_files_are_read_and_written_in_one_way(path: Path) -> None:
    assert other_ways(module_name(path), ast.parse(path.read_text(encoding="utf-8"))) == set()


@pytest.mark.parametrize(
    "line",
    [
        "path.write_text(text)",
        "x = json.loads(path.read_text())",
        "json.loads(text)",
        "os.replace(partial, path)",
        "(folder / 'a').write_bytes(b'')",
        "yaml.safe_load(text)",
    ],
)
def test_the_rule_sees_another_way(line: str) -> None:
    assert other_ways("report.run", ast.parse(line))


def loaded_after(code: str) -> set[str]:
    """The top-level modules in memory after some code in a fresh interpreter."""
    code += "\nimport sys\nprint('\\nLOADED', *{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    return set(done.stdout.splitlines()[-1].split()[1:])


def public() -> dict[str, str]:
    """What type checkers see in ``ddpm_ip``: the module of each name."""
    (block,) = filter(types_only, ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")).body)
    found = {}
    for node in ast.walk(block):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert alias.asname == alias.name, "so that it counts as exported"
                found[alias.name] = str(node.module)
    return found


def test_what_is_public_is_said_once() -> None:
    """The table that is used, and what type checkers and editors see."""
    assert {name: f"ddpm_ip.{module}" for name, module in ddpm_ip._HOME.items()} == public()
    assert set(ddpm_ip.__all__) == {"__version__", *public()}
    assert set(ddpm_ip.__all__) <= set(dir(ddpm_ip))


@pytest.mark.parametrize("name", sorted(public()))
def test_a_public_name_is_documented_and_no_module(name: str) -> None:
    """If it were a module's, the import of that module would put the module in its place."""
    assert not {f"{name}.py", name} & {path.name for path in PACKAGE.iterdir()}
    assert getattr(ddpm_ip, name) is getattr(sys.modules[public()[name]], name)
    assert getattr(ddpm_ip, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'ddpm_ip' has no attribute 'lod'"):
        ddpm_ip.lod  # noqa: B018


HEAVY = {
    "torch",
    "numpy",
    "accelerate",
    "pydantic",
    "PIL",
    "yaml",
    "safetensors",
    "matplotlib",
    "pyarrow",
    "tqdm",
    "gradio",
}


def test_help_loads_nothing_heavy() -> None:
    """``ddpm-ip --help`` and that of every command, in one interpreter."""
    code = """
from ddpm_ip.cli import _COMMANDS, main
for words in ([], *([name] for name in _COMMANDS)):
    try:
        main([*words, "--help"])
    except SystemExit as end:
        assert end.code == 0
    else:
        raise AssertionError("help did not exit")
assert set(_COMMANDS) >= {"train", "sample", "evaluate", "data", "table", "report", "doctor"}
"""
    loaded = loaded_after(code)
    assert "ddpm_ip" in loaded
    assert not loaded & HEAVY


def test_the_package_loads_nothing_before_it_is_used() -> None:
    assert not loaded_after("import ddpm_ip\ndir(ddpm_ip), ddpm_ip.__all__, ddpm_ip.__version__") & HEAVY
    assert not loaded_after("import ddpm_ip\nddpm_ip.UserError") & HEAVY
    schedule = loaded_after("import ddpm_ip\nddpm_ip.Schedule()")
    assert "torch" in schedule
    assert not schedule & {"accelerate", "pydantic"}


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("data", {"torch", "accelerate", "pydantic", "pyarrow", "matplotlib"}),
        ("report", {"torch", "accelerate", "pydantic", "matplotlib"}),
        ("doctor", HEAVY),
    ],
)
def test_what_needs_no_torch_loads_none(module: str, absent: set[str]) -> None:
    assert not loaded_after(f"import ddpm_ip.{module}") & absent
