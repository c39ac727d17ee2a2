"""What is measured of a training process from outside, and a folder that is still written to."""

import json
import os
import subprocess
import sys
import time
from threading import Event

import psutil
import pytest

from eqplugin.errors import EqPluginError
from eqplugin.stacks import stack_named
from eqplugin.study import training

CODE = """
import time
block = bytearray(300 * 2**20)  # a peak that is over before anyone looks
del block
while time.process_time() < 1.5:
    pass
time.sleep(1)
"""


def test_memory_and_processor_time_of_the_process(tmp_path):
    watch = training._Watch()

    def started(pid):
        watch.pid = pid

    command = ["python", "-c", CODE]
    training.run_logged(command, tmp_path / "log", started, lambda: watch.see(0), Event())
    assert 1 < watch.cpu_seconds < 3
    assert 300 * 2**20 < watch.peak_bytes < 500 * 2**20
    assert watch.epoch_seconds() is None


def test_a_process_that_is_gone_or_was_never_there_is_not_measured():
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    for pid in (done.pid, None):
        watch = training._Watch()
        watch.pid = pid
        watch.see(1)
        assert (watch.cpu_seconds, watch.peak_bytes) == (None, None)


def test_a_training_left_behind_is_refused_and_another_process_is_not(tmp_path):
    stack = stack_named("nequip")
    folder = tmp_path / "run"
    folder.mkdir()
    run = training.TrainingRun("a model", stack, folder, ("python", "-c", ""), 1, "same", "again")
    code = "import time; time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code, str(folder)])
    while str(folder) not in " ".join(psutil.Process(other.pid).cmdline()):
        time.sleep(0.01)  # it is still a copy of this process
    try:
        for pid, culprit in ((other.pid, f"kill {other.pid}"), (os.getpid(), "0 of 1 epochs")):
            state = {"fingerprint": "same", "finished": False, "pid": pid}
            (folder / "run.json").write_text(json.dumps(state))
            with pytest.raises(EqPluginError, match=culprit):
                training.run_training(run, lambda *_: None, Event())
    finally:
        other.kill()
        other.wait()
