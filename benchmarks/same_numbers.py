"""Check that two checkouts of kdp compute the same numbers, bit for bit, on one machine.

Every stage of every model family runs for a few seeded steps on the CPU, with tiny networks and
the samples that are built into kdp; same_numbers.yml lists the runs. Then all tensors of the
artifacts are compared: parameters, masks, scores and their parts, and cached targets.
Run: python benchmarks/same_numbers.py OLD NEW [--only NAME]; OLD may be a folder of results that
python benchmarks/same_numbers.py OLD --save FOLDER has written. Where OLD lacks a key whose default
has changed, NEW runs with the former default: FORMER_DEFAULTS.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import runpy
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from torch import Tensor

COMPARED = ("params", "masks", "scores", "parts", "targets")
"""The keys of an artifact whose tensors are compared."""
RENAMED = {"teach": "cache-targets"}
"""New names of commands, used where a checkout has them."""
FORMER_DEFAULTS = {"task_reduction": "mean"}
"""Keys of the section `distill`, with the values that checkouts without them computed with."""
LIBRARIES = (
    *("accelerate", "cv2", "hydra", "matplotlib.figure", "pydantic.main", "rich.progress"),
    *("scipy.ndimage", "skimage.data", "torch._dynamo", "torch_pruning", "transformers", "typer"),
)
"""Imported once, to save time: every command runs in a fork of the process that imported them."""


@dataclass(frozen=True)
class Chain:
    """Stages that share one configuration.

    Attributes:
        family: the model family.
        name: of the chain; it writes to `results/<name>`.
        stages: commands, in order.
        config: text of the configuration file.
        needs: names of the chains whose networks it reads.
    """

    family: str
    name: str
    stages: list[str]
    config: str
    needs: set[str]


def plan() -> dict[str, Chain]:
    """All chains by name, each after the chains it needs."""
    families = yaml.safe_load(Path(__file__).with_suffix(".yml").read_text())
    del families["shared"]
    return {
        name: _chain(family, name, settings)
        for family, chains in families.items()
        for name, settings in chains.items()
    }


def _chain(family: str, name: str, settings: dict[str, Any]) -> Chain:
    stages = settings.pop("stages").split()
    output = {"name": name, "dir": f"results/{name}", "runs": "runs"}
    plain = json.dumps({"seed": 1, "device": "cpu", "output": output, **settings})
    text = yaml.safe_dump(json.loads(plain))  # the round trip resolves YAML aliases
    config = re.sub(r"'@(\w+?)(_rebuilt)?'", r"results/\1/\1\2.pth", text)
    return Chain(family, name, stages, config, set(re.findall(r"results/(\w+)/", config)) - {name})


def chosen(only: str | None) -> list[Chain]:
    """The chains of a family, or one chain, with all that they need; every chain for None."""
    chains = plan()
    names = {chain.name for chain in chains.values() if only in (None, chain.family, chain.name)}
    while more := {need for name in names for need in chains[name].needs} - names:
        names |= more
    return [chain for chain in chains.values() if chain.name in names]


def run(checkout: Path, folder: Path, chains: Sequence[Chain]) -> bool:
    """Run chains with the code of a checkout in a new folder; True if all commands succeed."""
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"{folder} is not empty")
    print(f"{checkout}:", flush=True)
    (folder / "configs").mkdir(parents=True)
    for chain in chains:
        (folder / "configs" / f"{chain.name}.yml").write_text(chain.config)
    python = checkout / ".venv" / "bin" / "python"
    command = [str(python) if python.exists() else sys.executable, str(Path(__file__).resolve())]
    command += ["--run", str(checkout), *(chain.name for chain in chains)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode == 0


def run_here(checkout: Path, names: Sequence[str]) -> bool:
    """Run chains in the current folder, one command at a time; True if all succeed."""
    processor = f"{platform.platform()}, {torch.backends.cpu.get_cpu_capability()}"
    Path("machine.txt").write_text(f"torch {torch.__version__}, {processor}\n")
    spec = find_spec("kdp")
    if not spec or not Path(spec.origin or "").is_relative_to(checkout):
        raise SystemExit(f"kdp is not imported from {checkout}: {spec}")
    for library in LIBRARIES:
        import_module(library)
    newer = {old: new for old, new in RENAMED.items() if kdp([new, "--help"], Path("help.txt"))}
    chains = plan()
    return sum(not _run_chain(chains[name], newer) for name in names) == 0


def _run_chain(chain: Chain, newer: Mapping[str, str]) -> bool:
    before = _seconds()
    for stage in chain.stages:
        command, log = newer.get(stage, stage), Path(f"{chain.name}_{stage}.txt")
        if not kdp([command, "--config", f"configs/{chain.name}.yml"], log):
            print(f"  {chain.name}: kdp {command} failed:\n{log.read_text()[-2000:]}", flush=True)
            return False
    print(f"  {chain.name}: {_seconds() - before:.1f} s", flush=True)
    return True


def _seconds() -> float:
    """CPU time of all commands so far."""
    times = os.times()
    return times.children_user + times.children_system


def kdp(arguments: Sequence[str], log: Path) -> bool:
    """Run a command in a fork of this process, with its output in `log`; True if it succeeds."""
    process = multiprocessing.get_context("fork").Process(target=_kdp, args=(arguments, log))
    process.start()
    process.join()
    return process.exitcode == 0


def _kdp(arguments: Sequence[str], log: Path) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = ["kdp", *arguments]
    runpy.run_module("kdp", run_name="__main__", alter_sys=True)


def check_saved(folder: Path, chains: Sequence[Chain]) -> None:
    """Exit unless a folder holds results of these chains with these settings."""
    for chain in chains:
        config = folder / "configs" / f"{chain.name}.yml"
        if not config.exists() or config.read_text() != chain.config:
            raise SystemExit(f"{folder} has no {chain.name} with these settings; run --save again")


def with_former_defaults(chain: Chain, results: Path) -> Chain:
    """The chain with the defaults of the checkout that wrote the results, if it lacks keys."""
    config = yaml.safe_load(chain.config)
    known: set[str] = set()
    for path in (results / "results" / chain.name).rglob("*.pth"):
        record = torch.load(path, map_location="cpu", weights_only=True).get("record", {})
        known.update(record.get("config", {}).get("distill") or ())
    former = {key: value for key, value in FORMER_DEFAULTS.items() if key not in known}
    if not config.get("distill") or not known or not former:
        return chain
    config["distill"] = {**former, **config["distill"]}
    return replace(chain, config=yaml.safe_dump(config))


def compare(old: Path, new: Path, chains: Sequence[Chain]) -> bool:
    """Print a line for every file; True if all old files are there and equal."""
    if len({(root / "machine.txt").read_text() for root in (old, new)}) > 1:
        print("warning: the machine or the version of torch differs, so tensors may differ")
    differ = total = 0
    for chain in chains:
        folders = [root / "results" / chain.name for root in (old, new)]
        names = [{path.relative_to(f) for path in f.rglob("*.pth")} for f in folders]
        for name in sorted(names[0]):
            equal, outcome = compare_files(folders[0] / name, folders[1] / name)
            differ, total = differ + (not equal), total + 1
            print(f"{chain.name}/{name}: {outcome}")
        for name in sorted(names[1] - names[0]):
            print(f"{chain.name}/{name}: only in the new results")
    print(f"{differ} of {total} files differ" if differ else f"all {total} files are equal")
    return total > 0 and not differ


def compare_files(old: Path, new: Path) -> tuple[bool, str]:
    """Compare every tensor of the old file; return whether all are equal, and a description."""
    if not new.exists():
        return False, "missing in the new results"
    before, after = (tensors(path) for path in (old, new))
    for name, tensor in before.items():
        deviation = difference(tensor, after[name]) if name in after else "missing"
        if deviation:
            return False, f"{name}: {deviation}"
    extra = f" and {len(after) - len(before)} new ones" if len(after) > len(before) else ""
    return True, f"equal, {len(before)} tensors{extra}"


def tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of an artifact that are compared, by key and name."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    held = ((place, content.get(place, {}).items()) for place in COMPARED)
    return {f"{place} {name}": tensor for place, items in held for name, tensor in items}


def difference(old: Tensor, new: Tensor) -> str | None:
    """Describe how two tensors differ; None if dtype, shape and all bits are equal."""
    for what in ("dtype", "shape"):
        if getattr(old, what) != getattr(new, what):
            return f"its {what} was {getattr(old, what)} and is {getattr(new, what)}"
    bits = [tensor.contiguous().flatten().view(torch.uint8) for tensor in (old, new)]
    if torch.equal(*bits):
        return None
    count = int((bits[0] != bits[1]).view(old.numel(), -1).any(1).sum())
    largest = float((old.double() - new.double()).abs().max())
    return f"{count} of {old.numel()} numbers differ, by {largest:.3g} at most"


def run_and_compare(old: Path, new: Path, folder: Path, chains: Sequence[Chain]) -> bool:
    """Run NEW, and OLD unless it is a folder of results; True if all succeeds and is equal."""
    before, after, done = old, folder / "new", True
    if (old / "kdp").is_dir():
        before, done = folder / "old", run(old.resolve(), folder / "old", chains)
    check_saved(before, chains)
    done = run(new.resolve(), after, [with_former_defaults(c, before) for c in chains]) and done
    same = compare(before, after, chains)
    if not done:
        print("a command failed: see above")
    return done and same


def main() -> None:
    if sys.argv[1:2] == ["--run"]:  # the process that `run` starts
        raise SystemExit(not run_here(Path(sys.argv[2]), sys.argv[3:]))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("old", type=Path, help="a checkout, or a folder written by --save")
    parser.add_argument("new", type=Path, nargs="?", help="a checkout")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="run only OLD, into FOLDER")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the results in FOLDER")
    parser.add_argument("--only", metavar="NAME", help="run one family or one chain")
    options = parser.parse_args()
    if bool(options.save) == bool(options.new):
        parser.error("give NEW, or --save FOLDER")
    chains = chosen(options.only)
    if not chains:
        parser.error(f"there is no {options.only}; chains are {', '.join(plan())}")
    if options.save:
        raise SystemExit(not run(options.old.resolve(), options.save, chains))
    with TemporaryDirectory() as folder:
        good = run_and_compare(options.old, options.new, options.keep or Path(folder), chains)
    raise SystemExit(not good)


if __name__ == "__main__":
    main()
