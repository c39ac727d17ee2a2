"""`nequip-train` in forks of this process, which has imported everything: a second, not ten."""

import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import NamedTuple

import nequip.scripts.train
import torch
from ase.io import read, write

import eqplugin.nequip.datamodule
import eqplugin.nequip.models  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
ETHANOL = ROOT / "examples" / "data" / "ethanol_xtb"
SMALL = ("dataset=_files", "type_names=[H,C,O]", "r_max=4.0", "feature_dim=16", "num_layers=2")


class Ended(NamedTuple):
    code: int  # negative: the signal that ended it
    output: str

    @property
    def error(self):
        """The one sentence; the test fails where there is a traceback or another number of them."""
        assert "Traceback" not in self.output, self.output[-3000:]
        found = [line for line in self.output.splitlines() if line.startswith("eqplugin: error: ")]
        assert len(found) == 1, self.output[-3000:]
        assert self.code == 1
        return found[0]


def forked(function, when=None, sig=signal.SIGKILL, limit=200, **environment):
    """Run a function in a fork; when `when()` holds, send a signal."""
    with tempfile.TemporaryFile("w+") as log:
        pid = os.fork()
        if not pid:
            os.setsid()
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            os.environ.update(environment)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            code = 1
            try:
                function()
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
                if isinstance(end.code, str):
                    print(end.code, file=sys.stderr)
            except BaseException:
                traceback.print_exc()
            finally:
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
                os._exit(code)
        start, sent = time.monotonic(), False
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            if when is not None and not sent and when():
                os.killpg(pid, sig)
                sent = True
            if time.monotonic() - start > limit:
                os.killpg(pid, signal.SIGKILL)
            time.sleep(0.001 if when else 0.02)
        log.seek(0)
        return Ended(os.waitstatus_to_exitcode(ended[1]), log.read())


def nequip_train(*overrides, config="minimal", configs=ROOT / "configs" / "nequip", more=(), **how):
    """Run nequip-train with these overrides; `how` is :func:`forked`'s."""

    def run():
        torch.set_num_threads(1)
        sys.argv = ["nequip-train", *more, "-cp", str(configs), "-cn", config, *map(str, overrides)]
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - pytest holds the old ones
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
        nequip.scripts.train.main()

    return forked(run, **how)


def write_frames(folder, train=12, val=6):
    """Write train.xyz and val.xyz; returns the overrides that name them."""
    write(folder / "train.xyz", read(ETHANOL / "train_300K.xyz", f":{train}"))
    write(folder / "val.xyz", read(ETHANOL / "val_300K.xyz", f":{val}"))
    return (f"train_files={folder}/train.xyz", f"val_files={folder}/val.xyz", *SMALL)


def checkpoint(path):
    return torch.load(path, map_location="cpu", weights_only=False)


def same_weights(one, other):
    """Whether two checkpoints hold the same tensors, bit for bit."""
    a, b = checkpoint(one)["state_dict"], checkpoint(other)["state_dict"]
    tensors = [key for key, value in a.items() if isinstance(value, torch.Tensor)]
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in tensors)
