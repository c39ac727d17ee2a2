"""Every cell of the separability tables, through the suite that users run."""

import functools

import numpy as np
import pytest
import torch
from ase import Atoms

from eqplugin.errors import EqPluginError
from eqplugin.measure.expressivity.loading import load_subject
from eqplugin.measure.expressivity.rules import Architecture, Block
from eqplugin.measure.expressivity.run import THRESHOLDS, measure_case, run_suites
from eqplugin.measure.expressivity.suites import SUITES, cases_of
from eqplugin.theory.canonical import find_frames, to_invariants
from eqplugin.theory.capture import capture_features

CHAINS = (2, 3, 4, 5)
subject = functools.cache(load_subject)


def verdicts(model, suite, draws=4):
    return {result.case: result for result in run_suites(subject(model), [suite], draws)}


def halfway(k):
    return k // 2 + 1


def all_the_way(k):
    return k + 1


def never(k):
    return np.inf


# The k-chain table: model, first number of layers (or hops) that separates, depths to try.
ROWS = {
    "nequip:L=1,layers={}": (all_the_way, range(1, 7)),
    "steerable:L=1,layers={}": (all_the_way, range(1, 7)),
    "khop:L=1,hops=none,layers={},contraction=power": (halfway, range(1, 5)),
    "khop:L=1,hops=none,layers={},contraction=bispectrum": (halfway, range(1, 5)),
    "khop:L=1,hops={},blocks=1,contraction=power": (halfway, range(1, 5)),
    "khop:L=1,hops={},blocks=2,contraction=power": (halfway, range(1, 5)),
    "khop:L=1,hops={},blocks=3,contraction=power": (halfway, range(1, 4)),
    "khop:L=1,hops={},blocks=1,contraction=bispectrum": (halfway, range(1, 5)),
    "khop:L=1,hops={},blocks=2,contraction=bispectrum": (halfway, range(1, 5)),
    "khop:L=1,hops={},blocks=3,contraction=bispectrum": (halfway, range(1, 4)),
    "khop:L=1,hops={},blocks=1,contraction=drop": (all_the_way, range(1, 7)),
    "khop:L=1,hops={},blocks=2,contraction=drop": (all_the_way, range(1, 7)),
    "mace:L=0,layers={}": (never, range(1, 5)),
    "mace-steerable:L=0,layers={}": (never, range(1, 5)),
    "mace:L=1,layers={},nu=2": (halfway, range(1, 5)),
    "mace-steerable:L=1,layers={},nu=2": (halfway, range(1, 5)),
    "mace:L=1,layers={},nu=1": (all_the_way, range(1, 7)),
    "mace-khop:L=1,hops={},layers=4": (halfway, range(1, 5)),
}
FAST = {
    "nequip:L=1,layers=3",
    "khop:L=1,hops=none,layers=2,contraction=bispectrum",
    "khop:L=1,hops=2,blocks=2,contraction=power",
    "khop:L=1,hops=3,blocks=1,contraction=drop",
    "mace:L=0,layers=2",
    "mace:L=1,layers=2,nu=2",
    "mace:L=1,layers=3,nu=1",
    "mace-khop:L=1,hops=2,layers=4",
}
CHAIN_MODELS = [
    pytest.param(row, depth, marks=() if row.format(depth) in FAST else pytest.mark.slow)
    for row, (_, depths) in ROWS.items()
    for depth in depths
]


def test_the_chain_table_is_whole():
    cells = [
        depth >= needed(k) for needed, depths in ROWS.values() for depth in depths for k in CHAINS
    ]
    # as many as were measured when the table was drawn up: 156 must not, 108 must
    assert cells.count(False) >= 156
    assert cells.count(True) >= 108
    builders = {row.partition(":")[0] for row in ROWS}
    assert builders == {"steerable", "khop", "nequip", "mace-steerable", "mace-khop", "mace"}
    # at every k each row that ever separates has its first depth and the one before it
    for needed, depths in ROWS.values():
        for k in CHAINS:
            assert needed(k) == np.inf or needed(k) - 1 in depths
            assert needed(k) == np.inf or needed(k) in depths


@pytest.mark.parametrize("row, depth", CHAIN_MODELS)
def test_every_cell_of_the_chain_table(row, depth):
    needed = ROWS[row][0]
    for k, result in zip(CHAINS, verdicts(row.format(depth), "chains").values(), strict=True):
        must = depth >= needed(k)
        assert result.expected is must, result
        assert result.verdict == ("separates" if must else "cannot separate"), result


