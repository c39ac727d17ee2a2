"""Labels and weights of MACE's data: each that the loss reads is there, well formed and heeded."""

import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import read, write
from mace import tools
from mace.cli import preprocess_data
from mace_training import arguments

import eqplugin.mace  # noqa: F401 - applies the repairs
from eqplugin.errors import EqPluginError
from eqplugin.mace.train import parse, train

pytestmark = pytest.mark.usefixtures("without_torchscript")


def copper(seed, change=None):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=seed)
    atoms.calc = EMT()
    energy, forces, stress = (
        atoms.get_potential_energy(),
        atoms.get_forces(),
        atoms.get_stress(voigt=False),
    )
    atoms.calc = None
    atoms.info |= {"REF_energy": energy, "REF_stress": stress}
    atoms.info["REF_virials"] = -stress * atoms.get_volume()
    atoms.arrays["REF_forces"] = forces
    if change is not None:
        change(atoms)
    return atoms


def water(seed, dipole=True):
    atoms = molecule("H2O")
    atoms.rattle(0.05, seed=seed)
    atoms.info["REF_energy"] = float(atoms.get_distance(0, 1)) - 10
    atoms.arrays["REF_forces"] = 0.1 * np.random.default_rng(seed).normal(size=(3, 3))
    if dipole:
        atoms.info["dipole"] = np.array([-0.8, 0.4, 0.4]) @ atoms.positions
    return atoms


