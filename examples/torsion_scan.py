"""Biphenyl turns about its middle bond: GFN2-xTB, and what short-sighted models can learn of it.

Three models with random weights turn each geometry into 64 invariant features, summed over atoms;
a least-squares fit to xTB energies at every other angle is all the training there is. What is not
in the features cannot be fitted: the 1-hop model and the l = 1 model see the same molecule at
every angle. Needs tblite (`pip install tblite`). Writes torsion_scan.png. Run it:

    python examples/torsion_scan.py
"""

import sys
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
from ase import Atoms
from nequip.data import compute_neighborlist_, from_ase
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper
from nequip.utils.global_state import set_global_state

from eqplugin import capture_features
from eqplugin.nequip import KHopInvariantModel

mpl.use("Agg")
from matplotlib import pyplot as plt

try:
    from tblite.ase import TBLite
except ImportError:
    sys.exit("torsion_scan.py compares with GFN2-xTB: install it with pip install tblite")

warnings.filterwarnings("ignore")
set_global_state()
TYPES, R_MAX = ["H", "C"], 1.75  # A: only bonded atoms are neighbours
ANGLES = np.arange(0.0, 181.0, 7.5)


def biphenyl(angle):
    """Two benzene rings in a row along z, the second turned by an angle in degrees."""
    turns = np.deg2rad(np.arange(0, 360, 60))
    ring = np.stack([np.sin(turns), 0 * turns, np.cos(turns)], axis=1)
    carbons, hydrogens = 1.395 * ring, 2.48 * ring[1:]
    half = np.concatenate([carbons, hydrogens]) - [0.0, 0.0, 1.395 + 0.74]
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    turn = np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    return Atoms("C6H5C6H5", np.concatenate([half, -half @ turn]))


def features(options):
    """Invariant features of all geometries: (num_angles, 64)."""
    model = KHopInvariantModel(
        **options, reset_width=64, contraction="power", seed=0, model_dtype="float64",
        type_names=TYPES, r_max=R_MAX, avg_num_neighbors=3.0, do_derivatives=False,
        polynomial_cutoff_p=40,  # a steep cutoff: the bond between the rings is near it
    )  # fmt: skip
    rows = []
    for angle in ANGLES:
        mapper = ChemicalSpeciesToAtomTypeMapper(TYPES, {t: t for t in TYPES})
        data = compute_neighborlist_(mapper(from_ase(biphenyl(angle))), R_MAX)
        with capture_features(model) as layers:
            model(data)
        rows.append(layers[-1].values.sum(dim=0).numpy())
    return np.array(rows)


def fitted(rows, energies):
    """Least squares at every other angle, then predictions at all of them."""
    known = slice(None, None, 2)
    centre, middle = rows[known].mean(axis=0), energies[known].mean()
    scale = np.abs(rows[known] - centre).max()
    if scale < 1e-12 * np.abs(rows).max():  # the same features at every angle: only a constant
        return np.full_like(energies, middle)
    weights = np.linalg.lstsq((rows[known] - centre) / scale, energies[known] - middle, rcond=1e-10)
    return middle + (rows - centre) / scale @ weights[0]


reference = []
for angle in ANGLES:
    molecule = biphenyl(angle)
    molecule.calc = TBLite(method="GFN2-xTB", verbosity=0)
    reference.append(molecule.get_potential_energy())
reference = 1000 * (np.array(reference) - min(reference))  # meV

MODELS = {
    "1 hop, l_max = 2": {"feature_dim": 128, "l_max": 2, "hops": 1, "num_layers": 3},
    "never reset, l_max = 1": {"feature_dim": 128, "l_max": 1, "hops": None, "num_layers": 3},
    "2 hops, l_max = 2": {"feature_dim": 128, "l_max": 2, "hops": 2, "num_layers": 2},
}
figure, axis = plt.subplots(figsize=(5.6, 3.5), dpi=150, layout="constrained")
axis.plot(ANGLES, reference, color="0.6", lw=5, label="GFN2-xTB", solid_capstyle="round")
print(f"{'model':<24}{'features change by':>20}{'RMSE at new angles (meV)':>28}")
for (label, options), colour, dash in zip(
    MODELS.items(), ("#D55E00", "#CC79A7", "#0072B2"), ("-", (0, (4, 4)), "-"), strict=True
):
    rows = features(options)
    change = np.abs(rows - rows[0]).max() / np.abs(rows).max()
    predicted = fitted(rows, reference)
    error = np.sqrt(np.mean((predicted - reference)[1::2] ** 2))
    print(f"{label:<24}{change:>20.1e}{error:>28.1f}")
    axis.plot(ANGLES, predicted, color=colour, ls=dash, lw=1.6, label=label)
axis.set(xlabel="torsion of biphenyl (degrees)", ylabel="energy (meV)", xticks=range(0, 181, 30))
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, 1.2))
figure.savefig(Path("torsion_scan.png"))
print("\nWritten: torsion_scan.png")