@pytest.mark.parametrize(
    "model, degree",
    [
        ("steerable:L=1,layers=3", 1),
        ("steerable:L=3,layers=3", 3),
        ("mace:L=1,ell=3", 1),  # the hidden degree counts, not that of the edges
        ("nequip:L=0,layers=3", 0),
        ("mace:L=0,ell=3", 0),
        *(
            pytest.param(model, degree, marks=pytest.mark.slow)
            for model, degree in (
                *((f"nequip:L={n},layers=3", n) for n in (1, 2, 3, 4)),
                *((f"steerable:L={n},layers=3", n) for n in (0, 2, 4)),
                *((f"mace:L={n},ell=3", n) for n in (2, 3)),
                *((f"mace-steerable:L={n},ell=3", n) for n in (0, 1, 2, 3)),
                ("mace:L=4,ell=4", 4),
            )
        ),
        pytest.param("khop:L=2,hops=2,blocks=1,contraction=power", 2, marks=pytest.mark.slow),
    ],
)
def test_rotors_need_degree_n(model, degree):
    found = verdicts(model, "rotors")
    for n, name in enumerate(
        ("1-fold rotor", "2-fold rotor (ethene)", "3-fold rotor (ethane)", "4-fold rotor"), 1
    ):
        must = degree >= n
        assert found[name].expected is must
        assert found[name].verdict == ("separates" if must else "cannot separate"), found[name]
    for name in ("allene", "2-butyne"):
        assert found[name].agrees, found[name]


@pytest.mark.parametrize("layers, sees", [(4, False), (5, True)])
@pytest.mark.slow
def test_butyne_needs_degree_3_and_k_plus_1_layers(layers, sees):
    found = verdicts(f"steerable:L=3,layers={layers}", "rotors")["2-butyne"]
    assert found.expected is sees
    assert found.agrees


@pytest.mark.parametrize(
    "model, degree",
    [
        ("steerable:L={0},layers=2,D={1}", 2),
        ("steerable:L={0},layers=2,D={1}", 4),
        ("nequip:L={0},layers=2", 3),
        ("mace:L={0},ell={0}", 2),
        *(
            pytest.param(model, degree, marks=pytest.mark.slow)
            for model, degrees in {
                "steerable:L={0},layers=2,D={1}": (1, 3, 5, 6),
                "nequip:L={0},layers=2": (1, 2, 4, 5, 6),
                "mace:L={0},ell={0}": (1, 3, 4),
                "mace-steerable:L={0},ell={0}": (1, 2, 3),
            }.items()
            for degree in degrees
        ),
    ],
)
def test_stars_turn_from_degree_n(model, degree):
    found = verdicts(model.format(degree, 4 * (degree + 1) ** 2), "stars", 2)
    for n in (2, 3, 4, 5, 6):
        result = found[f"{n}-fold star, turned"]
        must = degree >= n
        assert result.expected is must
        assert result.verdict == ("separates" if must else "cannot separate"), result


def test_no_rule_is_claimed_where_edges_have_a_lower_degree_than_features():
    # MACE's hidden l = 2 from edges of l = 1: built up over layers, not there after the first
    model = "mace:L=2,ell=1,layers=3"
    stars = verdicts(model, "stars", 2)
    assert {result.expected for result in stars.values()} == {False}
    assert {result.verdict for result in stars.values()} == {"cannot separate"}
    rotors = verdicts(model, "rotors", 1)
    assert rotors["2-fold rotor (ethene)"].expected is None
    assert rotors["3-fold rotor (ethane)"].expected is False


@pytest.mark.parametrize("model", ["khop:L=0,hops=1,contraction=power,layers=2"])
def test_distances_alone_see_no_directions(model):
    for suite in ("chains", "articulation"):
        assert {r.verdict for r in verdicts(model, suite, 2).values()} == {"cannot separate"}
        assert {r.expected for r in verdicts(model, suite, 2).values()} == {False}


MANY_BODY = {
    # (2-, 3-, 4-body); None: not in the table
    "mace:irreps=8x0e,ell=3,layers=1,nu=1": (False, False, None),
    "mace:irreps=8x0e,ell=3,layers=1,nu=2": (True, False, False),
    "mace:irreps=8x0e,ell=3,layers=1,nu=3": (True, True, False),
    "mace:irreps=8x0e,ell=3,layers=1,nu=4": (True, True, True),
    "khop:L=2,hops=1,contraction=power,layers=2": (True, False, False),
    "khop:L=2,hops=1,contraction=bispectrum,layers=2": (True, True, False),
    "khop:L=2,hops=2,contraction=power,layers=2": (True, True, True),
    "khop:L=2,hops=2,contraction=bispectrum,layers=2": (True, True, True),
}
SLOW_ORDERS = ("nu=4", "nu=1")


