"""A file of which one bit is not what was written is refused in a sentence, whatever the bit."""

import random

import numpy as np
import pytest
from old_models import MACE, NEQUIP, needs

from eqplugin import EqCalculator, EqPluginError

FILES = (*MACE, *NEQUIP, "khop.nequip.zip")


def flipped(path, out, seed):
    """Write a copy with one bit changed, somewhere."""
    content = bytearray(path.read_bytes())
    place = random.Random(seed)
    content[place.randrange(len(content))] ^= 1 << place.randrange(8)
    out.write_bytes(content)
    return out


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_refused_or_changes_nothing(folder, structures, tmp_path, name):
    needs(name)
    expected = EqCalculator(folder / name).get_forces(structures[0])
    refused = 0
    for seed in range(12):
        damaged = flipped(folder / name, tmp_path / f"{seed}-{name}", seed)
        try:
            calculator = EqCalculator(damaged)
        except EqPluginError as error:
            refused += str(damaged) in str(error)
            continue
        np.testing.assert_array_equal(calculator.get_forces(structures[0]), expected)
    assert refused >= 6  # what is between the parts does not count


@pytest.mark.parametrize("name", [*FILES, "khop.nequip.pt2"])
def test_weights_of_which_one_bit_flipped_are_called_damaged(folder, tmp_path, name):
    needs(name)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 8
    damaged = tmp_path / name
    damaged.write_bytes(content)
    with pytest.raises(EqPluginError, match=r"is damaged .*: copy it again"):
        EqCalculator(damaged)


@pytest.mark.parametrize("name", FILES)
def test_half_a_file_is_refused(folder, tmp_path, name):
    needs(name)
    half = tmp_path / name
    half.write_bytes((folder / name).read_bytes()[:20000])
    with pytest.raises(EqPluginError, match="damaged"):
        EqCalculator(half)
