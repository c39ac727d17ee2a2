"""Models in files without code: the same numbers, and nothing but numbers."""

import json
import random
import struct

import numpy as np
import pytest
import torch
from hostile import with_passenger
from old_models import MACE, NEQUIP, needs
from typer.testing import CliRunner

from eqplugin import EqCalculator, EqPluginError, convert_model, load_model
from eqplugin.modelfile.eqm import read_eqm, read_header

FILES = (*MACE, "mace_steerable_converted.model", *NEQUIP, "khop.nequip.zip")


def numbers(model, structures, **options):
    calculator = EqCalculator(model, **options)
    known = [atoms for atoms in structures if set(atoms.numbers) <= set(calculator.species)]
    return [(calculator.get_potential_energy(a), calculator.get_forces(a)) for a in known]


@pytest.mark.parametrize("name", FILES)
def test_numbers_are_the_same_to_the_last_bit(folder, structures, tmp_path, name):
    needs(name)
    if "converted" in name:
        from eqplugin.nn.product.compiled import load_operators

        if load_operators() is not None:
            pytest.skip("no C++ compiler")
    out = tmp_path / "x.eqm"
    header = convert_model(folder / name, out)
    assert header.species == ("H", "C", "O")
    assert header.stack == ("mace" if name.endswith(".model") else "nequip")
    expected = numbers(folder / name, structures)
    for (energy, forces), (wanted_energy, wanted) in zip(
        numbers(out, structures, trust=False), expected, strict=True
    ):
        assert energy == wanted_energy
        np.testing.assert_array_equal(forces, wanted)
    before, after = load_model(folder / name).state_dict(), load_model(out).state_dict()
    assert list(before) == list(after)
    for key, tensor in before.items():
        assert torch.equal(tensor, after[key])
        assert tensor.dtype == after[key].dtype


@pytest.mark.parametrize("name", [MACE[0], NEQUIP[0]])
def test_the_same_model_gives_the_same_bytes(folder, tmp_path, name):
    needs(name)
    for out in ("a.eqm", "b.eqm"):
        convert_model(folder / name, tmp_path / out)
    assert (tmp_path / "a.eqm").read_bytes() == (tmp_path / "b.eqm").read_bytes()


def test_of_a_file_with_a_passenger_the_numbers_remain(folder, structures, tmp_path):
    needs(*MACE)
    marker = tmp_path / "RAN"
    (tmp_path / "evil.model").write_bytes(with_passenger(folder / MACE[0], marker))
    convert_model(tmp_path / "evil.model", tmp_path / "x.eqm")
    assert not marker.exists()
    expected = numbers(folder / MACE[0], structures)
    for found, wanted in zip(numbers(tmp_path / "x.eqm", structures), expected, strict=True):
        np.testing.assert_array_equal(found[1], wanted[1])


def test_a_live_mace_model_is_written_as_its_file_is(folder, tmp_path):
    needs(*MACE)
    from eqplugin.mace.eqm import save_eqm

    save_eqm(load_model(folder / MACE[0]), tmp_path / "live.eqm")
    convert_model(folder / MACE[0], tmp_path / "file.eqm")
    assert (tmp_path / "live.eqm").read_bytes() == (tmp_path / "file.eqm").read_bytes()


