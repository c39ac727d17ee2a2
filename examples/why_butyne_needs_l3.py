"""2-butyne, CH3-C≡C-CH3: a torsion that no model with l_max < 3 can see.

The carbons of the chain have three-fold axes. An average over three equal spokes has no l = 1 or
l = 2 part that turns with them, so below l = 3 nothing in the features of the chain says how a
methyl group is turned, however many of them there are, and the two ends cannot be compared.

    python examples/why_butyne_needs_l3.py
"""

import warnings

from nequip.data import compute_neighborlist_, from_ase
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper
from nequip.utils.global_state import set_global_state

from eqplugin import find_sites, recommended_l_max, stabilizer_dimensions
from eqplugin.nequip import KHopInvariantModel
from eqplugin.theory.structures import CUTOFF, rotor

warnings.filterwarnings("ignore")
set_global_state()
TYPES = ["H", "C"]

site = find_sites(rotor(3, k=4))[0]
print(f"methyl carbon: {site.group.name}, dim V_l^Stab for l = 0..4:", end=" ")
print(*stabilizer_dimensions(site.group, 4, "natural"))
print(f"smallest l_max that fixes how it is turned: {recommended_l_max(site.group)}\n")


def energy(model, twist):
    """Energy in eV with one methyl group turned by an angle, random weights."""
    data = ChemicalSpeciesToAtomTypeMapper(TYPES, {t: t for t in TYPES})(
        from_ase(rotor(3, twist, k=4))
    )
    return model(compute_neighborlist_(data, CUTOFF))["total_energy"].item()


print("relative energy change when one methyl group turns, random weights\n")
angles = (10, 20, 30, 40, 50, 60)
print(f"{'':>22}" + "".join(f"{f'{a} deg':>10}" for a in angles))
for l_max, feature_dim in ((1, 64), (1, 512), (2, 512), (3, 128), (4, 200)):
    model = KHopInvariantModel(
        feature_dim=feature_dim, l_max=l_max, hops=None, num_layers=3, contraction="power",
        seed=0, model_dtype="float64", type_names=TYPES, r_max=CUTOFF, avg_num_neighbors=2.0,
        do_derivatives=False,
    )  # fmt: skip
    eclipsed = energy(model, 0.0)
    changes = [abs(energy(model, a) - eclipsed) / abs(eclipsed) for a in angles]
    print(f"{f'l_max {l_max}, D = {feature_dim}':>22}" + "".join(f"{c:>10.1e}" for c in changes))
print("\nA wider l_max = 1 or 2 model does not help: here the type matters, not the dimension.")
