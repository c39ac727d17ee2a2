"""One reader and one judge of structures."""

import gzip
import io

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian, FixedPlane
from ase.io import write
from ase.io.formats import open_with_compression

from eqplugin.errors import EqPluginError
from eqplugin.structures import (
    ReadError,
    check_structure,
    close_pairs,
    read_frames,
    read_structure,
    structure_faults,
)


@pytest.fixture
def three(tmp_path):
    path = tmp_path / "three.xyz"
    write(path, [molecule(name) for name in ("H2O", "CH4", "NH3")])
    return path


def test_frames_by_index(three):
    assert [len(atoms) for atoms in read_frames(three)] == [3, 5, 4]
    assert [len(atoms) for atoms in read_frames(three, "::2")] == [3, 4]
    assert len(read_structure(three)) == 3
    assert len(read_structure(three, 1)) == 5
    assert len(read_structure(three, -1)) == 4


@pytest.mark.parametrize("name", ["mol@2.xyz", "mol@last.xyz"])
def test_an_at_sign_belongs_to_the_name(tmp_path, three, name):
    path = three.rename(tmp_path / name)
    assert [len(atoms) for atoms in read_frames(path)] == [3, 5, 4]
    assert len(read_structure(path)) == 3


@pytest.mark.parametrize("suffix", ["xyz", "cif", "vasp"])  # the last has one structure a file
def test_a_frame_that_is_not_there(tmp_path, suffix):
    path = tmp_path / f"copper.{suffix}"
    write(path, bulk("Cu", cubic=True))
    assert len(read_structure(path)) == 4
    with pytest.raises(ReadError, match=rf"copper\.{suffix} has no frame 7") as caught:
        read_structure(path, 7)
    assert caught.value.code == "empty"


def test_numpy_archives_get_a_hint(tmp_path):
    np.savez(tmp_path / "rmd17.npz", coords=np.zeros((2, 3, 3)))
    with pytest.raises(ReadError, match=r"rmd17\.npz is a NumPy archive.*write extended XYZ"):
        list(read_frames(tmp_path / "rmd17.npz"))


def test_frames_before_a_broken_one_are_read(three):
    with three.open("a") as file:
        file.write("2\n\nH 0 0 0\nQq 0 0 1\n")
    frames, sizes = read_frames(three), []
    with pytest.raises(ReadError, match="frame 3: 'Qq' is not a chemical element") as caught:
        sizes.extend(len(atoms) for atoms in frames)
    assert (caught.value.code, caught.value.frame) == ("unreadable", 3)


def codes(atoms, strict=True):
    return [fault.code for fault in structure_faults(atoms, strict=strict)]


def test_what_only_a_strict_look_refuses():
    doubled = Atoms("H2", [[0, 0, 0], [0, 0, 0.05]])
    # a slab whose third vector lies in its plane
    flat = Atoms("O", cell=[[3, 0, 0], [0, 3, 0], [3, 0, 0]], pbc=[1, 1, 0])
    for atoms, code in ((Atoms("X"), "no_element"), (doubled, "coincident"), (flat, "cell")):
        assert codes(atoms) == [code]
        assert codes(atoms, strict=False) == []
        with pytest.raises(EqPluginError, match=r"^a\.xyz: .*\.$"):
            check_structure(atoms, "a.xyz: ", strict=True)


def test_every_fault_is_found_at_once():
    atoms = Atoms("XH", [[0, 0, np.nan], [0, 0, 0]], cell=[3, 3, 0], pbc=True)
    assert codes(atoms) == ["no_element", "positions", "cell"]
    assert codes(Atoms()) == ["no_atoms"]


def test_vectors_that_are_not_periodic_hide_no_pair():
    positions = [[0, 0, 0], [3.02, 0, 0.01]]
    flat = [[3, 0, 0], [0, 3, 0], [3, 0, 0]]
    slab = Atoms("H2", positions, cell=flat, pbc=[1, 1, 0])
    ((i, j, distance),) = close_pairs(slab)
    assert (i, j) == (0, 1)
    assert distance == pytest.approx(np.hypot(0.02, 0.01))
    assert close_pairs(Atoms("H2", positions, cell=flat)) == []