@pytest.fixture(scope="module")
def small(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("eqm") / "x.eqm"
    convert_model(folder / NEQUIP[0], path)
    return path


def test_flipped_bits_and_cut_files_are_refused(small, tmp_path):
    content = small.read_bytes()
    for seed in range(200):
        choose = random.Random(seed)
        damaged = bytearray(content)
        damaged[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
        path = tmp_path / "damaged.eqm"
        path.write_bytes(damaged)
        with pytest.raises(EqPluginError, match=r"damaged\.eqm is damaged"):
            read_eqm(path)
    for length in (0, 5, 8, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(EqPluginError, match="damaged"):
            EqCalculator(path)
    path.write_bytes(content + b"0")
    with pytest.raises(EqPluginError, match="damaged"):
        EqCalculator(path)


def rewritten(path, out, **changes):
    """A file with other metadata and a right sha256, as an attacker would write it."""
    from dataclasses import replace

    from eqplugin.modelfile.eqm import write_eqm

    header, tensors = read_eqm(path)
    write_eqm(out, replace(header, **changes), tensors)
    return out


HOSTILE = [
    ({"builder": "os.system"}, "os.system, which this version does not know"),
    ({"builder": "builtins.exec"}, "builtins.exec, which this version does not know"),
    ({"stack": "os"}, "is of 'os'"),
    ({"stack": "mace"}, "which this version does not know"),
    ({"dtype": "float16"}, None),
    ({"config": {"_target_": "os.system"}}, r"names os\.system"),
    ({"config": {"a": {"_target_": "os.system", "command": "true"}}}, r"names os\.system"),
    ({"config": {"a": "${oc.env:HOME}"}}, "not resolved"),
    ({"config": {"a": 1}}, "cannot be built"),
]


@pytest.mark.parametrize("changes, sentence", HOSTILE)
def test_what_a_file_asks_for_is_on_a_list(small, tmp_path, changes, sentence):
    if changes.get("stack") == "mace":
        needs(*MACE)
    path = rewritten(small, tmp_path / "other.eqm", **changes)
    if sentence is None:
        EqCalculator(path)  # told, not used: NequIP's dtype is an argument of its builder
        return
    with pytest.raises(EqPluginError, match=sentence):
        EqCalculator(path)


def test_missing_and_foreign_tensors_are_named(small, tmp_path):
    from eqplugin.modelfile.eqm import write_eqm

    header, tensors = read_eqm(small)
    name = next(iter(tensors))
    without = {key: value for key, value in tensors.items() if key != name}
    write_eqm(tmp_path / "a.eqm", header, without)
    with pytest.raises(EqPluginError, match=f"{name} is missing in the file"):
        EqCalculator(tmp_path / "a.eqm")
    write_eqm(tmp_path / "b.eqm", header, {**tensors, "more": torch.zeros(1)})
    with pytest.raises(EqPluginError, match="more is missing in the model"):
        EqCalculator(tmp_path / "b.eqm")
    write_eqm(tmp_path / "c.eqm", header, {**tensors, name: torch.zeros(7, dtype=torch.float32)})
    with pytest.raises(EqPluginError, match=rf"{name} is \(7,\) of torch.float32 in the file"):
        EqCalculator(tmp_path / "c.eqm")


def test_the_layout_is_that_of_safetensors(small):
    content = small.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__")
    assert all(isinstance(text, str) for text in metadata.values())
    assert (8 + length) % 8 == 0
    assert max(entry["data_offsets"][1] for entry in header.values()) == len(content) - 8 - length
    assert read_header(small).builder == "eqplugin.nequip.SteerableModel"


def test_convert_says_what_it_cannot_do(folder, small, tmp_path):
    with pytest.raises(EqPluginError, match=r"is an \.eqm file already"):
        convert_model(small, tmp_path / "y.eqm")
    with pytest.raises(EqPluginError, match=r"does not end in \.eqm"):
        convert_model(folder / NEQUIP[0], tmp_path / "y.model")
    with pytest.raises(EqPluginError, match="is compiled"):
        convert_model(folder / "khop.nequip.pt2", tmp_path / "y.eqm")
    with pytest.raises(EqPluginError, match="trust=False"):
        convert_model(folder / "khop.nequip.zip", tmp_path / "y.eqm", trust=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [MACE[0], NEQUIP[0], "khop.nequip.zip", "khop.nequip.pt2"])
def test_the_commands(folder, tmp_path, name):
    needs(name)
    from eqplugin.cli import app

    def run(*words):
        done = CliRunner().invoke(app, ["model", *map(str, words)])
        return done.exit_code, done.output

    status, text = run("info", folder / name)
    assert status == 0
    assert "sha256" in text
    status, text = run("convert", folder / name, tmp_path / "x.eqm")
    if name.endswith(".pt2"):
        assert status == 1
        assert "is compiled" in text
        return
    assert status == 0, text
    status, text = run("info", tmp_path / "x.eqm")
    assert status == 0
    assert "model without code" in text
    assert "H, C, O" in text


@pytest.mark.parametrize("name", [MACE[0], NEQUIP[0]])
def test_other_commands_take_the_file(folder, tmp_path, name):
    needs(name)
    from eqplugin.cli import app

    model = tmp_path / "x.eqm"
    convert_model(folder / name, model)
    frames = folder.parent / "labelled.xyz"
    frames.write_text(
        '3\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1 pbc="F F F"\n'
        "O 0 0 0 0 0 0\nH 0.96 0 0 0 0 0\nH -0.24 0.93 0 0 0 0\n"
    )
    commands = [
        f"bench forces {model} {frames}",
        f"md {model} {frames} --steps 10 --every 10 --ensemble nve --out {tmp_path}/md",
        f"bench expressivity -m {model} --suite chains",
    ]
    if name in MACE:
        commands += [
            f"mace-convert {model} {tmp_path}/x.model --e3nn 0.4",
            f"mace-export {model} --out {tmp_path}/x.pt",
        ]
    for command in commands:
        done = CliRunner().invoke(app, command.split())
        assert done.exit_code == 0, (command, done.output[-500:], done.exception)
    if name in MACE:
        done = CliRunner().invoke(app, ["mace-convert", str(model), f"{model}", "--e3nn", "0.6"])
        assert done.exit_code == 1
        assert "eqplugin model convert" in done.output