COPPER = {
    "model": "MACE", "num_channels": 4, "max_L": 0, "E0s": "{29: 3.51}", "r_max": 3.5,
    "energy_key": "REF_energy", "forces_key": "REF_forces", "max_num_epochs": 1,
}  # fmt: skip
DIPOLES = {
    **COPPER, "model": "EnergyDipolesMACE", "num_channels": None, "max_L": None,
    "hidden_irreps": "4x0e + 4x1o", "loss": "energy_forces_dipole", "E0s": "{1: -1.0, 8: -4.0}",
    "error_table": "EnergyDipoleRMSE",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Make a folder of training and validation frames; the change is to frame 3 of the former."""

    def make(change=None, every=None, frames=copper, many=8):
        found = [frames(seed) for seed in range(many)]
        for atoms in found if every else ():
            every(atoms)
        if change is not None:
            change(found[3])
        write(tmp_path / "train.xyz", found)
        write(tmp_path / "valid.xyz", [a for k, a in enumerate(found) if k != 3][:4])
        return tmp_path

    return make


def line(folder, choice, **changes):
    return arguments(folder, folder / "out", **{**choice, **changes})


def refusal(folder, choice, **changes):
    with pytest.raises(EqPluginError) as caught:
        train(line(folder, choice, **changes))
    assert not (folder / "out").exists()
    return str(caught.value)


def warnings(folder, choice, caplog, **changes):
    parse(line(folder, choice, **changes))
    return caplog.text


def setting(**values):
    return lambda atoms: atoms.info.update(values)


def nan_force(atoms):
    atoms.arrays["REF_forces"][1, 2] = np.nan


def virials_with(value):
    def change(atoms):
        atoms.info["REF_virials"] = np.array(atoms.info["REF_virials"])
        atoms.info["REF_virials"][0, 1] = value

    return change


# ---- shape and finiteness


@pytest.mark.parametrize(
    "loss, change, culprit",
    [
        ("virials", virials_with(np.nan), "the virials are NaN or infinite"),
        ("virials", virials_with(np.inf), "the virials are NaN or infinite"),
        ("virials", setting(REF_virials=np.arange(7.0)), "the virials have the shape (7,)"),
        ("weighted", setting(REF_virials=np.arange(7.0)), "the virials have the shape (7,)"),
        ("stress", setting(REF_stress=np.full((3, 3), np.nan)), "the stress is NaN or infinite"),
        ("universal", setting(REF_stress=np.arange(5.0)), "the stress has the shape (5,)"),
        ("huber", setting(REF_stress=np.full(6, np.nan)), "the stress is NaN or infinite"),
        ("weighted", setting(REF_energy=np.nan), "the energy is NaN or infinite"),
        ("weighted", setting(REF_energy="low"), "the energy is not"),
        ("weighted", setting(REF_energy=np.array([1.0, 2.0])), "the energy has the shape (2,)"),
        ("weighted", nan_force, "atom 1 (Cu) is NaN or infinite"),
        ("weighted", setting(config_weight=np.nan), "config_weight is nan"),
        ("weighted", setting(config_weight=-1.0), "config_weight is -1.0"),
        ("weighted", setting(config_weight="heavy"), "config_weight is not a number"),
        ("weighted", setting(config_energy_weight=np.nan), "config_energy_weight is nan"),
        ("forces_only", setting(config_stress_weight=np.inf), "config_stress_weight is inf"),
    ],
)
def test_bad_labels_and_weights_are_refused(folder, loss, change, culprit):
    stress = {"stress_key": "REF_stress"}
    sentence = refusal(folder(change), COPPER, loss=loss, **stress)
    assert "train.xyz, frame 3: " in sentence
    assert culprit in sentence


@pytest.mark.parametrize(
    "change, culprit",
    [
        (setting(dipole=np.array([np.nan, 0, 0])), "the dipole is NaN or infinite"),
        (setting(dipole=1.0), "the dipole has the shape ()"),
        (lambda atoms: atoms.info.pop("dipole"), "1 of 8 frames (first: 3) have no 'dipole' and"),
    ],
)
def test_bad_dipoles_are_refused(folder, change, culprit):
    assert culprit in refusal(folder(change, frames=water), DIPOLES, allow_missing_labels=True)


def test_a_stress_needs_a_volume(folder):
    def flat(atoms):
        atoms.cell[2] = 0
        atoms.pbc[2] = False

    sentence = refusal(folder(flat), COPPER, loss="stress")
    assert "frame 3: it has a stress, but its cell has no volume" in sentence


def test_labels_that_no_loss_reads_may_be_nan(folder):
    parse(line(folder(virials_with(np.nan)), COPPER))


@pytest.mark.parametrize("change", [virials_with(np.nan), setting(config_weight=np.nan)])
def test_prepared_data_are_looked_at_as_well(folder, change):
    data = folder(change)
    options = {
        "train_file": data / "train.xyz", "valid_file": data / "valid.xyz", "r_max": 3.5,
        "h5_prefix": f"{data}/", "num_process": 1, "work_dir": data,
    }  # fmt: skip
    given = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    preprocess_data.run(tools.build_preprocess_arg_parser().parse_args(given))
    prepared = {"train_file": data / "train", "valid_file": data / "val"}
    sentence = refusal(data, COPPER, loss="virials", atomic_numbers="[29]", **prepared)
    assert re.match(
        r"train_0\.h5:/config_batch_0/config_\d: (the virials are|config_weight is)", sentence
    )


# ---- labels that are there and not used


def renamed(old, new):
    return lambda atoms: atoms.info.update({new: atoms.info.pop(old)})


@pytest.mark.parametrize("loss", ["stress", "universal", "huber"])
def test_a_weighted_stress_has_to_be_there(folder, loss):
    sentence = refusal(folder(every=renamed("REF_stress", "dft_stress")), COPPER, loss=loss)
    assert "no frame has 'REF_stress'" in sentence
    assert "--stress_key dft_stress" in sentence
    parse(line(folder(every=renamed("REF_stress", "a")), COPPER, loss=loss, stress_weight=0))


def test_a_dipole_under_another_key_is_named(folder):
    sentence = refusal(folder(every=renamed("dipole", "dft_dipole"), frames=water), DIPOLES)
    assert "no frame has 'dipole'" in sentence
    assert "--dipole_key dft_dipole" in sentence


def test_virials_instead_of_a_stress_are_named(folder):
    data = folder(every=lambda atoms: atoms.info.pop("REF_stress"))
    assert "--loss virials --virials_key REF_virials" in refusal(data, COPPER, loss="stress")


def test_advice_does_not_go_in_circles(folder):
    """ASE moves free_energy out of MACE's sight; it is put back, not asked for again."""
    data = folder(every=renamed("REF_energy", "free_energy"))
    parse(line(data, COPPER, energy_key="free_energy"))
    assert "--energy_key free_energy" in refusal(data, COPPER)


def test_a_column_is_no_label_of_a_frame(folder):
    def per_atom(atoms):
        del atoms.info["dipole"]
        atoms.arrays["dft_dipole"] = atoms.positions

    sentence = refusal(folder(every=per_atom, frames=water), DIPOLES, dipole_key="dft_dipole")
    assert "'dft_dipole' is there, but not as MACE reads the dipole" in sentence
    assert "add --dipole_key dft_dipole" not in sentence


@pytest.mark.parametrize("loss", ["huber", "l1l2energyforces"])
def test_a_missing_label_is_no_zero_where_the_loss_heeds_no_weight(folder, loss):
    data = folder(lambda atoms: atoms.arrays.pop("REF_forces"))
    sentence = refusal(data, COPPER, loss=loss, allow_missing_labels=True)
    assert f"would be trained towards zero, because --loss {loss} ignores weights" in sentence


@pytest.mark.parametrize(
    "loss, key, ignored",
    [
        ("universal", "config_weight", True),
        ("huber", "config_weight", True),
        ("huber", "config_energy_weight", True),
        ("l1l2energyforces", "config_weight", True),
        ("weighted", "config_weight", False),
        ("universal", "config_energy_weight", False),
    ],
)
def test_weights_that_the_loss_ignores_are_named(folder, caplog, loss, key, ignored):
    said = warnings(folder(setting(**{key: 0.5})), COPPER, caplog, loss=loss)
    assert (f"1 frames have a {key} other than 1" in said) == ignored


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"stress_weight": 5}, "--stress_weight 5 has no effect with --loss weighted"),
        ({"loss": "ef", "forces_weight": 5}, "--forces_weight has no effect with --loss ef"),
        ({"loss": "universal", "config_type_weights": "{'MD': 2.0}"}, "--config_type_weights has"),
        ({"loss": "stress", "stress_weight": 5}, None),
    ],
)
def test_options_that_the_loss_ignores_are_named(folder, caplog, changes, words):
    said = warnings(folder(), COPPER, caplog, **changes)
    assert words in said if words else "no effect" not in said


