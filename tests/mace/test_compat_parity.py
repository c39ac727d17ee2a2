"""MACE here gives the numbers of MACE on e3nn 0.4.4; tools/make_mace_reference.py made these."""

from __future__ import annotations

import json
import lzma
import runpy
from pathlib import Path

import e3nn.o3
import numpy as np
import pytest
import torch

import eqplugin.mace  # noqa: F401 - applies the repairs
from eqplugin.mace import reference
from eqplugin.mace.compat import signs
from eqplugin.mace.compat.convention import ATTRIBUTE, convention_of, detect_convention

TOLERANCE = 1e-12
SAVED = Path(__file__).parent / "reference"
STORED = reference.stored_results()
TOOL = runpy.run_path(Path(__file__).parents[2] / "tools" / "make_mace_reference.py")
# what the files in SAVED carry: a product basis of order 2 with natural parity has no signs
CONVENTIONS = {"0e-corr1": "both", "1o-corr2": "both", "so3-1e-corr2": "0.4"}


@pytest.mark.parametrize("name", reference.CONFIGURATIONS)
def test_a_model_built_here_gives_the_numbers_of_e3nn_0_4(name):
    found = reference.evaluate(reference.build(name))
    assert np.abs(STORED[name]["forces"]).max() > 1e-3  # a reference of zeros would test nothing
    for quantity, difference in reference.deviations(found, STORED[name]).items():
        assert difference <= TOLERANCE, quantity


@pytest.mark.parametrize("name", reference.SENSITIVE)
def test_with_the_signs_of_e3nn_0_6_the_numbers_differ(name):
    # so the test above cannot pass without the repair
    with signs.building_with(e3nn.o3):
        model = reference.build(name)
    found = reference.evaluate(model)
    assert reference.deviations(found, STORED[name])["forces"] > 1e-6
    assert detect_convention(model) == "0.6"


def test_every_coefficient_up_to_degree_6_is_that_of_e3nn_0_4():
    project, triples = TOOL["project"], TOOL["triples"]
    coefficients = json.loads(reference.STORED.read_text())["wigner_3j"]
    stored = {tuple(map(int, key.split(","))): value for key, value in coefficients.items()}
    assert set(stored) == set(triples())
    differing = set()
    for degrees, value in stored.items():
        legacy = signs.legacy_wigner_3j(*degrees, dtype=torch.float64)
        assert abs(project(legacy) - value) <= TOLERANCE, degrees
        modern = e3nn.o3.wigner_3j(*degrees, dtype=torch.float64)
        if abs(project(modern) - value) > TOLERANCE:
            differing.add(degrees)
    # up to degree 4, found independently of the rule that is_flipped follows
    assert {degrees for degrees in differing if max(degrees) <= 4} == {
        *((1, 2, 2), (2, 1, 2), (2, 2, 1)),
        *((1, 3, 3), (3, 1, 3), (3, 3, 1)),
        *((1, 4, 4), (4, 1, 4), (4, 4, 1)),
    }


@pytest.fixture(params=CONVENTIONS)
def old_model(request, tmp_path):
    """A model that was saved on e3nn 0.4.4: its name and the path of the file."""
    path = tmp_path / f"{request.param}.model"
    path.write_bytes(lzma.decompress((SAVED / f"{request.param}.model.xz").read_bytes()))
    return request.param, path


def test_a_model_saved_on_e3nn_0_4_loads_and_agrees(old_model, tmp_path):
    name, path = old_model
    model = torch.load(path, map_location="cpu", weights_only=False)
    assert not hasattr(model, ATTRIBUTE)
    assert convention_of(model) == CONVENTIONS[name]
    torch.save(model, tmp_path / "again.model")
    again = torch.load(tmp_path / "again.model", weights_only=False)
    for loaded in (model, again):
        found = reference.evaluate(loaded)
        assert max(reference.deviations(found, STORED[name]).values()) <= TOLERANCE


def test_an_old_model_has_the_weights_and_buffers_of_a_new_one(old_model):
    name, path = old_model
    old = torch.load(path, map_location="cpu", weights_only=False).state_dict()
    new = reference.build(name).state_dict()
    assert old.keys() == new.keys()
    for key, value in old.items():
        assert torch.allclose(value.double(), new[key].double(), rtol=0, atol=1e-14), key


@pytest.mark.parametrize("attribute_of", ["weight_index_slices", "paths", "_did_compile_right"])
def test_what_old_files_lack_is_what_a_new_model_has(tmp_path, attribute_of):
    path = tmp_path / "old.model"
    path.write_bytes(lzma.decompress((SAVED / "1o-corr2.model.xz").read_bytes()))
    old = dict(torch.load(path, map_location="cpu", weights_only=False).named_modules())
    compared = 0
    for name, module in reference.build("1o-corr2").named_modules():
        if attribute_of in module.__dict__:
            expected, found = getattr(module, attribute_of), getattr(old[name], attribute_of)
            if attribute_of == "paths":  # (mul, (l, p), activation): activations are modules
                expected, found = ([path[:2] for path in paths] for paths in (expected, found))
            if attribute_of == "_did_compile_right":  # old files do not say: see pickles.py
                expected = True
            assert found == expected, name
            compared += 1
    assert compared > 0
