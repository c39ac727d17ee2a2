"""Every mistake is one sentence that names the culprit."""

import sys

import numpy as np
import pytest
import torch
from ase import Atoms
from calculators_under_test import R_MAX, build, shared, structure

from eqplugin import EqCalculator
from eqplugin.calculator.loading import kind_of
from eqplugin.errors import EqPluginError
from eqplugin.nequip import modify


def forces(atoms, **options):
    atoms.calc = EqCalculator(shared(), **options)
    return atoms.get_forces()


def changed(change, name="bulk"):
    atoms = structure(name)
    change(atoms)
    return atoms


def put(atoms, atom, value):
    atoms.positions[atom, 1] = value


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "the structure has no atoms"),
        (Atoms("OCuC"), r"does not know Cu \(atom 1\): it was trained for H, C, O"),
        (Atoms(numbers=[6, 150]), r"does not know atomic number 150 \(atom 1\)"),
        (Atoms("OX"), r"does not know X \(atom 1\)"),
        (changed(lambda a: put(a, 4, np.nan)), r"atom 4 \(C\) has the position .*nan"),
        (changed(lambda a: put(a, 3, -np.inf)), r"atom 3 \(O\) has the position .*inf"),
        (changed(lambda a: put(a, 4, 1e9)), "within 1e6 A"),
        (Atoms("O", pbc=True), "periodic along lattice vector a, which is zero"),
        (
            Atoms("O", cell=[3, 0, 0], pbc=[1, 0, 1]),
            "periodic along lattice vector c, which is zero",
        ),
        (
            Atoms("O", cell=[[3, 0, 0], [6, 0, 0], [0, 0, 3]], pbc=[1, 1, 0]),
            "periodic lattice vectors .* are not independent",
        ),
        (Atoms("O", cell=[[3, 0, 0], [0, np.nan, 0], [0, 0, 3]]), "entries that are not finite"),
        (Atoms("OC", [[0, 0, 0], [0, 0, 1e-6]]), r"O \(atom 0\) and C \(atom 1\) have the same"),
        (Atoms("O", cell=[1e-5] * 3, pbc=True), "too dense|same position"),
        (Atoms("O", cell=[0.02] * 3, pbc=True), "too dense"),
    ],
)
def test_structures(atoms, message):
    with pytest.raises(EqPluginError, match=message) as caught:
        forces(atoms)
    assert "\n" not in str(caught.value)


def test_stale_results_do_not_survive_an_error():
    atoms = structure("bulk")
    calculator = EqCalculator(shared())
    atoms.calc = calculator
    atoms.get_forces()
    atoms.positions[0, 0] = np.nan
    for _ in range(2):
        with pytest.raises(EqPluginError):
            atoms.get_forces()
    assert calculator.results == {}
    atoms.positions[0, 0] = 0.0
    assert np.isfinite(atoms.get_forces()).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "device='gpu' is not known"),
        ({"device": "meta"}, "device='meta' is not supported"),
        ({"skinn": 0.3}, "has no option 'skinn'"),
        ({"dtype": "float16"}, "dtype='float16' is not valid"),
        ({"skin": -0.1}, "skin=-0.1 is not valid"),
        ({"skin": float("nan")}, "skin=nan is not valid"),
        ({"skin": "wide"}, "skin='wide' is not valid"),
        ({"neighbors": "ase"}, "neighbors='ase' is not known"),
        ({"compile": "jit"}, "compile='jit' is not known"),
        ({"head": "Default"}, "head cannot be used with"),
        (
            {"modifiers": ["enable_Magic"]},
            "'enable_Magic' is not a model modifier of the model .*: use some of .*enable_",
        ),
        ({"modifiers": ["enable_OpenEquivariance"]}, "does not run on device=cpu"),
        ({"modifiers": ["enable_CuEquivariance"]}, "does not run on device=cpu"),
        ({"compile": "aoti-cudagraphs"}, "is for device='cuda', not cpu"),
        ({"species_to_type": {"Xx": "H"}}, "'Xx' is not a chemical symbol"),
        ({"species_to_type": {"Cu": "copper"}}, "'copper', which the model .* does not have"),
    ],
)
def test_options(options, message):
    with pytest.raises(EqPluginError, match=message):
        EqCalculator(shared(), **options)


