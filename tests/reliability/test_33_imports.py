"""What is imported is the standard library, what the package asks for, or an extra where it is used; nothing runs code.

Which module may import which is in tests/test_imports.py, against the table of docs/architecture.md, with pickles,
``eval``, ``yaml.load`` and every other way to open a file.
"""

import ast
import sys
from pathlib import Path

from tests.reliability.test_32_install import section

import ddpm_ip

PACKAGE = Path(ddpm_ip.__file__).parent
MODULES = {"pillow": "PIL", "pyyaml": "yaml", "annotated-types": "annotated_types", "torch-fidelity": "torch_fidelity"}
SERVER = {"fastapi", "starlette", "uvicorn"}  # what gradio stands on, of the page that imports gradio alone
OPTIONAL = {"triton", "pillow_heif", "pydantic_core"}  # come with torch and pydantic, or are used where they are there


def imported(tree: ast.AST, inside: bool) -> set[str]:
    """Top-level packages, those at the top of the module or those inside of functions."""
    found = set()
    for node in ast.walk(tree) if inside else top(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.split(".")[0])
    return found - {"ddpm_ip", *sys.stdlib_module_names}


def top(tree: ast.AST):
    """What runs when the module is imported."""
    for node in tree.body:
        is_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) and not is_for_types:
            yield from ast.walk(node)


def packages(*sections: str) -> set[str]:
    return {MODULES.get(name, name) for part in sections for name in section(part)}


def test_nothing_is_imported_that_nobody_asked_for():
    """And an extra only where it is used; Triton by the modules of kernels, which are such places."""
    needed, extras = (
        packages("dependencies"),
        packages("log", "wandb", "trackio", "mlflow", "plot", "parquet", "hub", "completion", "eval", "demo", "dev")
        | OPTIONAL,
    )
    strangers, early = {}, {}
    for path in sorted(PACKAGE.rglob("*.py")):
        tree, name = ast.parse(path.read_text(encoding="utf-8")), str(path.relative_to(PACKAGE))
        strangers[name] = imported(tree, inside=True) - needed - extras
        early[name] = imported(tree, inside=False) - needed - {"triton", "pydantic_core"}
        if name == "ui/page.py":
            strangers[name] -= SERVER
            early[name] -= SERVER | {"gradio"}
    assert len(strangers) > 100
    assert {name: found for name, found in strangers.items() if found} == {}
    assert {name: found for name, found in early.items() if found} == {}


def test_the_rule_sees_a_stranger():
    tree = ast.parse("import os, requests\nfrom torch import nn\ndef f():\n    import boto3.session\n")
    assert imported(tree, inside=False) == {"requests", "torch"}
    assert imported(tree, inside=True) == {"requests", "torch", "boto3"}
