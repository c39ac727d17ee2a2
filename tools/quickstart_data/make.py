"""Make the quick-start datasets: the same bytes from the same seeds.

Molecular dynamics is chaotic. On another processor, or with another version of tblite, ASE or
numpy, a difference in the last digit grows until the trajectory is a different (equally good) one,
so the frames may differ from the shipped ones after some time. The labels *of given positions* do
not: :func:`quickstart_data.verify.verify_labels` recomputes them and is the test of a shipped file.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ase import Atoms

from eqplugin.data.errors import DataError
from eqplugin.files import write_json
from quickstart_data.cuau import CUAU
from quickstart_data.ethanol import ETHANOL
from quickstart_data.recipe import Dataset, FileRecipe
from quickstart_data.record import RECORD, read_record, sha256, write_frames

__all__ = ["DATASETS", "MadeFile", "get_dataset", "make_dataset", "make_frames"]

DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in (ETHANOL, CUAU)}

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class MadeFile:
    """One file of a dataset after :func:`make_dataset`.

    Args:
        path: where it is
        frames: how many it holds
        reused: True if it was there already, whole and as recorded
    """

    path: Path
    frames: int
    reused: bool


def get_dataset(name: str) -> Dataset:
    """Look up a dataset by name.

    Raises:
        DataError: unknown name
    """
    if name not in DATASETS:
        raise DataError(f"There is no dataset '{name}': choose {' or '.join(DATASETS)}.")
    return DATASETS[name]


def _selected_recipes(dataset: Dataset, only: Iterable[str]) -> list[FileRecipe]:
    wanted = [name.removesuffix(".xyz") for name in only]
    known = [recipe.stem for recipe in dataset.files]
    for name in wanted:
        if name not in known:
            raise DataError(f"{dataset.name} has no file '{name}': choose {', '.join(known)}.")
    return [recipe for recipe in dataset.files if not wanted or recipe.stem in wanted]


def make_frames(
    dataset: Dataset, recipe: FileRecipe, progress: Progress | None = None
) -> list[Atoms]:
    """Simulate and label the frames of one file.

    Args:
        dataset: knows the method
        recipe: knows the seeds
        progress: called with (file name, frames done, frames in all)

    Returns:
        labelled frames; info holds ``config_type``, ``temperature_K``, ``traj_seed``, ``frame``

    Raises:
        DataError: tblite is missing, or a molecule did not stay bonded
    """
    total, done = sum(t.frames for t in recipe.trajectories), 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(recipe.filename, done, total)

    if recipe.fixed:
        return [dataset.label(atoms) for atoms in recipe.fixed()]
    frames = []
    for run in recipe.trajectories:
        for index, atoms in enumerate(dataset.simulate(run, tick)):
            atoms.info.update(
                config_type=recipe.stem,
                temperature_K=run.temperature_K,
                traj_seed=run.seed,
                frame=index,
            )
            frames.append(dataset.label(atoms))
    return frames


def _new_record(dataset: Dataset) -> dict:
    return {
        "name": dataset.name,
        "units": {"energy": "eV", "positions": "A", "forces": "eV/A", "stress": "eV/A^3"},
        "method": dataset.method,
        "sampling": dataset.sampling,
        "files": {},
    }


def _open_record(dataset: Dataset, folder: Path, *, fresh: bool) -> dict:
    """The folder's record, or a new one.

    Raises:
        DataError: the folder holds another dataset, or files of other settings that would stay
    """
    record, new = read_record(folder), _new_record(dataset)
    if record is None:
        return new
    if record["name"] != dataset.name:
        raise DataError(
            f"{folder} holds the dataset {record['name']}: choose another folder for "
            f"{dataset.name}."
        )
    if fresh:
        return new
    for part in ("method", "sampling"):
        if record.get(part) != new[part]:
            raise DataError(
                f"{folder} was made with another {part}: choose another folder, or make all of it "
                "again with --force and without --only."
            )
    return record


def _entry(dataset: Dataset, recipe: FileRecipe, path: Path, num_frames: int) -> dict:
    """What is recorded of a file. No time or machine name: the same run writes the same bytes."""
    versions = {package: version(package) for package in dataset.packages}
    return {
        "purpose": recipe.purpose,
        "frames": num_frames,
        "trajectories": recipe.plan(),
        "sha256": sha256(path),
        "versions": {"python": platform.python_version(), **versions},
    }


def _reusable(path: Path, entry: dict | None, recipe: FileRecipe) -> bool:
    """Whether the file is there, whole and made by this recipe.

    Raises:
        DataError: something else is there, which is not ours to overwrite
    """
    if not path.exists():
        return False
    if entry is None:
        raise DataError(
            f"{path} exists but {RECORD} beside it does not record it: move it away, or pass "
            "--force to overwrite it."
        )
    if entry["sha256"] != sha256(path) or entry["trajectories"] != recipe.plan():
        raise DataError(
            f"{path} is not the file that {RECORD} or this version's recipe describes: move it "
            "away, or pass --force to make it again."
        )
    return True


def make_dataset(
    name: str,
    out: str | Path,
    *,
    only: Iterable[str] = (),
    force: bool = False,
    progress: Progress | None = None,
) -> list[MadeFile]:
    """Make a dataset, or the files of it that are missing.

    A file appears under its name only when it is whole, so an interrupted run is resumed by
    running it again. See the module's text for what "deterministic" means here.

    Args:
        name: ``ethanol-xtb`` or ``cuau-emt``
        out: folder, made if needed
        only: file names (with or without ``.xyz``); all if empty
        force: make files again that are there already
        progress: called with (file name, frames done, frames in all)

    Returns:
        one entry per file

    Raises:
        DataError: unknown name or file, a foreign file in the way, tblite missing, a molecule that
            did not stay bonded, or a folder that cannot be written
    """
    dataset = get_dataset(name)
    only, folder = tuple(only), Path(out)
    recipes = _selected_recipes(dataset, only)
    record = _open_record(dataset, folder, fresh=force and not only)
    reusable = {
        r.stem: not force and _reusable(folder / r.filename, record["files"].get(r.filename), r)
        for r in recipes
    }  # looked at before any work, so that a mistake shows at once and not after an hour
    made = []
    for recipe in recipes:
        path = folder / recipe.filename
        if not reusable[recipe.stem]:
            frames = make_frames(dataset, recipe, progress)
            write_frames(path, frames)
            record["files"][recipe.filename] = _entry(dataset, recipe, path, len(frames))
            _save(folder, dataset, record)
        count = record["files"][recipe.filename]["frames"]
        made.append(MadeFile(path, count, reusable[recipe.stem]))
    return made


def _save(folder: Path, dataset: Dataset, record: dict) -> None:
    """Write the record with its files in the recipe's order, however they came to be made."""
    order = [recipe.filename for recipe in dataset.files]
    record["files"] = {n: record["files"][n] for n in order if n in record["files"]}
    write_json(folder / RECORD, record, error=DataError)
