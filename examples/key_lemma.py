"""The key lemma in forty lines: steerable features are invariants, seen from a frame.

A NequIP model's hidden features (scalars, vectors, tensors) change when the molecule turns. Seen
from a frame that turns along they do not: D numbers of any type are D invariants. Run it:

    python examples/key_lemma.py
"""

import warnings

from ase.build import molecule
from nequip.data import compute_neighborlist_, from_ase
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper
from nequip.utils.global_state import set_global_state

from eqplugin import capture_features, from_invariants, to_invariants
from eqplugin.nequip import SteerableModel
from eqplugin.theory.canonical import DegenerateFrameError

warnings.filterwarnings("ignore")
set_global_state()
TYPES = ["H", "C", "O"]
model = SteerableModel(
    feature_dim=128, l_max=3, num_layers=3, seed=0, model_dtype="float64",
    type_names=TYPES, r_max=3.0, avg_num_neighbors=5.0, do_derivatives=False,
)  # fmt: skip


def hidden(atoms):
    """Features (num_nodes, 128) after the second convolution, and their types."""
    data = ChemicalSpeciesToAtomTypeMapper(TYPES, {t: t for t in TYPES})(from_ase(atoms))
    with capture_features(model) as layers:
        model(compute_neighborlist_(data, 3.0))
    return layers[1].values, layers[1].irreps


atoms = molecule("CH3CH2OH")
atoms.rattle(0.1, seed=1)  # as in any snapshot of a simulation: no symmetry left
turned = atoms.copy()
turned.rotate(70, (1, 2, 3))

(f, irreps), (g, _) = hidden(atoms), hidden(turned)
lam, mu = to_invariants(f, irreps, atoms), to_invariants(g, irreps, turned)
back = from_invariants(mu, irreps, turned)

print(f"features {irreps}, D = {irreps.dim}")
print(f"the molecule turns, the features change by {(f - g).norm() / f.norm():8.1e}")
print(f"                 their invariants change by {(lam - mu).norm() / lam.norm():8.1e}")
print(f"        and they give the features again to {(back - g).norm() / g.norm():8.1e}")

# Where a site is symmetric there is no frame, and fewer than D numbers: see docs/theory.md.
try:
    methane = molecule("CH4")
    to_invariants(hidden(methane)[0], irreps, methane)
except DegenerateFrameError as error:
    print(f"\nmethane: {error}")