def test_the_dipole_under_its_plain_key_is_trained_on(folder):
    data = folder(frames=water)
    train(line(data, DIPOLES))
    log = next((data / "out/logs").glob("*[0-9].log")).read_text()
    epoch = next(text for text in log.splitlines() if "Epoch 0" in text)
    assert "RMSE_Mu_per_atom" in epoch
    assert "None" not in epoch


# ---- magnitudes


@pytest.mark.parametrize(
    "every, words",
    [
        (setting(REF_stress=np.eye(3) * 12.0), "have a stress above 1 eV/A^3"),
        (lambda a: a.arrays["REF_forces"].__imul__(1000), "convert the forces if they are in meV"),
        (lambda a: a.info.update(REF_energy=a.info["REF_energy"] - 4000), "(E0s), which no"),
        (setting(), None),
    ],
)
def test_unlikely_sizes_are_named_once_each(folder, capfd, every, words):
    data = folder(every=every)
    train(line(data, COPPER, stress_key="REF_stress", valid_file=None, valid_fraction=0.25))
    told = capfd.readouterr()
    shown = (told.out + told.err).splitlines()
    warned = [text for text in shown if "train.xyz: " in text and "WARNING" in text]
    assert len(warned) == (1 if words else 0)
    assert words is None or words in warned[0]
    assert len([text for text in shown if "Epoch 0" in text]) == 1  # no line comes twice


def test_energies_of_another_method_are_named(folder, caplog):
    data = folder(lambda atoms: atoms.info.update(REF_energy=atoms.info["REF_energy"] + 300))
    assert "1 of 8 frames (first: 3) have an energy more than 2 eV" in warnings(
        data, COPPER, caplog
    )