@pytest.mark.parametrize(
    "name, package",
    [("OpenEquivariance", "openequivariance"), ("CuEquivariance", "cuequivariance_torch")],
)
def test_kernels_whose_package_is_not_installed(name, package, monkeypatch):
    monkeypatch.setattr(modify, "get_model_modifier_unsupported_devices", lambda _: ())
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not there
    with pytest.raises(EqPluginError, match=f"enable_{name} need a package that is not installed"):
        EqCalculator(shared(), modifiers=[f"enable_{name}"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_absent():
    with pytest.raises(EqPluginError, match="no CUDA device was found; use 'cpu'"):
        EqCalculator(shared(), device="cuda")


def test_files(tmp_path):
    with pytest.raises(EqPluginError, match=r"gone\.ckpt is missing"):
        EqCalculator(tmp_path / "gone.ckpt")
    for name, what in (
        ("broken.ckpt", "NequIP checkpoint"),
        ("broken.nequip.zip", "not a NequIP package"),
        ("broken.nequip.pt2", "not a compiled NequIP model"),
    ):
        path = tmp_path / name
        path.write_bytes(b"PK not really")
        with pytest.raises(EqPluginError, match=f"{name} .*{what}: it is not a zip file"):
            EqCalculator(path)
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(EqPluginError, match=r"other\.ckpt cannot be loaded as a NequIP checkpoint"):
        EqCalculator(tmp_path / "other.ckpt")
    (tmp_path / "model.pth").touch()
    with pytest.raises(EqPluginError, match=r"none of the endings .*\.nequip\.pt2"):
        EqCalculator(tmp_path / "model.pth")
    with pytest.raises(EqPluginError, match="is missing"):
        EqCalculator(tmp_path)


def test_what_is_no_model():
    for nothing, message in (
        (torch.nn.Linear(2, 2), "a Linear is not a model"),
        (3, "not a int"),
        ([], "the list of models is empty"),
    ):
        with pytest.raises(EqPluginError, match=message):
            EqCalculator(nothing)


def test_endings_tell_files_apart(tmp_path):
    kinds = {"a.ckpt": "checkpoint", "a.nequip.zip": "package", "a.nequip.pt2": "compiled",
             "a.model": "mace"}  # fmt: skip
    for name, kind in kinds.items():
        (tmp_path / name).touch()
        assert kind_of(tmp_path / name) == kind


def test_committees():
    with pytest.raises(EqPluginError, match=r"one cutoff: .* has 4 A and .* has 3.5 A"):
        EqCalculator([shared(), build(r_max=3.5)])
    other = build(type_names=["H", "C"], per_type_energy_shifts={"H": 0.0, "C": 0.0})
    with pytest.raises(EqPluginError, match=r"same species: .* differ in O"):
        EqCalculator([shared(), other])


def test_a_model_without_forces():
    with pytest.raises(EqPluginError, match="has no forces"):
        EqCalculator(build(do_derivatives=False))


def test_outputs_that_are_not_finite():
    model = build()
    with torch.no_grad():
        next(iter(model.parameters())).fill_(float("nan"))
    atoms = structure("bulk")
    atoms.calc = EqCalculator(model)
    with pytest.raises(EqPluginError, match="returned energy that are not finite"):
        atoms.get_forces()
    assert atoms.calc.results == {}


def test_forces_that_are_not_finite_name_the_atom(monkeypatch):
    atoms = structure("bulk")
    atoms.calc = EqCalculator(shared())
    backend = atoms.calc.backends[0]
    plain = backend.evaluate

    def broken(graph, stress):
        out = plain(graph, stress)
        out["forces"][5, 2] = float("inf")
        return out

    monkeypatch.setattr(backend, "evaluate", broken)
    with pytest.raises(EqPluginError, match=r"forces on C \(atom 5\) that are not finite"):
        atoms.get_forces()


def test_types_that_are_not_symbols_need_a_map():
    names = ["H", "carbon"]
    model = build(type_names=names, per_type_energy_shifts=dict.fromkeys(names, 0.0))
    with pytest.raises(EqPluginError, match=r"the atom type 'carbon', .* give species_to_type"):
        EqCalculator(model)


def test_descriptors_need_a_structure():
    with pytest.raises(EqPluginError, match="give atoms"):
        EqCalculator(shared()).get_descriptors()
    assert EqCalculator(shared()).r_max == R_MAX
