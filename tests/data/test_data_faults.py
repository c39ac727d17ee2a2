"""Every bad input gives its own sentence and a non-zero exit."""

import numpy as np
import pytest
from data_frames import crystal, moved, renamed, run_check, water, with_value

WRONG_SHAPE = """2
Properties=species:S:1:pos:R:3:forces:R:2 energy=-1.0 pbc="F F F"
H 0 0 0 0.1 0.2
H 0 0 0.8 0.1 0.2
"""
UNKNOWN_ELEMENT = WRONG_SHAPE.replace("H 0 0 0.8", "Qq 0 0 0.8").replace("forces:R:2", "a:R:2")
TRUNCATED = "\n".join(WRONG_SHAPE.splitlines()[:3]) + "\n"
BAD_ENERGY = """1
Properties=species:S:1:pos:R:3:forces:R:3 energy=low pbc="F F F"
H 0 0 0 0 0 0
"""

# frames (or text), further arguments, the whole sentence
BAD = {
    "empty": ("", [], "train.xyz holds no frames: give a file with at least one."),
    "not xyz": (
        "hello\nworld\n",
        [],
        "train.xyz cannot be read at frame 0 (XYZError: ase.io.extxyz: Expected xyz header but "
        "got: invalid literal for int() with base 10: 'hello\\n'): repair it, or save it in a "
        "format that ASE recognises.",
    ),
    "truncated": (
        TRUNCATED,
        [],
        "train.xyz cannot be read at frame 0 (XYZError: ase.io.extxyz: Frame has 1 atoms, expected "
        "2): repair it, or save it in a format that ASE recognises.",
    ),
    "no element": (
        UNKNOWN_ELEMENT,
        [],
        "train.xyz, frame 0: 'Qq' is not a chemical element; correct the first column.",
    ),
    "species": (
        [water(0), water(1)],
        ["--species", "H,C"],
        "train.xyz, frame 0: O is not among the species H, C; add it to the list or remove these "
        "frames.",
    ),
    "species option": (
        [water(0)],
        ["--species", "H,O,Hx"],
        "'Hx' in the list of species is not a chemical element: correct it.",
    ),
    "no energy": (
        [water(0, energy=None), water(1, energy=None)],
        [],
        "train.xyz: no frame has an energy (they have forces); label the frames.",
    ),
    "no forces": (
        [water(0, forces=None), water(1, forces=None)],
        [],
        "train.xyz: no frame has forces (they have energy); label the frames, or ask for energies "
        "only (`--no-forces`).",
    ),
    "no stress": (
        [water(0)],
        ["--stress"],
        "train.xyz: no frame has a stress (they have forces, energy); label the frames.",
    ),
    "other energy key": (
        [renamed(0, "dft_"), renamed(1, "dft_")],
        [],
        "train.xyz: no frame has an energy, but they have 'dft_energy'; pass the key mapping "
        "`dft_energy: total_energy`.",
    ),
    "other force key": (
        [renamed(0, "dft_"), renamed(1, "dft_")],
        [],
        "train.xyz: no frame has forces, but they have 'dft_forces'; pass the key mapping "
        "`dft_forces: forces`.",
    ),
    "partly labelled": (
        [water(0), water(1, forces=None), water(2), water(3, forces=None)],
        [],
        "train.xyz: 2 of 4 frames (first: 1, 3) have no forces (they have energy); label these "
        "frames or remove them.",
    ),
    "nan energy": (
        [water(0), water(1, energy=np.nan)],
        [],
        "train.xyz, frame 1: the energy is NaN or infinite; remove the frame.",
    ),
    "energy is a word": (
        BAD_ENERGY,
        [],
        "train.xyz, frame 0: the energy is not a number ('low'); correct it or remove the frame.",
    ),
    "nan force": (
        [water(0), with_value("forces", (2, 1), np.nan)],
        [],
        "train.xyz, frame 1: the force on atom 2 (H) is NaN or infinite; remove the frame.",
    ),
    "infinite force": (
        [with_value("forces", (0, 0), np.inf)],
        [],
        "train.xyz, frame 0: the force on atom 0 (O) is NaN or infinite; remove the frame.",
    ),
    "nan position": (
        [water(0), moved(1, (0, np.nan, 0))],
        [],
        "train.xyz, frame 1: atom 1 (H) has the position [0.0, nan, 0.0]; positions must be finite "
        "and within 1e6 A.",
    ),
    "force shape": (
        WRONG_SHAPE,
        [],
        "train.xyz, frame 0: forces have the shape (2, 2) instead of (2, 3); write them as the "
        "column `forces:R:3`.",
    ),
    "coincident": (
        [water(0), moved(1, water(1).positions[0] + (0, 0, 0.05))],
        [],
        "train.xyz, frame 1: atoms 0 (O) and 1 (H) are 0.050 A apart; remove one of them.",
    ),
    "no cell": (
        [crystal(np.zeros((3, 3)))],
        [],
        "train.xyz, frame 0: the structure is periodic along lattice vector a, which is zero; give "
        "the cell, or set pbc to F there.",
    ),
    "flat cell": (
        [crystal([[4, 0, 0], [0, 4, 0], [4, 4, 0]])],
        [],
        "train.xyz, frame 0: the periodic lattice vectors [[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [4.0, "
        "4.0, 0.0]] are not independent; correct the cell.",
    ),
    "e0s": (
        [water(0)],
        ["--e0s", '{"H": -13.6}'],
        "train.xyz: no isolated-atom energy (E0) for O (given: H); add the missing energies, "
        "computed with the method of the data.",
    ),
    "e0s number": (
        [water(0)],
        ["--e0s", '{"H": "low", "O": 1}'],
        "The isolated-atom energies: the energy of H is 'low'; give a number in eV.",
    ),
    "e0s not json": (
        [water(0)],
        ["--e0s", "{H: 1}"],
        "The isolated-atom energies: this is not JSON (Expecting property name enclosed in double "
        'quotes: line 1 column 2 (char 1)); write it like {"H": -13.6}.',
    ),
    "e0s file": (
        [water(0)],
        ["--e0s", "none.xyz"],
        "The file of isolated-atom energies none.xyz is missing: check the path.",
    ),
    "r_max": (
        [water(0)],
        ["--r-max", "0"],
        "r_max is 0 A: the cutoff must be positive, such as 5.0.",
    ),
    "blank line": (
        WRONG_SHAPE.replace("R:2", "R:3").replace("0.1 0.2", "0.1 0.2 0.3") * 2 + "\n1\n\nH 0 0 0",
        [],
        "train.xyz: line 9 is empty, and reading stops there: the 2 lines after it would be "
        "ignored; remove the empty line.",
    ),
    "reversed mapping": (
        [renamed(0)],
        ["--key", "forces=REF_forces"],
        "The key mapping 'forces: REF_forces' is the wrong way round: write the file's key first, "
        "'REF_forces: forces'.",
    ),
    "half a mapping": (
        [renamed(0)],
        ["--key", "REF_forces"],
        "--key REF_forces: write KEY=LABEL, such as REF_forces=forces.",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_each_fault_has_its_sentence(name, store):
    frames, options, sentence = BAD[name]
    result = run_check(store(frames), *options)
    assert f"eqplugin: error: {sentence}\n" in result.stderr
    assert result.exit_code == 1
    assert "Traceback" not in result.output
