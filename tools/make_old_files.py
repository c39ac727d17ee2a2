"""Write the files in tests/old_files/ with the eqplugin of a certain commit.

    git worktree add /tmp/old 80472b0 && make -C /tmp/old setup
    OMP_NUM_THREADS=1 /tmp/old/.venv/bin/python tools/make_old_files.py /tmp/old_files

Trains tiny models of each kind with the commands and configs of that commit, stops trainings and a
run of dynamics half-way, runs a study, and writes what that package says of them to reference.json.
tests/old_files/test_old_files.py holds every later version to it. Five minutes on one idle core.
The folder must be new; its path ends up inside the checkpoints.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

BIN = Path(sys.executable).parent
EPOCHS = {"stopped": 2, "resumed": 4}
MD_STEPS = 300
TINY_NEQUIP = (
    "feature_dim=16", "num_layers=2", "r_max=4.0", "batch_size=4",
    "++training_module.model.radial_mlp_width=8",
    "++training_module.model.type_embed_num_features=8",
    "train_files=data/train.xyz", "val_files=data/val.xyz",
)  # fmt: skip
TINY_MACE = {
    "feature_dim": 16, "batch_size": 4, "train_file": "data/train.xyz",
    "valid_file": "data/val.xyz", "E0s": "data/isolated_atoms.xyz",
}  # fmt: skip
STUDY = """\
defaults: [study_schema, _self_]
name: old
out: study
feature_dim: 16
data:
  train: data/train.xyz
  val: data/val.xyz
  test: {300K: data/test.xyz}
  isolated_atoms: data/isolated_atoms.xyz
train: {steps: 24, batch_size: 4, lr: 0.01, r_max: 4.0}
nequip:
  num_layers: 2
  options: {training_module.model.radial_mlp_width: 8, trainer.gradient_clip_val: 1.0}
mace: {num_layers: 2}
speed_repeats: 2
arms:
  degrees: {l_max: [0, 1], seed: [1, 2]}
  hops: {hops: [1], seed: [1, 2]}
  mace: {family: [mace], seed: [1, 2]}
  parameters: {match: [parameters], l_max: [0, 4], seed: [1]}
"""


def main() -> None:
    """Write everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="a new folder")
    out = parser.parse_args().out.absolute()
    out.mkdir(parents=True)
    os.chdir(out)  # the files hold paths as they were given, so all are given relative to here

    import eqplugin

    package = Path(eqplugin.__file__).parents[1]
    if version("eqplugin") != eqplugin.__version__:
        raise SystemExit(f"{package} is not the eqplugin that is installed here")
    print(f"eqplugin of {package}, {commit_of(package)}")
    write_data(package / "examples" / "data" / "ethanol_xtb")
    copy_configs(package / "configs")
    commands = commands_of()
    for name, command in commands.items():
        if name in ("nequip", "mace"):
            for part in ("stopped", "resumed"):
                run(command, package, scratch=f"scratch/{name}-{part}", epochs=EPOCHS[part])
        elif name != "md":
            run(command, package)
    interrupt_dynamics(commands["md"], package)
    keep()
    write_reference(package, commands)
    for path in sorted(file for file in out.rglob("*") if file.is_file()):
        print(f"{path.stat().st_size:9d} {path.relative_to(out)}")


def write_data(source: Path) -> None:
    """Write a few frames, a molecule and the same in a box, and the study's config."""
    from ase.io import read, write

    data = Path("data")
    data.mkdir()
    for name, file, frames in (
        ("train", "train_300K", "::25"),
        ("val", "val_300K", "::13"),
        ("test", "test_300K", "::25"),
        ("start", "test_300K", "0"),
    ):
        write(data / f"{name}.xyz", read(source / f"{file}.xyz", frames), format="extxyz")
    shutil.copy(source / "isolated_atoms.xyz", data)
    molecule = read(source / "test_600K.xyz", 7)
    molecule.calc = None
    molecule.info.clear()
    boxed = molecule.copy()
    boxed.set_cell([[6, 0, 0], [0.5, 6.5, 0], [0, -0.5, 7]])  # images see each other
    boxed.pbc = True
    write(data / "structures.xyz", [molecule, boxed], format="extxyz")
    Path("study.yaml").write_text(STUDY)