# --- an empty line, after which ASE reads no further ---------------------------------------------


def with_empty_lines(path, blanks="\n"):
    """Three frames with an empty line after each."""
    texts = []
    for name in ("H2O", "CH4", "NH3"):
        text = io.StringIO()
        write(text, molecule(name), format="extxyz")
        texts.append(text.getvalue())
    with open_with_compression(str(path), "w") as file:
        file.write(blanks.join(texts))
    return path


@pytest.mark.parametrize(
    "name", ["a.xyz", "a.XYZ", "a.extxyz", "a.xyz.gz", "a.xyz.bz2", "a.xyz.xz", "a.dat"]
)
def test_frames_after_an_empty_line_are_not_lost_in_silence(tmp_path, name):
    options = {"format": "extxyz"} if name == "a.dat" else {}
    path = with_empty_lines(tmp_path / name)
    read = []
    with pytest.raises(ReadError, match="line 6 is empty, and reading stops there: the 13") as hit:
        read.extend(read_frames(path, **options))
    assert hit.value.code == "ignored_tail"
    assert len(read) == 1
    for index in (1, -1, "::2"):
        with pytest.raises(ReadError, match="line 6 is empty"):
            list(read_frames(path, index, **options))
    # the first frame is there, whatever follows
    assert len(next(read_frames(path, 0, **options))) == 3


@pytest.mark.parametrize("name", ["a.xyz", "a.XYZ", "a.xyz.gz", "a.dat"])
def test_empty_lines_at_the_end_hide_nothing(tmp_path, name):
    options = {"format": "extxyz"} if name == "a.dat" else {}
    path = with_empty_lines(tmp_path / name, blanks="")
    with open_with_compression(str(path), "a") as file:
        file.write("\n  \n\n")
    assert [len(atoms) for atoms in read_frames(path, **options)] == [3, 5, 4]


# --- constraints in files ------------------------------------------------------------------------


def fixed_water(kind):
    atoms = molecule("H2O")
    atoms.info["REF_energy"] = -1.0
    forces = np.arange(9.0).reshape(3, 3) + 1
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=forces)
    atoms.set_constraint(kind)
    return atoms, forces


@pytest.mark.parametrize("suffix", ["xyz", "traj", "json", "db"])
@pytest.mark.parametrize(
    "kind",
    [FixAtoms([0, 1]), [FixCartesian(0, [True, False, False])], FixedPlane(0, [0, 0, 1])],
    ids=lambda kind: str(kind)[:12],
)
def test_constraints_do_not_touch_the_labels(tmp_path, suffix, kind):
    atoms, forces = fixed_water(kind)
    write(tmp_path / f"fixed.{suffix}", atoms)
    read = read_structure(tmp_path / f"fixed.{suffix}")
    assert not read.constraints
    np.testing.assert_allclose(read.get_forces(), forces)


def test_constraints_are_kept_where_they_are_asked_for(tmp_path):
    write(tmp_path / "fixed.xyz", fixed_water(FixAtoms([0, 1]))[0])
    (read,) = read_frames(tmp_path / "fixed.xyz", constraints=True)
    assert list(read.constraints[0].index) == [0, 1]


# --- a wrong number of atoms ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["typo.xyz", "typo.extxyz", "typo.xyz.gz"])
@pytest.mark.parametrize("number", ["40000000000", "4" * 40])
def test_a_frame_of_more_atoms_than_lines_is_refused_at_once(tmp_path, three, name, number):
    lines = three.read_text().splitlines(keepends=True)
    second = int(lines[0]) + 2
    lines[second] = number + "\n"
    opened = gzip.open if name.endswith("gz") else open
    with opened(tmp_path / name, "wt") as file:
        file.writelines(lines)
    with pytest.raises(ReadError, match=f"frame 1: its first line says {number} atoms, but only"):
        list(read_frames(tmp_path / name))
    with pytest.raises(ReadError, match="correct the number"):
        read_structure(tmp_path / name)  # ASE counts one frame ahead
