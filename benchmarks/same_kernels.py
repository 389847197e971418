"""Whether the kernels of the CIFAR-10 network compile to the same code as those of another commit; it needs no GPU.

    git worktree add --detach /tmp/before COMMIT
    python benchmarks/same_kernels.py --old /tmp/before --out benchmarks/results/NAME.json

Each tree compiles those of a training step for a Hopper GPU (benchmarks/compile_time.py). Compared is the PTX, without
comments and the lines that lead back to the source.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import date
from pathlib import Path

from ddpm_ip.run.provenance import provenance

HERE = Path(__file__).resolve().parents[1]
NO_CODE = (".loc", ".file", "$L__tmp", "$L__func")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="a checkout of the other commit")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    old, today = kernels(args.old.resolve()), kernels(HERE)
    here = provenance()
    result = {
        "date": date.today().isoformat(),
        **{key: here[key] for key in ("hardware", "versions")},
        "git": {**(here["git"] or {}), "old": head(args.old)},
        "made_by": "benchmarks/same_kernels.py",
        "kernels": {"old": old.total(), "today": today.total(), "same": (old & today).total()},
    }
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def kernels(tree: Path) -> Counter[tuple[str, str]]:
    """The name and code of each kernel, and how often it is there."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
        environment |= {"TRITON_CACHE_DIR": cache, "PYTHONPATH": str(tree / "src")}
        command = [sys.executable, "benchmarks/compile_time.py", "--only", "apart"]
        subprocess.run(command, cwd=tree, env=environment, stdout=subprocess.DEVNULL, check=True)
        return Counter((path.stem, code(path.read_text())) for path in Path(cache).rglob("*.ptx"))


def code(ptx: str) -> str:
    lines = (line.split("//")[0].strip() for line in ptx.split(".section")[0].splitlines())
    return "\n".join(line for line in lines if line and not line.startswith(NO_CODE))


def head(tree: Path) -> str:
    command = ["git", "-C", str(tree), "rev-parse", "HEAD"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