def copy_configs(source: Path) -> None:
    """Keep the configs that are used: users have copies of such files."""
    for file in ("mace/steerable_minimal", "nequip/steerable_minimal", "nequip/khop_minimal",
                 "nequip/dataset/ethanol_xtb"):  # fmt: skip
        target = Path("configs", f"{file}.yaml")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / f"{file}.yaml", target)


def commands_of() -> dict[str, list[str]]:
    """Command lines by name, in the order in which they are run.

    {configs}, {scratch} and {epochs} are filled in for each run.
    """
    nequip = ["nequip-train", "-cp", "{configs}/nequip", "-cn"]
    accelerated = ["modifiers=[enable_CompiledTP,enable_FoldedSelfConnection]"]
    khop = ["khop_minimal", *TINY_NEQUIP, "hops=1", "contraction=bispectrum"]
    float64 = ["model_dtype=float64"]
    # of what is resumed: the schedule must not depend on where it was stopped
    schedule = ["training_module.lr_scheduler.scheduler.T_max=4"]
    mace = ["--max_num_epochs", "4"]
    return {
        "steerable": [*nequip, "steerable_minimal", *TINY_NEQUIP, "max_epochs=60",
                      "hydra.run.dir=scratch/steerable"],
        "khop": [*nequip, *khop, *accelerated, "max_epochs=4", "hydra.run.dir=scratch/khop"],
        "package": ["nequip-package", "build", "scratch/khop/best.ckpt",
                    "scratch/khop.nequip.zip"],
        # the compiled file names the module that loads our operators
        "compile": ["nequip-compile", "scratch/khop/best.ckpt", "scratch/khop.nequip.pt2",
                    "--mode", "aotinductor", "--device", "cpu", "--target", "ase",
                    "--modifiers", "enable_CompiledTP"],
        "mace-steerable": mace_train("steerable", "scratch/mace-steerable", *mace),
        "mace-khop": mace_train("khop", "scratch/mace-khop", "--hops", "1", "--max_L", "0", *mace),
        "products": ["eqplugin", "products", "scratch/mace-steerable/mace.model",
                     "scratch/converted.model"],
        "nequip": [*nequip, *khop, *float64, *schedule, "max_epochs={epochs}",
                   "hydra.run.dir={scratch}"],
        "mace": mace_train("steerable", "{scratch}", "--max_num_epochs", "{epochs}",
                           "--default_dtype", "float64"),
        "study": ["eqplugin", "study", "study.yaml"],
        "report": ["eqplugin", "report", "study"],
        "md": ["eqplugin", "md", "models/steerable.ckpt", "data/start.xyz", "--steps",
               str(MD_STEPS), "--every", "10", "--timestep", "0.25", "--dtype", "float64",
               "--out", "{scratch}"],
    }  # fmt: skip


def mace_train(kind: str, folder: str, *options: str) -> list[str]:
    """Command line of a MACE training."""
    config = ["--config", f"{{configs}}/mace/{kind}_minimal.yaml"]
    tiny = [part for key, value in TINY_MACE.items() for part in (f"--{key}", str(value))]
    return ["eqplugin", "mace-train", *config, "--name", "mace", "--work_dir", folder, *tiny,
            *options]  # fmt: skip


def filled(command: Iterable[str], package: Path, **places: object) -> list[str]:
    """Return a command line with its places filled in."""
    program, *arguments = (part.format(configs=package / "configs", **places) for part in command)
    return [str(BIN / program), *arguments]


def run(command: Iterable[str], package: Path, **places: object) -> None:
    """Run a command to its end."""
    line = filled(command, package, **places)
    print(" ".join(line), flush=True)
    with Path("scratch.log").open("a") as log:
        subprocess.run(line, check=True, stdout=log, stderr=subprocess.STDOUT)


def interrupt_dynamics(command: list[str], package: Path) -> None:
    """Run it to its end in scratch/md, and in md/ until Ctrl-C after some frames."""
    Path("models").mkdir()
    shutil.copy("scratch/steerable/best.ckpt", "models/steerable.ckpt")
    run(command, package, scratch="scratch/md")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    process = subprocess.Popen(filled(command, package, scratch="md"))
    log = Path("md/log.csv")
    while not log.is_file() or log.read_text().count("\n") < 6:
        if process.poll() is not None:
            raise SystemExit("the dynamics ended before it could be interrupted")
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    if process.wait() != 130:
        raise SystemExit("the dynamics did not end as it does on Ctrl-C")