@pytest.mark.parametrize(
    "model",
    [pytest.param(m, marks=pytest.mark.slow if m.endswith(SLOW_ORDERS) else ()) for m in MANY_BODY],
)
def test_counterexamples_of_every_order(model):
    found = verdicts(model, "many-body")
    for order, must in zip((2, 3, 4), MANY_BODY[model], strict=True):
        if must is not None:
            result = found[f"{order}-body pair"]
            assert result.expected is must, result
            assert result.verdict == ("separates" if must else "cannot separate"), result
    for kind in ("chiral", "nonchiral"):
        assert found[f"congruent pair ({kind})"].verdict == "cannot separate"


@pytest.mark.parametrize(
    "model, reach",
    [
        ("khop:L=1,hops=1,contraction=bispectrum,layers=2", 1),
        ("mace-khop:L=1,hops=2,layers=2", 3),
        pytest.param("khop:L=1,hops=2,contraction=power,layers=4", 3, marks=pytest.mark.slow),
        pytest.param("khop:L=1,hops=2,contraction=drop,layers=4", 1, marks=pytest.mark.slow),
        *(
            pytest.param(model, reach, marks=pytest.mark.slow)
            for model, reach in (
                ("khop:L=1,hops=3,contraction=power,layers=3", 5),
                ("khop:L=1,hops=2,contraction=bispectrum,layers=4", 3),
                ("steerable:L=1,layers=4", 3),
                ("nequip:L=1,layers=4", 3),
                ("mace:L=0,layers=3", 1),
                ("mace:L=1,layers=2", 3),
                ("mace:L=1,layers=3", 5),
                ("mace-khop:L=1,hops=3,layers=3", 5),
            )
        ),
    ],
)
def test_articulation_is_seen_across_2h_minus_1_atoms(model, reach):
    for k, result in enumerate(verdicts(model, "articulation").values(), 1):
        must = k <= reach
        assert result.expected is must
        assert result.verdict == ("separates" if must else "cannot separate"), result


@pytest.mark.parametrize(
    "model",
    [
        "nequip:L=2,layers=2,parity=true",
        "khop:L=1,hops=2,layers=2,contraction=bispectrum,parity=both",
        "mace:L=1,nu=3",
        "mace-khop:L=1,hops=2,layers=2,nu=3",
    ],
)
def test_mirror_images_are_never_told_apart_and_moved_atoms_always(model):
    found = verdicts(model, "controls")
    assert found["mirror images"].verdict == "cannot separate"
    assert found["one atom moved"].verdict == "separates"


# ---- the machinery


def test_nothing_is_left_to_chance_in_the_structures():
    cases = cases_of([])
    assert len({(case.suite, case.label) for case in cases}) == len(cases)
    assert {case.suite for case in cases} == set(SUITES)
    for case in cases:
        assert np.array_equal(case.first.numbers, case.second.numbers)


def test_other_species_and_another_cutoff():
    model = subject("nequip:L=1,layers=3,r_max=6.0,type_names=['Si']")
    adapted = model.adapt(Atoms("CHO", np.eye(3)))
    assert set(adapted.symbols) == {"Si"}
    assert adapted.positions[0, 0] == pytest.approx(3.0)
    found = {result.case: result for result in run_suites(model, ["chains"], draws=2)}
    assert [r.verdict for r in found.values()] == ["separates"] + ["cannot separate"] * 3


def test_a_mace_model_of_any_number_of_species():
    model = subject("mace:L=0,layers=1,atomic_numbers=[14]")
    assert model.symbols == ("Si",)
    assert model.energy(model.adapt(Atoms("CH", [[0, 0, 0], [0, 0, 1.3]]))) != 0.0


def test_species_are_replaced_one_by_one_as_far_as_they_reach():
    model = subject("nequip:L=1,layers=1,type_names=['H','Cu','Au']")
    assert list(model.adapt(Atoms("CHO", np.eye(3))).symbols) == ["Cu", "H", "Au"]


def test_weights_come_back_after_a_run():
    model = subject("khop:L=1,hops=1,layers=1")
    before = [weight.clone() for weight in model.model.parameters()]
    run_suites(model, ["controls"], draws=1)
    assert all(map(torch.equal, before, model.model.parameters()))


def test_draws_that_do_not_answer_say_nothing():
    model = subject("steerable:L=1,layers=1")
    case = cases_of(["controls"])[1]
    model.draw(0)
    assert measure_case(model, case) > THRESHOLDS["energy"][1]
    with torch.no_grad():
        for weight in model.model.parameters():
            weight.zero_()
    assert np.isnan(measure_case(model, case))
    model.draw(None)


