"""What a k-hop invariant model cannot see: cis and trans ends of a straight chain.

Two bent ends on k collinear atoms, once on the same side (cis), once on opposite sides (trans).
Every bond length and bond angle agrees; only the torsion across the chain differs. A model whose
features are reset to invariants after every h convolutions tells them apart only if
h >= floor(k / 2) + 1, whatever its weights and however many blocks it has. Run it:

    python examples/what_hops_cannot_see.py
"""

import warnings

import torch
from nequip.data import from_ase
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from nequip.utils.global_state import set_global_state

from eqplugin.nequip import KHopInvariantModel
from eqplugin.theory.structures import CUTOFF, k_chain

warnings.filterwarnings("ignore")
torch.set_default_dtype(torch.float64)
set_global_state()
TYPES = ["H", "C"]


def energy(model, atoms):
    """Energy of a structure in eV, for random weights."""
    to_types = ChemicalSpeciesToAtomTypeMapper(TYPES, {t: t for t in TYPES})
    data = NeighborListTransform(r_max=CUTOFF)(to_types(from_ase(atoms)))
    return model(data)["total_energy"].item()


print("relative change of the energy from cis to trans, random weights, four convolutions\n")
print(f"{'':>22}" + "".join(f"{f'k = {k}':>12}" for k in (2, 3, 4)))
for hops in (1, 2, None):
    model = KHopInvariantModel(
        feature_dim=64,
        l_max=1,
        hops=hops,
        num_layers=4,
        seed=0,
        model_dtype="float64",
        type_names=TYPES,
        r_max=CUTOFF,
        avg_num_neighbors=2.0,
        do_derivatives=False,
    )
    changes = []
    for k in (2, 3, 4):
        cis, trans = energy(model, k_chain(k, "cis")), energy(model, k_chain(k, "trans"))
        changes.append(f"{abs(trans - cis) / abs(cis):>12.1e}")
    label = "never reset" if hops is None else f"reset every {hops} hop{'s' * (hops > 1)}"
    print(f"{label:>22}" + "".join(changes))
