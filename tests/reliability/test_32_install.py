"""The package is light to ask for help, says its version, and asks for nothing that would change an installed torch.

Whether it can be installed at all, into an environment of its own from a wheel, with torch untouched, ``pip check``
clean and ``doctor`` content, is ``make test-install`` (docs/releasing.md), which needs packages from somewhere. How few
modules each command loads is in tests/test_imports.py.
"""

import re
import sys

import pytest
from tests.tiny import ROOT, finish, start

from ddpm_ip import __version__
from ddpm_ip.cli import main

PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
HEAVY = {"torch", "numpy", "accelerate", "pydantic", "PIL", "yaml", "safetensors", "tqdm"}


def section(name: str) -> list[str]:
    """The packages of a list of pyproject.toml, without versions and conditions."""
    found = re.search(rf"^{name} = \[(.*?)\]\n", PROJECT, re.MULTILINE | re.DOTALL)
    return [re.match(r"[\w.-]+", line).group() for line in re.findall(r'"([^"]+)"', found[1])]


def test_help_and_version_in_a_process_of_their_own(tmp_path):
    """Away from the checkout, as a user calls it; what is loaded is counted, and not timed."""
    program = "import sys; from ddpm_ip.cli import main\ntry: main(sys.argv[1:])\n"
    program += "finally: print('loaded', *sorted({name.split('.')[0] for name in sys.modules}))"
    for given, said in ((["--help"], "train"), (["--version"], __version__), (["sample", "--help"], "--n_samples")):
        code, output = finish(start("-c", program, *given, cwd=tmp_path))
        assert code == 0, output
        assert said in output
        assert not HEAVY & set(output.splitlines()[-1].split())


def test_the_version_is_that_of_the_project(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.split() == ["ddpm-ip", __version__]
    assert f'version = "{__version__}"' in PROJECT


def test_nothing_asks_for_another_torch():
    """No upper bound of it, no CUDA package, and no torchvision but through the extra of which that is said."""
    assert '"torch>=2.6"' in PROJECT
    wanted = {name: section(name) for name in ("dependencies", "log", "plot", "parquet", "dev")}
    assert {"torch", "accelerate"} <= set(wanted["dependencies"])
    for name, packages in wanted.items():
        assert packages, name
        assert not [p for p in packages if p.startswith(("nvidia", "cuda", "torchvision", "torch-fidelity"))], name
    assert section("eval") == ["torch-fidelity"]


def test_the_oldest_python_is_told():
    oldest = tuple(map(int, re.search(r'requires-python = ">=(\d+)\.(\d+)"', PROJECT).groups()))
    assert sys.version_info >= oldest
    assert f'target-version = "py{oldest[0]}{oldest[1]}"' in PROJECT
