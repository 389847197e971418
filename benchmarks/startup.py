"""How long a person waits for an answer: ``--help``, ``doctor``, and the first step of the digits, from the command on.

    python benchmarks/startup.py --out benchmarks/results/NAME.json [--times 5]

Each command is started in a process of its own, so many times, on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from ddpm_ip.run.provenance import provenance

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "configs/ddpm_ip_digits.yaml"
ONE_STEP = ["--train.n_steps", "1", "--train.print_freq", "1", "--train.sample_freq", "0"]
COMMANDS = {
    "--help": ["--help"],
    "doctor": ["doctor"],
    "doctor -c": ["doctor", "-c", str(DIGITS)],
    "train, to the first step": ["train", "-c", str(DIGITS), *ONE_STEP, "-e", "run"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    here = provenance()
    result = {
        "date": date.today().isoformat(),
        **{key: here[key] for key in ("hardware", "versions", "git")},
        "made_by": "benchmarks/startup.py",
        "seconds": {name: [seconds(words) for _ in range(args.times)] for name, words in COMMANDS.items()},
    }
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


def seconds(words: list[str]) -> float:
    """From the start of a command to its end; of a training to the line of its first step."""
    program = f"import sys; from ddpm_ip.cli import main; sys.exit(main({words!r}))"
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            if "step 1/1 " in line:
                break
        else:
            process.wait()
        took = time.perf_counter() - start
        output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} failed:\n{output}")
    return round(took, 2)


if __name__ == "__main__":
    main()
