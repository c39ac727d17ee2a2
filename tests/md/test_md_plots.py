"""What a trajectory says of its structure, and the plot of a run."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from cheap_models import Wells, cluster
from matplotlib.image import imread

from eqplugin.errors import EqPluginError
from eqplugin.md.observables import drift, header, read_log
from eqplugin.md.plots import bond_lengths, last_frames, plot_run, radial_distribution
from eqplugin.md.run import MdFiles, run_md
from eqplugin.md.settings import MdSettings


def test_radial_distribution_counts_the_shells_of_fcc():
    a = 3.6
    copper = bulk("Cu", cubic=True, a=a) * (2, 2, 2)
    r, functions = radial_distribution([copper], r_max=6.0, bins=240)
    density = 4 / a**3
    width = r[1] - r[0]
    neighbors = np.cumsum(functions["Cu-Cu"] * 4 * np.pi * r**2 * width * density)
    for radius, count in ((2.2, 0), (3.0, 12), (3.9, 18), (4.7, 42)):
        assert neighbors[np.searchsorted(r, radius)] == pytest.approx(count, abs=0.02)


def test_radial_distribution_of_an_ideal_gas_is_one():
    rng = np.random.default_rng(0)
    frames = [
        Atoms("Ar200Ne100", rng.uniform(size=(300, 3)) * 15, cell=[15] * 3, pbc=True)
        for _ in range(6)
    ]
    _, functions = radial_distribution(frames, r_max=7.0, bins=7)
    assert sorted(functions) == ["Ar-Ar", "Ne-Ar", "Ne-Ne"]
    for values in functions.values():
        assert np.abs(values[2:] - 1).max() < 0.12


def test_bond_lengths_are_those_of_bonded_pairs():
    ethanol = molecule("CH3CH2OH")
    longer = ethanol.copy()
    longer.positions *= 1.1
    bonds = bond_lengths([ethanol, longer])
    assert {kind: values.shape for kind, values in bonds.items()} == {
        "C-C": (2, 1),
        "C-H": (2, 5),
        "C-O": (2, 1),
        "H-O": (2, 1),
    }
    for values in bonds.values():
        np.testing.assert_allclose(values[1], 1.1 * values[0])
    assert bonds["C-C"][0, 0] == pytest.approx(1.51, abs=0.02)
    assert bond_lengths([cluster("Ar8", 5.0)]) == {}


def test_bonds_reach_across_periodic_boundaries():
    water = molecule("H2O")
    water.set_cell([8, 8, 8])
    water.pbc = True
    split = water.copy()
    split.positions += [0, 0.2, 0]
    split.wrap()
    assert np.ptp(split.positions[:, 1]) > 4
    np.testing.assert_allclose(bond_lengths([split])["H-O"], bond_lengths([water])["H-O"])


@pytest.mark.parametrize(
    "start, calculator, ensemble",
    [
        (bulk("Cu", cubic=True), EMT, "npt"),
        (bulk("Cu", cubic=True), EMT, "nve"),
        (cluster(), None, "nvt-bussi"),
        (cluster("Ar"), None, "nvt-langevin"),
    ],
)
def test_plot_is_drawn_for_every_kind_of_run(start, calculator, ensemble, tmp_path):
    settings = MdSettings(ensemble, steps=10, every=5, timestep=1.0)
    files = MdFiles(tmp_path)
    model = calculator() if calculator else Wells(start)
    done = run_md(start, model, settings, files)
    assert len(last_frames(files.traj, 3)) == 2
    plot_run(files.traj, files.log, files.plot, settings, done.degrees, "a run")
    picture = imread(files.plot)
    assert picture.shape[0] > 500
    assert np.ptp(picture[..., :3]) > 0.5


def test_drift_is_the_slope_of_the_conserved_energy(tmp_path):
    log = tmp_path / "log.csv"
    rows = [f"{i},{i * 0.1},0,0,0,{5 + 0.008 * i * 0.1},300,,\n" for i in range(11)]
    log.write_text(header() + "".join(rows) + "11,1.1,0")
    table = read_log(log)
    slope = drift(table["time_ps"], table["conserved_eV"], num_atoms=4)
    assert slope == pytest.approx(2.0)  # meV/atom/ps
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(EqPluginError, match=r"other\.csv is not a log"):
        read_log(tmp_path / "other.csv")
