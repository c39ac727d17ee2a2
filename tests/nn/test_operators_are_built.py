"""Where there is a compiler there are operators: all other tests of them skip without."""

import os

import pytest

from eqplugin.nn.product.build import compiler
from eqplugin.nn.product.compiled import load_operators


@pytest.mark.skipif(bool(os.environ.get("EQPLUGIN_NO_COMPILED")), reason="switched off")
@pytest.mark.skipif(compiler() is None, reason="no C++ compiler here")
def test_a_machine_with_a_compiler_has_the_operators():
    assert load_operators() is None
