"""What importing eqplugin.mace does to a process: to MACE the repairs, to NequIP nothing."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from eqplugin.mace.compat import reason_for_no_repair

NEQUIP_UNCHANGED = """
    import numpy as np, torch, warnings, copy
    warnings.simplefilter("ignore")
    import e3nn, e3nn.o3
    from ase.build import molecule
    from nequip.data import AtomicDataDict, compute_neighborlist_, from_ase
    from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper
    from nequip.model import NequIPGNNModel
    from nequip.utils.global_state import set_global_state

    def numbers():
        set_global_state()
        model = NequIPGNNModel(
            seed=0, model_dtype="float64", r_max=4.0, type_names=["C", "H", "O"],
            avg_num_neighbors=5.0, num_layers=3, l_max=2, parity=True, num_features=4,
        )
        paths = {
            (m.irreps_in1[i.i_in1].ir.l, m.irreps_in2[i.i_in2].ir.l, m.irreps_out[i.i_out].ir.l)
            for m in model.modules() if isinstance(m, e3nn.o3.TensorProduct)
            for i in m.instructions
        }
        atoms = molecule("CH3CH2OH")
        atoms.rattle(0.05, seed=1)
        data = from_ase(atoms)
        data = ChemicalSpeciesToAtomTypeMapper(["C", "H", "O"])(data)
        data = compute_neighborlist_(data, r_max=4.0)
        out = model(data)
        copied = copy.deepcopy(model)(dict(data))
        assert torch.equal(copied["forces"], out["forces"])
        weights = torch.cat([p.detach().flatten().double() for p in model.parameters()])
        return paths, [out["total_energy"].detach(), out["forces"].detach(), weights]

    paths, before = numbers()
    coefficients = [e3nn.o3.wigner_3j(1, 2, 2), e3nn.o3.wigner_3j(2, 2, 1)]
    settings = e3nn.get_optimization_defaults()  # NequIP has set its own
    # without a coefficient that has two signs this test would compare nothing
    assert paths & {(1, 2, 2), (2, 1, 2), (2, 2, 1)}, paths
    assert before[1].abs().max() > 1e-3

    import eqplugin.mace
    from eqplugin.mace import compat, reference
    assert compat.is_active()
    reference.build("so3-1e-corr2")
    from mace.tools.compile import prepare
    prepare(reference.build)("0e-corr1")

    assert e3nn.get_optimization_defaults() == settings
    _, after = numbers()
    assert e3nn.get_optimization_defaults() == settings
    for one, other in zip(coefficients, [e3nn.o3.wigner_3j(1, 2, 2), e3nn.o3.wigner_3j(2, 2, 1)]):
        assert torch.equal(one, other)
    print(max(float((one - other).abs().max()) for one, other in zip(before, after)))
"""


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_nequip_gives_exactly_the_same_numbers_before_and_after():
    assert run(NEQUIP_UNCHANGED) == "0.0"


def test_importing_eqplugin_and_nequip_does_not_import_mace():
    code = """
        import sys
        import eqplugin, eqplugin.nequip, nequip.model, eqplugin.cli
        from e3nn.util.codegen import CodeGenMixin
        assert "mace" not in sys.modules, "MACE was imported"
        assert "__deepcopy__" not in CodeGenMixin.__dict__
    """
    run(code)


def test_the_import_prints_nothing():
    assert run("import eqplugin.mace") == ""


def test_applying_twice_changes_nothing():
    code = """
        import eqplugin.mace, mace.tools.cg, mace.modules.models, mace.cli.convert_e3nn_cueq
        from e3nn.util.codegen import CodeGenMixin
        import e3nn.o3
        from eqplugin.mace import compat
        from eqplugin.mace.compat import convention, jitmode, pickles, signs
        import mace.tools.compile
        def state():
            return [
                CodeGenMixin.__deepcopy__, CodeGenMixin.__setstate__, e3nn.o3.Linear.__setstate__,
                e3nn.o3.TensorProduct.__setstate__, mace.tools.cg.o3,
                mace.modules.models.MACE.__init__, mace.tools.compile.disable_e3nn_codegen,
                mace.cli.convert_e3nn_cueq.run,
            ]
        before = state()
        assert compat.apply()
        for part in (pickles, jitmode, signs, convention):
            part.repair()
        assert all(one is other for one, other in zip(before, state()))
    """
    run(code)


def test_a_mace_without_the_pin_is_left_alone():
    code = """
        from importlib import metadata
        original = metadata.requires
        metadata.requires = lambda name: (
            ["torch>=1.12", "e3nn>=0.5"] if name == "mace-torch" else original(name)
        )
        import logging
        records = []
        handler = logging.Handler()
        handler.emit = lambda record: records.append(record.getMessage())
        logging.getLogger("eqplugin").addHandler(handler)
        logging.getLogger("eqplugin").setLevel(logging.INFO)
        from eqplugin.mace import compat
        assert not compat.is_active()
        import mace.tools.cg, e3nn.o3
        assert mace.tools.cg.o3 is e3nn.o3
        print(records[0])
    """
    assert run(code).splitlines()[-1] == (
        "eqplugin.mace changes nothing: the installed MACE does not pin e3nn 0.4."
    )


@pytest.mark.parametrize(
    "requirement, e3nn, repaired",
    [
        ("e3nn==0.4.4", "0.6.0", True),
        ("e3nn (==0.4.4)", "0.5.1", True),
        ("e3nn==0.4.4", "0.4.4", False),
        ("e3nn>=0.4.4", "0.6.0", False),
        ("e3nn==0.5.1", "0.6.0", False),
        ("e3nn-jax==0.4.4", "0.6.0", False),
    ],
)
def test_the_repair_is_for_a_mace_that_pins_an_older_e3nn(requirement, e3nn, repaired):
    assert (reason_for_no_repair(["torch>=1.12", requirement], e3nn) == "") is repaired


def test_without_mace_the_import_says_how_to_install_it():
    code = """
        from importlib import metadata
        original = metadata.version
        def version(name):
            if name == "mace-torch":
                raise metadata.PackageNotFoundError(name)
            return original(name)
        metadata.version = version
        try:
            import eqplugin.mace
        except ImportError as error:
            print(error)
    """
    assert "pip install --no-deps mace-torch" in run(code)
