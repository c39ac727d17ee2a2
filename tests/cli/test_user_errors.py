"""What the machine refuses is one sentence, what is our own fault a traceback."""

import errno
import os

import numpy as np
import pytest
import torch
import typer

from eqplugin.cli._common import user_errors


def no_array():
    np.ones((10**6, 10**9))


def no_tensor():
    torch.ones(10**15)


def no_tensor_on_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def full_disk():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "results.json")


@pytest.mark.parametrize(
    "fault, sentence",
    [
        (no_array, "there is not enough memory"),
        (no_tensor, "there is not enough memory"),
        (no_tensor_on_a_gpu, "Tried to allocate 20.00 GiB"),
        (full_disk, "results.json cannot be read or written: No space left on device."),
    ],
)
def test_one_sentence(fault, sentence, capsys):
    with pytest.raises(typer.Exit) as ended, user_errors():
        fault()
    assert ended.value.exit_code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("eqplugin: error: ")
    assert sentence in line


@pytest.mark.parametrize("fault", [RuntimeError("shapes do not match"), FileNotFoundError(2, "no")])
def test_our_own_faults_are_not_hidden(fault):
    with pytest.raises(type(fault)), user_errors():
        raise fault