def keep() -> None:
    """Sort what is kept out of scratch/, without what is large and of no use."""
    models = Path("models")
    for source, name in (
        ("khop/best.ckpt", "khop.ckpt"),
        ("khop.nequip.zip", "khop.nequip.zip"),
        ("khop.nequip.pt2", "khop.nequip.pt2"),
        ("mace-steerable/mace.model", "mace_steerable.model"),
        ("mace-khop/mace.model", "mace_khop.model"),
        ("converted.model", "mace_steerable_converted.model"),
    ):
        shutil.copy(f"scratch/{source}", models / name)
    Path("resume/nequip").mkdir(parents=True)
    shutil.copy("scratch/nequip-stopped/last.ckpt", "resume/nequip")
    shutil.copytree("scratch/mace-stopped/checkpoints", "resume/mace/checkpoints")
    wanted = ("plan.json", "speed.json", "results.jsonl", "result.jsonl", "report.md")
    for path in Path("study").rglob("*"):
        if path.is_file() and path.parent.name != "data" and path.name not in wanted:
            path.unlink()
    for leftover in ("md/.lock", "scratch.log"):
        Path(leftover).unlink(missing_ok=True)


def write_reference(package: Path, commands: dict[str, list[str]]) -> None:
    """Write what the package says of its files; then drop what is not kept."""
    reference = {
        "made_with": surroundings(package),
        "epochs": EPOCHS["resumed"],
        "steps": MD_STEPS,
        "commands": commands,
        "models": {
            str(path): {"own": evaluate(path)}
            | ({} if path.suffix == ".pt2" else {"float64": evaluate(path, "float64")})
            for path in sorted(Path("models").iterdir())
        },
        "resumed": {
            "nequip": evaluate("scratch/nequip-resumed/last.ckpt"),
            "mace": evaluate("scratch/mace-resumed/mace.model"),
        },
        "dynamics": dynamics("scratch/md"),
    }
    Path("reference.json").write_text(json.dumps(reference) + "\n")
    shutil.rmtree("scratch")
    compiled = Path("models/khop.nequip.pt2")
    Path(f"{compiled}.xz").write_bytes(lzma.compress(compiled.read_bytes(), preset=9))
    compiled.unlink()


def evaluate(path: str | Path, dtype: str | None = None) -> list[dict[str, object]]:
    """Return energy (eV), forces (eV/A) and, where periodic, stress (eV/A^3) of the structures."""
    from ase.io import read

    from eqplugin import EqCalculator

    calculator = EqCalculator(path, dtype=dtype)
    found = []
    for atoms in read("data/structures.xyz", ":"):
        atoms.calc = calculator
        numbers = {
            "energy": float(atoms.get_potential_energy()),
            "forces": atoms.get_forces().tolist(),
        }
        if atoms.pbc.all():
            numbers["stress"] = atoms.get_stress().tolist()
        found.append(numbers)
    return found


def dynamics(folder: str | Path) -> dict[str, object]:
    """Return the last frame of a run: positions (A), momenta (ASE's unit)."""
    import numpy as np

    with np.load(Path(folder) / "restart.npz") as stored:
        return {name: stored[name].tolist() for name in ("positions", "momenta")}


def surroundings(package: Path) -> dict[str, object]:
    """Return what decides the last bits."""
    packages = ("eqplugin", "torch", "e3nn", "nequip", "mace-torch", "ase", "numpy")
    versions = {name: version(name) for name in packages}
    return {
        "commit": commit_of(package),
        "processor": cpuinfo("model name"),
        "flags": cpuinfo("flags").split(),
        "versions": versions,
    }


def cpuinfo(key: str) -> str:
    """Return what the system says of the processor, empty where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    found = (line.split(":", 1)[1].strip() for line in lines if line.startswith(key))
    return next(found, "")


def commit_of(package: Path) -> str:
    """Return the commit that the package is a checkout of."""
    line = ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=7"]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