# ---- isolated atoms


def isolated(symbol, energy, key="REF_energy"):
    atoms = Atoms(symbol)
    atoms.info |= {key: energy, "config_type": "IsolatedAtom"}
    atoms.arrays["REF_forces"] = np.zeros((1, 3))
    return atoms


def with_isolated(folder, *atoms):
    data = folder()
    write(data / "train.xyz", [*atoms, *read(data / "train.xyz", ":")])
    return data


def e0s_of(data):
    import torch

    model = torch.load(data / "out/run.model", weights_only=False)
    return model.atomic_energies_fn.atomic_energies.flatten().tolist()


def test_an_isolated_atom_of_another_element_does_no_harm(folder):
    data = with_isolated(folder, isolated("Cu", 3.51), isolated("Au", 3.7))
    train(line(data, COPPER, E0s=None))
    assert e0s_of(data) == [3.51]


def test_given_e0s_of_other_elements_do_no_harm(folder):
    data = folder()
    train(line(data, COPPER, E0s="{29: 3.51, 79: 3.7, 8: -430.0}"))
    assert e0s_of(data) == [3.51]


def test_two_energies_of_one_isolated_atom_are_refused(folder):
    data = with_isolated(folder, isolated("Cu", 3.51), isolated("Cu", 4.51))
    assert "frame 1: a second isolated Cu atom" in refusal(data, COPPER, E0s=None)


@pytest.mark.parametrize("key", ["REF_energy", "energy", "dft_energy"])
def test_the_file_of_isolated_atoms_may_have_the_key_of_the_data_or_mace_s(folder, key):
    data = folder(every=renamed("REF_energy", "dft_energy"))
    atoms = isolated("Cu", 3.51, key)
    del atoms.arrays["REF_forces"]
    write(data / "e0s.xyz", atoms)
    args = parse(line(data, COPPER, E0s=data / "e0s.xyz", energy_key="dft_energy"))
    assert args.E0s == "{29: 3.51}"


# ---- numbers of frames, names, options


@pytest.mark.parametrize(
    "many, changes, culprit",
    [
        (8, {"batch_size": 10}, "batch_size=10 is more than the 8 training frames"),
        (8, {"batch_size": 7, "valid_file": None, "valid_fraction": 0.25}, "the 6 training frames"),
        (4, {"batch_size": 1, "name": "a/b"}, "--name 'a/b' is not valid"),
        (4, {"batch_size": 1, "name": ".."}, "--name '..' is not valid"),
        (4, {"batch_size": 1, "name": "n" * 300}, "--name is too long"),
        (4, {"batch_size": 1, "radial_MLP": "64"}, "--radial_MLP 64 cannot be read"),
        (4, {"batch_size": 1, "radial_MLP": "[64, 'x']"}, "--radial_MLP"),
        (4, {"batch_size": 1, "config_type_weights": "{'MD'}"}, "--config_type_weights"),
        (4, {"batch_size": 1, "lr": "nan"}, "lr=nan is not valid"),
        (4, {"batch_size": 1, "model": "AtomicDipolesMACE"}, "use --loss dipole"),
        (4, {"batch_size": 1, "loss": "dipole"}, "use --model AtomicDipolesMACE"),
        (4, {"batch_size": 1, "error_table": "DipoleRMSE"}, "--error_table DipoleRMSE needs"),
    ],
)
def test_what_cannot_be_trained_is_refused(folder, many, changes, culprit):
    data = folder(many=many)
    assert culprit in refusal(data, COPPER, **changes)


def test_one_frame_cannot_be_split(folder):
    data = folder()
    write(data / "one.xyz", read(data / "train.xyz", 0))
    sentence = refusal(data, COPPER, train_file=data / "one.xyz", valid_file=None, batch_size=1)
    assert "one.xyz holds one frame, which valid_fraction=0.1 cannot split" in sentence
