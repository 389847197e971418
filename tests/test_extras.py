"""The advice on installing extras fits how the package is installed, and is given in one way."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tiny import ROOT

import ddpm_ip
from ddpm_ip.doctor.machine import EXTRAS
from ddpm_ip.extras import how_to_install

PACKAGE = Path(ddpm_ip.__file__).parent


def test_in_this_checkout():
    assert how_to_install("plot") == f'pip install -e ".[plot]" in {ROOT}'
    assert how_to_install("log", "parquet") == f'pip install -e ".[log,parquet]" in {ROOT}'


@pytest.mark.parametrize(
    ("place", "beside", "expected"),
    [
        ("site-packages", None, 'pip install "ddpm-ip[plot]"'),
        ("src", None, 'pip install "ddpm-ip[plot]"'),  # a package that somebody copied is no checkout
        ("project/lib", "project/pyproject.toml", 'pip install "ddpm-ip[plot]"'),
        ("my checkout/src", "my checkout/pyproject.toml", 'pip install -e ".[plot]" in {home}/my checkout'),
    ],
)
def test_wherever_the_package_is(tmp_path, place, beside, expected):
    home = tmp_path.resolve()
    package = home / place / "ddpm_ip"
    package.mkdir(parents=True)
    for name in ("__init__.py", "extras.py", "errors.py"):
        shutil.copy(PACKAGE / name, package)
    if beside:
        (home / beside).write_text("[project]\n")
    code = "from ddpm_ip.extras import how_to_install; print(how_to_install('plot'))"
    env = {"PYTHONPATH": str(package.parent)}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=home, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected.format(home=home)


def test_every_message_takes_it_from_there():
    own = re.compile(r"pip install [^\n]*(ddpm-ip|\.)\[")
    found = {path.name for path in PACKAGE.rglob("*.py") if own.search(path.read_text(encoding="utf-8"))}
    assert found == {"extras.py"}


def test_the_extras_that_are_named_exist():
    listed = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional-dependencies]")[2]
    known = re.findall(r"^(\w+) = \[", listed.partition("\n[")[0], flags=re.MULTILINE)
    sources = [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")]
    named = {name for text in sources for name in re.findall(r"how_to_install\(['\"](\w+)", text)}
    assert {"plot", "log", "parquet"} <= named | set(EXTRAS.values())
    assert named | set(EXTRAS.values()) <= set(known)
