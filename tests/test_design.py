"""Feature designs: exact dimensions, clear refusals."""

import pytest
from e3nn.o3 import Irreps

from eqplugin.design import Design, DesignError, minimum_feature_dim

DIMS = (64, 100, 256, 512, 1000)


@pytest.mark.parametrize("profile", ["uniform", "decreasing"])
@pytest.mark.parametrize("parity", ["natural", "both"])
@pytest.mark.parametrize("l_max", range(7))
@pytest.mark.parametrize("feature_dim", DIMS)
def test_dimension_is_exact(feature_dim, l_max, parity, profile):
    if feature_dim < minimum_feature_dim(l_max, parity):
        with pytest.raises(DesignError, match="too small"):
            Design(feature_dim, l_max, parity=parity, profile=profile)
        return
    design = Design(feature_dim, l_max, parity=parity, profile=profile)
    assert design.irreps.dim == feature_dim
    assert design.irreps.lmax == l_max
    assert min(design.multiplicities) >= 1
    assert sum(
        m * ir.dim for m, (_, ir) in zip(design.multiplicities, design.irreps, strict=True)
    ) == (feature_dim)


@pytest.mark.parametrize(
    "l_max, multiplicities",
    [(1, (25, 25)), (2, (12, 11, 11)), (3, (10, 6, 6, 6)), (4, (4, 4, 4, 4, 4))],
)
def test_uniform_profile_at_100(l_max, multiplicities):
    assert Design(100, l_max).multiplicities == multiplicities


def test_both_parities_are_in_nequips_order():
    assert Design(64, 1, parity="both").irreps == Irreps("8x0e+8x0o+8x1e+8x1o")


def test_decreasing_profile_halves():
    assert Design(128 + 3 * 64 + 5 * 32, 2, profile="decreasing").multiplicities == (
        128,
        64,
        32,
    )


def test_decreasing_profile_keeps_every_degree_at_the_smallest_dimension():
    assert Design(16, 3, profile="decreasing").multiplicities == (1, 1, 1, 1)


def test_nequips_booleans_name_parities():
    assert Design(64, 1, parity=True) == Design(64, 1, parity="both")
    assert Design(64, 1, parity=False) == Design(64, 1, parity="natural")


@pytest.mark.parametrize(
    "options, words",
    [
        ({"feature_dim": 10, "l_max": 3}, ["feature_dim=10", "l_max=3", "16"]),
        ({"feature_dim": 0, "l_max": 0}, ["feature_dim=0"]),
        ({"feature_dim": 64.0, "l_max": 1}, ["feature_dim=64.0", "integer"]),
        ({"feature_dim": 64, "l_max": -1}, ["l_max=-1"]),
        ({"feature_dim": 64, "l_max": True}, ["l_max=True"]),
        ({"feature_dim": 64, "l_max": 1, "parity": "odd"}, ["parity='odd'", "natural"]),
        ({"feature_dim": 64, "l_max": 1, "profile": "flat"}, ["profile='flat'", "uniform"]),
    ],
)
def test_impossible_designs_name_the_option(options, words):
    with pytest.raises(DesignError) as error:
        Design(**options)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)
