"""``python -m tests.stress``: prints a table of what was tried, and how each fault can be seen again."""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import redirect_stdout
from datetime import date
from pathlib import Path
from types import ModuleType

from tests.stress import damages, kills, races, readers
from tests.stress.cases import Case, Outcome, run_all
from tests.tiny import CORES
from tqdm import tqdm

from ddpm_ip.run.provenance import provenance

PARTS: dict[str, ModuleType] = {"mutations": readers, "damages": damages, "kills": kills, "races": races}
PLAYS = {part: module.play for part, module in PARTS.items()}
HARD = ("train", "train", "train", "sample", "sample-npz", "table", "evaluate")  # training is killed most
COLUMNS = ("cases", "success", "refused", "kills", "signals", "starts", "faults")


def mutations(n: int, seed: int) -> list[Case]:
    """At least ``n`` cases, shared among the readers."""
    whole = sum(map(readers.share, readers.READERS))
    counts = {name: math.ceil(n * readers.share(name) / whole) for name in readers.READERS}
    return [Case("mutations", name, i, seed) for name, count in counts.items() for i in range(count)]


def damaged(seed: int) -> list[Case]:
    """Every damage to every file that a command uses."""
    return [Case("damages", name, i, seed) for name in damages.COMMANDS for i in range(damages.cases(name))]


def killed(n: int, seed: int) -> list[Case]:
    """At least ``n`` kills, and half as many signals to training."""
    cases = [Case("kills", HARD[i % len(HARD)], i, seed) for i in range(-(-n // kills.ENDS))]
    return cases + [Case("kills", kills.GENTLE + "train", i, seed) for i in range(-(-n // (2 * kills.ENDS)))]


def raced(n: int, seed: int) -> list[Case]:
    """``n`` races of each kind."""
    return [Case("races", name, i, seed) for name in races.RACES for i in range(n)]


def chosen(args: argparse.Namespace) -> list[Case]:
    """The cases that the options ask for."""
    if args.case is not None:
        return [Case(args.part, args.name, args.case, args.seed)]
    made = {
        "mutations": lambda: mutations(args.cases, args.seed),
        "damages": lambda: damaged(args.seed),
        "kills": lambda: killed(args.kills, args.seed),
        "races": lambda: raced(-(-args.kills // 10), args.seed),
    }
    cases = [case for part in ([args.part] if args.part else PARTS) for case in made[part]()]
    return [case for case in cases if args.name in (None, case.name)]


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit code."""
    args = _arguments(argv)
    os.sched_setaffinity(0, {CORES[0]})  # good files are made on one core, as all else
    start = time.monotonic()
    logging.disable(logging.CRITICAL)
    with redirect_stdout(open(os.devnull, "w")):
        cases = chosen(args)
        for part, name in dict.fromkeys((case.part, case.name) for case in cases):
            PARTS[part].prepare(name)
    totals: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    faults: defaultdict[str, list[Outcome]] = defaultdict(list)
    seconds: defaultdict[str, float] = defaultdict(float)
    for outcome in tqdm(run_all(cases, PLAYS, CORES), total=len(cases), disable=None, unit="case"):
        totals[outcome.case.part, outcome.case.name] += outcome.counts
        seconds[outcome.case.part] += outcome.seconds
        if outcome.fault:
            faults[f"{outcome.case.part} {outcome.case.name}: {outcome.kind}"].append(outcome)
    minutes = round((time.monotonic() - start) / 60, 1)
    _print(totals, faults, minutes)
    if args.out:
        args.out.write_text(json.dumps(_result(args, totals, faults, seconds) | {"minutes": minutes}, indent=1) + "\n")
    return int(bool(faults))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__, allow_abbrev=False)
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (default: %(default)s)")
    parser.add_argument("--cases", type=int, default=50_000, help="mutations over all readers (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=100, help="with SIGKILL, at least (default: %(default)s)")
    parser.add_argument("--part", choices=tuple(PARTS), help="only this part")
    parser.add_argument("--name", help="only what has this name in the first column of the table")
    parser.add_argument("--case", type=int, metavar="NUMBER", help="only this case of --part and --name")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="also write the figures there")
    args = parser.parse_args(argv)
    if args.case is not None and not (args.part and args.name):
        parser.error("--case needs --part and --name")
    return args


def _print(totals: dict[tuple[str, str], Counter[str]], faults: dict[str, list[Outcome]], minutes: float) -> None:
    print(f"{'part':<10} {'name':<18}" + "".join(f"{column:>9}" for column in COLUMNS))
    whole = sum(totals.values(), Counter())
    for (part, name), counts in [*totals.items(), (("all", ""), whole)]:
        print(f"{part:<10} {name:<18}" + "".join(f"{counts[column] or '':>9}" for column in COLUMNS))
    for kind, outcomes in sorted(faults.items(), key=lambda item: -len(item[1])):
        print(f"\n{len(outcomes)} x {kind}\n    {outcomes[0].fault}\n    {outcomes[0].case.again}")
    print(f"\n{whole['faults'] or 'no'} faults in {whole['cases']:,} cases, {minutes:.1f} minutes")


def _result(
    args: argparse.Namespace,
    totals: dict[tuple[str, str], Counter[str]],
    faults: dict[str, list[Outcome]],
    seconds: dict[str, float],
) -> dict[str, object]:
    about = provenance()
    parts: dict[str, Counter[str]] = {part: Counter(dict.fromkeys(COLUMNS, 0)) for part, _ in totals}
    for (part, _), counts in totals.items():
        parts[part].update(counts)
    return {
        "date": date.today().isoformat(),
        "hardware": about["hardware"],
        "versions": about["versions"],
        "commit": about["git"],
        "made_by": "python -m tests.stress " + " ".join(sys.argv[1:]),
        "what": "cases of each part and what came of them; a fault is an end that is neither success nor a UserError; "
        "seconds are those of one core",
        "seed": args.seed,
        "cores": len(CORES),
        "parts": {part: {**counts, "seconds": round(seconds[part])} for part, counts in parts.items()},
        "names": {f"{part} {name}": dict(counts) for (part, name), counts in totals.items()},
        "faults": {kind: {"times": len(found), "again": found[0].case.again} for kind, found in faults.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
