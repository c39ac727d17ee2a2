"""Models that a study builds to count and to time: those that it trains."""

from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

from eqplugin.costs import count_costs
from eqplugin.design import Design
from eqplugin.study.building import build, count_parameters, time_steps, training_step
from eqplugin.study.config import read_study
from eqplugin.study.job import Variant
from eqplugin.study.matching import architecture, match_by_count

CONFIG = Path(__file__).resolve().parents[2] / "configs/study/quickstart.yaml"
SPECIES = ("H", "C", "O")


@pytest.fixture(scope="module")
def config():
    return read_study(CONFIG, ["feature_dim=16"]).config


def test_counted_parameters_are_those_of_the_built_model(config):
    variant = Variant("nequip", 1, 1, "bispectrum", 16)
    counted = count_costs(Design(16, 1), architecture(config, variant, len(SPECIES)))
    assert count_parameters(build(config, variant, SPECIES)) == counted.total


def test_equal_parameters_within_the_tolerance(config):
    reference = Variant("nequip", 1, None, None, 64)
    wanted = [Variant("nequip", degree, None, None, 0) for degree in (0, 1, 2)]
    found = match_by_count(config, reference, wanted, SPECIES)
    arch = architecture(config, reference, len(SPECIES))
    totals = [count_costs(Design(m.feature_dim, d), arch).total for d, m in found.items()]
    assert found[1].feature_dim == 64
    assert max(totals) / min(totals) < 1 + config.tolerance.parameters
    # at equal dimension they are far from equal
    equal = [count_costs(Design(64, degree), arch).total for degree in found]
    assert max(equal) / min(equal) > 1.5


@pytest.mark.parametrize(
    "family, hops, contraction",
    [("nequip", 1, "bispectrum"), ("nequip", 2, "power"), ("mace", None, None)],
)
def test_every_stack_and_hop_has_the_parameters_of_one_reference(config, family, hops, contraction):
    """So that hops, or NequIP and MACE, can be compared at equal parameters."""
    reference = Variant("nequip", 1, None, None, 64)
    target = count_parameters(build(config, reference, SPECIES))
    (match,) = match_by_count(
        config, reference, [Variant(family, 1, hops, contraction, 0)], SPECIES
    ).values()
    built = build(config, Variant(family, 1, hops, contraction, match.feature_dim), SPECIES)
    tolerance = config.tolerance.parameters
    assert count_parameters(built) == pytest.approx(target, rel=tolerance)
    # at the reference's own dimension it would not
    same = build(config, Variant(family, 1, hops, contraction, 64), SPECIES)
    assert count_parameters(same) != pytest.approx(target, rel=tolerance)


# counted on models that `nequip-train` and `eqplugin mace-train` wrote for these variants
TRAINED = {
    Variant("nequip", 1, None, None, 16): 13348,
    Variant("mace", 1, None, None, 16): 4540,
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", TRAINED, ids=lambda variant: variant.name)
def test_a_step_trains_what_the_trainer_would_build(config, variant):
    model = build(config, variant, SPECIES)
    assert count_parameters(model) == TRAINED[variant]
    frames = [molecule("CH3CH2OH"), molecule("CH3OH")]
    step = training_step(variant.family, model, frames, config.train.r_max)
    assert np.all(time_steps({"one": step}, rounds=2)["one"] > 0)
    # the step goes backward through the forces: stop before the gradients are cleared
    seen = []
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: seen.append(float(gradient.abs().sum())))
    step()
    assert len(seen) >= 0.8 * len(list(model.parameters()))
    assert max(seen) > 0
