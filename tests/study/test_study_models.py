"""Models that a study builds to count and to time: those that it trains."""

from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

from eqplugin.costs import count_costs
from eqplugin.design import Design
from eqplugin.stacks import stack_named
from eqplugin.study.config import read_study
from eqplugin.study.job import recipe_for
from eqplugin.study.matching import match_by_count
from eqplugin.study.steps import count_parameters, time_steps, training_step

CONFIG = Path(__file__).resolve().parents[2] / "configs/study/quickstart.yaml"
SPECIES = ("H", "C", "O")


def build(config, design):
    return stack_named(design.stack).build(design, recipe_for(config, design.stack), SPECIES)


def cost_options(config, design):
    recipe = recipe_for(config, design.stack)
    return stack_named(design.stack).cost_options(design, recipe, len(SPECIES))


@pytest.fixture(scope="module")
def config():
    return read_study(CONFIG, ["feature_dim=16"]).config


def test_counted_parameters_are_those_of_the_built_model(config):
    design = Design(16, 1, hops=1, num_layers=2)
    counted = count_costs(design, cost_options(config, design))
    assert count_parameters(build(config, design)) == counted.total


def test_equal_parameters_within_the_tolerance(config):
    reference = Design(64, 1, num_layers=2)
    wanted = [Design(None, degree, num_layers=2) for degree in (0, 1, 2)]
    found = match_by_count(config, reference, wanted, SPECIES)
    options = cost_options(config, reference)
    matched = [Design(m.feature_dim, d, num_layers=2) for d, m in found.items()]
    totals = [count_costs(design, options).total for design in matched]
    assert found[1].feature_dim == 64
    assert max(totals) / min(totals) < 1 + config.tolerance.parameters
    # at equal dimension they are far from equal
    equal = [count_costs(one.with_feature_dim(64), options).total for one in matched]
    assert max(equal) / min(equal) > 1.5


@pytest.mark.parametrize(
    "family, hops, contraction",
    [("nequip", 1, "bispectrum"), ("nequip", 2, "power"), ("mace", None, None)],
)
def test_every_stack_and_hop_has_the_parameters_of_one_reference(config, family, hops, contraction):
    """So that hops, or NequIP and MACE, can be compared at equal parameters."""
    reference = Design(64, 1, num_layers=2)
    target = count_parameters(build(config, reference))
    wanted = Design(None, 1, hops, contraction, num_layers=2, stack=family)
    (match,) = match_by_count(config, reference, [wanted], SPECIES).values()
    built = build(config, wanted.with_feature_dim(match.feature_dim))
    tolerance = config.tolerance.parameters
    assert count_parameters(built) == pytest.approx(target, rel=tolerance)
    # at the reference's own dimension it would not
    same = build(config, wanted.with_feature_dim(64))
    assert count_parameters(same) != pytest.approx(target, rel=tolerance)


# counted on models that `nequip-train` and `eqplugin mace-train` wrote for these designs
TRAINED = {
    Design(16, 1, num_layers=2): 13348,
    Design(16, 1, num_layers=2, stack="mace"): 4540,
}


@pytest.mark.slow
@pytest.mark.parametrize("design", TRAINED, ids=lambda design: design.name)
def test_a_step_trains_what_the_trainer_would_build(config, design):
    model = build(config, design)
    assert count_parameters(model) == TRAINED[design]
    frames = [molecule("CH3CH2OH"), molecule("CH3OH")]
    step = training_step(stack_named(design.stack), model, frames, config.train.r_max)
    assert np.all(time_steps({"one": step}, rounds=2)["one"] > 0)
    # the step goes backward through the forces: stop before the gradients are cleared
    seen = []
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: seen.append(float(gradient.abs().sum())))
    step()
    assert len(seen) >= 0.8 * len(list(model.parameters()))
    assert max(seen) > 0
