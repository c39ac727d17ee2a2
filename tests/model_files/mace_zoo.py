"""MACE models of every kind that MACE's trainer can make, small and with random weights."""

import numpy as np
import torch

ARGUMENTS = {
    "r_max": 4.0,
    "num_bessel": 4,
    "num_polynomial_cutoff": 5,
    "max_ell": 2,
    "num_interactions": 2,
    "num_elements": 3,
    "hidden_irreps": "8x0e+8x1o",
    "MLP_irreps": "4x0e",
    "avg_num_neighbors": 7.5,
    "atomic_numbers": [1, 6, 8],
    "correlation": 2,
    "radial_MLP": [8, 8],
}
RESIDUAL = "RealAgnosticResidualInteractionBlock"
SCALED = {
    "plain": {},
    "first layer not residual": {"first": "RealAgnosticInteractionBlock"},
    "density": {
        "first": "RealAgnosticDensityInteractionBlock",
        "later": "RealAgnosticDensityResidualInteractionBlock",
    },
    "nonlinear": {
        "later": "RealAgnosticResidualNonLinearInteractionBlock",
        "hidden_irreps": "8x0e+8x1o",
    },
    "tanh": {"gate": "tanh"},
    "abs": {"gate": "abs"},
    "no gate": {"gate": "None"},
    "repulsion": {"pair_repulsion": True},
    "agnesi": {"distance_transform": "Agnesi", "pair_repulsion": True},
    "soft": {"distance_transform": "Soft"},
    "gaussian": {"radial_type": "gaussian"},
    "chebyshev": {"radial_type": "chebyshev"},
    "one layer": {"num_interactions": 1, "hidden_irreps": "8x0e"},
    "three layers, third order": {"num_interactions": 3, "correlation": 3, "max_ell": 1},
    "two heads": {"heads": ["dft", "cc"]},
    "so3": {"use_so3": True, "hidden_irreps": "8x0e+8x1e"},
    "last readout only": {"use_last_readout_only": True},
    "agnostic product": {"use_agnostic_product": True},
    "reduced basis": {"use_reduced_cg": True},
    "edge irreps": {"edge_irreps": "4x0e+4x1o"},
    "bias readout": {"readout": "NonLinearBiasReadoutBlock"},
    "float64": {"dtype": torch.float64},
}


def build(cls="ScaleShiftMACE", dtype=torch.float32, seed=0, **changes):
    """A model of a class of MACE's or ours."""
    import eqplugin.mace  # noqa: F401

    from e3nn.o3 import Irreps  # isort: skip
    from mace.modules import gate_dict, interaction_classes, models, readout_classes

    from eqplugin.exchange import default_dtype
    from eqplugin.mace.models import FAMILIES

    options = {**ARGUMENTS, **changes}
    heads = options.get("heads") or ["Default"]
    energies = np.array([[-13.6, -1029.0, -2042.0]]) + np.arange(len(heads))[:, None]
    options["interaction_cls"] = interaction_classes[options.pop("later", RESIDUAL)]
    options["interaction_cls_first"] = interaction_classes[options.pop("first", RESIDUAL)]
    options["gate"] = gate_dict[options.pop("gate", "silu")]
    if "readout" in options:
        options["readout_cls"] = readout_classes[options.pop("readout")]
    for name in ("hidden_irreps", "MLP_irreps", "edge_irreps"):
        if name in options:
            options[name] = Irreps(options[name])
    if cls in ("ScaleShiftMACE", *FAMILIES):
        options["atomic_inter_scale"] = [0.8] * len(heads)
        options["atomic_inter_shift"] = [0.1] * len(heads)
    if cls in FAMILIES and "feature_dim" in options:
        del options["hidden_irreps"]
    if cls == "AtomicDipolesMACE":
        energies = None
    torch.manual_seed(seed)
    with default_dtype(dtype):
        made = (FAMILIES.get(cls) or getattr(models, cls))(atomic_energies=energies, **options)
    for name, weight in made.named_parameters():  # some start at zero
        if not name.startswith("atomic_energies"):
            with torch.no_grad():
                weight.add_(0.1 * torch.randn_like(weight))
    return made