def test_rules_know_what_they_do_not_know():
    mixed = Architecture("MACE", (Block(2, 1), Block(1, 2)), 1, 1, 3)
    assert (mixed.reach, mixed.hops) == (1, 2)
    assert mixed.many_body(3).separates is None
    assert Architecture("MACE", (Block(3, 2),), 2, 2, 3, handed=True).mirror().separates is None
    distances_only = Architecture("NequIP", (Block(4, 1),), 0, 0, 0)
    assert not any(distances_only.chain(k).separates for k in CHAINS)


@pytest.mark.parametrize(
    "model, words",
    [
        ("missing.yaml", "neither a file nor one of the families"),
        ("steerable:L", "L is not key=value"),
        ("steerable:L=2,D=3", "feature_dim=3"),
        ("nequip:L=1,colour=3", "does not build"),
        ("mace:L=1,colour=3", "cannot be built"),
        ("steerable:L=x", "l_max='x' is not valid .*: give an integer >= 0"),
        ("steerable:L=-1", "l_max=-1 is not valid"),
        ("nequip:layers=0", "num_layers=0 is not valid"),
        ("nequip:r_max=-1.0", "cutoff of -1.0 A"),
        ("nequip:type_names=['Qq']", "Qq are not chemical symbols"),
        ("nequip:type_names=[]", "knows no species"),
        ("khop:hops=0", "hops=0 is not valid"),
        ("khop:contraction=all", "contraction='all' is not known"),
        ("mace:L=x", "l_max='x' is not valid"),
        ("mace:layers=0", "layers=0 is not valid .*: give an integer >= 1"),
        ("mace:nu=0", "nu=0 is not valid"),
        ("mace:ell=0", "ell=0 is not valid"),
        ("mace:irreps=many", "cannot be built"),
        ("mace:interaction_cls=Mine", "interaction_cls=Mine is not known"),
        ("mace:atomic_numbers=[1,500]", "give a list of atomic numbers"),
    ],
)
def test_what_is_no_model_is_refused(model, words):
    with pytest.raises(EqPluginError, match=words):
        load_subject(model)


def test_an_unknown_suite_is_refused():
    with pytest.raises(EqPluginError, match="--suite knots"):
        cases_of(["knots"])


def test_too_few_draws_are_refused():
    with pytest.raises(EqPluginError, match="draws=0"):
        run_suites(subject("steerable:L=1,layers=1"), ["controls"], draws=0)


# ---- hidden features


@pytest.mark.parametrize(
    "model, layers",
    [
        (
            "khop:L=1,hops=2,layers=2",
            ["8x0e+8x1o", "8x0e+8x1o", "8x0e"],  # two convolutions, one contraction
        ),
        ("steerable:L=2,layers=2", ["8x0e+8x1o+8x2e", "8x0e"]),
        ("khop:L=1,hops=1,layers=2,contraction=drop", ["8x0e", "8x0e"]),
        (
            "nequip:L=1,layers=3,parity=true",
            ["8x0e+8x1o", "8x0e+8x1e+8x1o", "8x0e"],
        ),
        ("mace-khop:L=1,hops=2,layers=3", ["8x0e+8x1o", "8x0e", "8x0e"]),
        ("mace:L=1,layers=2", ["8x0e+8x1o", "8x0e"]),
        ("mace-steerable:L=1,D=20,layers=2", ["5x0e+5x1o", "5x0e"]),
    ],
)
def test_hidden_features_of_both_stacks_are_invariants_in_a_frame(model, layers):
    generator = np.random.default_rng(0)
    atoms = Atoms("COHCO", generator.normal(size=(5, 3)) * 0.8)
    turn = -np.linalg.qr(generator.normal(size=(3, 3)))[0]
    moved = Atoms(atoms.symbols, atoms.positions @ turn.T)
    one, two = subject(model).layers(atoms), subject(model).layers(moved)
    assert [str(layer.irreps) for layer in one] == layers
    for first, second in zip(one, two, strict=True):
        assert first.values.shape == (5, first.irreps.dim)
        frames = [find_frames(a, group="O(3)", threshold=1e-6) for a in (atoms, moved)]
        lam = to_invariants(first.values, first.irreps, frames[0])
        mu = to_invariants(second.values, second.irreps, frames[1])
        assert (lam - mu).norm() < 1e-9 * lam.norm()
        if first.irreps.lmax:
            assert (first.values - second.values).norm() > 0.01 * first.values.norm()


def test_a_module_without_layers_is_refused():
    with (
        pytest.raises(EqPluginError, match="Linear has neither"),
        capture_features(torch.nn.Linear(1, 1)),
    ):
        pass


def test_hooks_are_gone_after_an_error():
    model = subject("steerable:L=1,layers=1").model
    with pytest.raises(RuntimeError, match="on purpose"), capture_features(model):
        raise RuntimeError("on purpose")
    assert not any(module._forward_hooks for module in model.modules())
