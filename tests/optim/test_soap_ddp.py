"""Two gloo processes equal one with the doubled batch: SOAP on a NequIP model under DDP."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

FRAMES = Path(__file__).resolve().parents[2] / "examples/data/ethanol_xtb/train_300K.xyz"

# argv: frames, rank, processes, file that the processes meet at, file of the weights
TRAINING = """
import sys
from pathlib import Path
import torch
from ase.io import read
from eqplugin.nequip.config import build_model, read_model_section
from eqplugin.optim import SOAP, block_groups
from eqplugin.stacks import stack_named

frames, rank, processes, meeting, out = sys.argv[1:]
rank, processes = int(rank), int(processes)
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{meeting}", rank=rank, world_size=processes
)
overrides = ["feature_dim=16", "l_max=1", "num_layers=2", "model_dtype=float64", "r_max=4.0"]
model = build_model(
    read_model_section(Path("configs/nequip"), "minimal", overrides)
).train()
parallel = torch.nn.parallel.DistributedDataParallel(model, find_unused_parameters=False)
# a larger eps than usual: below it lies rounding, which SOAP would divide by itself
soap = SOAP(block_groups(model), lr=0.005, freq=3, warmup=2, eps=1e-6)
atoms = read(frames, ":24")
for step in range(6):
    batch = atoms[4 * step : 4 * step + 4][rank::processes]
    soap.zero_grad()
    out_ = parallel(stack_named("nequip").batch(model, batch, 4.0))
    targets = torch.tensor([a.get_potential_energy() for a in batch], dtype=torch.float64)
    forces = torch.cat([torch.as_tensor(a.get_forces()) for a in batch])
    (((out_["total_energy"].flatten() - targets) / 9).square().mean()
     + (out_["forces"] - forces).square().mean()).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    soap.step()
if rank == 0:
    torch.save(model.state_dict(), out)
torch.distributed.barrier()
"""


def trained(folder, processes):
    command = [sys.executable, "-c", TRAINING, str(FRAMES)]
    out = folder / f"{processes}.pt"
    ends = ((str(rank), str(processes), str(folder / f"meet{processes}"), str(out))
            for rank in range(processes))  # fmt: skip
    running = [
        subprocess.Popen([*command, *end], cwd=FRAMES.parents[3], stderr=subprocess.PIPE)
        for end in ends
    ]
    for process in running:
        errors = process.communicate()[1]
        assert process.returncode == 0, errors.decode()[-2000:]
    return torch.load(out, weights_only=False)


@pytest.mark.slow
def test_two_processes_equal_one_with_the_doubled_batch(tmp_path):
    one, two = trained(tmp_path, 1), trained(tmp_path, 2)
    for name, value in one.items():
        torch.testing.assert_close(
            two[name], value, rtol=0, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}"
        )
