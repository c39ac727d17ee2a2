"""The code that e3nn's modules carry: tensor arithmetic, and nothing else.

e3nn generates the arithmetic of a tensor product. It is pickled as Python text, which torch.fx runs
at once when the file is opened, or as TorchScript, which cannot leave torch but can write files.
"""

from __future__ import annotations

import ast
import io
import re
from typing import Any

import torch

from eqplugin.errors import reason_of
from eqplugin.modelfile.mirror import Refused


def _words(text: str, prefix: str = "") -> set[str]:
    return {prefix + word for word in text.split()}


_MODULES = {
    "torch": {"device", "functional"},
    "math": {"inf", "nan"},
    "builtins": {"getattr", "slice"},
    "torch.fx._pytree": set(),
    "torch.utils._pytree": set(),
}
_GLOBALS = {"torch", "device", "inf", "nan", "NoneType", "slice", "getattr", "fx_pytree", "pytree"}
_BUILTINS = {"slice", "getattr", "int", "float", "bool"}
# attributes of tensors that are read; of their methods, and torch's functions, that are called
_READ = {"shape", "dtype", "device", "ndim", "T", "layout"}
_METHODS = _words(
    "abs add bmm clone contiguous cos detach div double dim exp expand expand_as flatten float "
    "gather index_select item matmul mean mul narrow neg new_empty new_ones new_zeros norm permute "
    "pow reshape reshape_as repeat select sigmoid sin size split sqrt squeeze stride sub sum t "
    "tanh to transpose type_as unbind unfold unsqueeze view view_as"
)
_FUNCTIONS = {f"torch.{name}" for name in _METHODS} | _words(
    "arange atan2 broadcast_tensors cat clamp concat cross einsum empty empty_like eye "
    "full full_like functional.broadcast_tensors functional.einsum functional.norm "
    "functional.split functional.tensordot maximum minimum nn.functional.silu "
    "nn.functional.softplus ones ones_like relu scalar_tensor stack tensor tensordot where "
    "zeros zeros_like",
    "torch.",
)
_CONSTANTS = _words(
    "float16 bfloat16 float32 float64 float double half int8 int16 int32 int64 int "
    "long uint8 bool strided contiguous_format preserve_format Tensor device",
    "torch.",
)


def check_python(imports: Any, code: Any) -> None:
    """Refuse Python text of torch.fx that is more than a ``forward`` of tensor arithmetic.

    Raises:
        Refused: naming the line.
    """
    if not isinstance(imports, str) or not isinstance(code, str):
        raise Refused("holds generated code that is no text")
    try:
        tree = ast.parse(imports + "\n" + code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Refused(f"holds generated code that is not Python ({reason_of(error)})") from error
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef):
            _Arithmetic().function(statement)
        elif not _is_import(statement):
            raise _more(statement)


def _more(node: ast.AST) -> Refused:
    return Refused(f"holds code beside tensor arithmetic: `{ast.unparse(node)[:80]}`")


def _is_import(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Import):
        return all(alias.name in _MODULES for alias in statement.names)
    if isinstance(statement, ast.ImportFrom):
        known = _MODULES.get(statement.module or "", set())
        return all(alias.name in known and not alias.asname for alias in statement.names) or all(
            alias.name in known and alias.asname in (None, alias.name) for alias in statement.names
        )
    return ast.unparse(statement) == "NoneType = type(None)"


class _Arithmetic(ast.NodeVisitor):
    """Walks a function; what is not on the list is refused."""

    def __init__(self) -> None:
        self.local: set[str] = set()

    def function(self, node: ast.FunctionDef) -> None:
        """A method ``forward`` that only computes."""
        if node.name != "forward" or node.decorator_list:
            raise _more(node)
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        self.local |= {argument.arg for argument in every}
        if arguments.vararg or arguments.kwarg or self.local & (_GLOBALS | _BUILTINS):
            raise _more(arguments)
        hints = [argument.annotation for argument in every] + [node.returns]
        for hint in hints:  # evaluated where the function is defined
            self._hint(hint)
        for default in [*arguments.defaults, *arguments.kw_defaults]:
            if default is not None:
                self.visit(default)
        for statement in node.body:
            self.visit(statement)

    def _hint(self, node: ast.expr | None) -> None:
        if node is None or isinstance(node, ast.Constant | ast.Name):
            return
        if not (isinstance(node, ast.Attribute) and ast.unparse(node) in _CONSTANTS):
            raise _more(node)

    def generic_visit(self, node: ast.AST) -> None:
        """Statements and expressions that only put others together."""
        allowed = (
            ast.Return, ast.Tuple, ast.List, ast.Slice, ast.Subscript, ast.BinOp, ast.UnaryOp,
            ast.Compare, ast.Constant, ast.operator, ast.unaryop, ast.cmpop, ast.expr_context,
            ast.keyword, ast.Pass, ast.Starred, ast.Delete,
        )  # fmt: skip
        if not isinstance(node, allowed):
            raise _more(node)
        super().generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        """A bare value, such as a text."""
        self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Names get values; nothing else is written to."""
        self.visit(node.value)
        for target in node.targets:
            self._target(target)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """The same, with a type."""
        self._hint(node.annotation)
        if node.value is not None:
            self.visit(node.value)
        self._target(node.target)

    def _target(self, node: ast.expr) -> None:
        if isinstance(node, ast.Name) and node.id not in _GLOBALS | _BUILTINS:
            self.local.add(node.id)
        elif isinstance(node, ast.Tuple | ast.List):
            for part in node.elts:
                self._target(part)
        else:
            raise _more(node)

    def visit_Name(self, node: ast.Name) -> None:
        """A value that was computed before, or a constant."""
        if node.id not in self.local | {"inf", "nan", "NoneType", "Ellipsis"}:
            raise _more(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """A constant of torch, a constant of the module, or a tensor's shape."""
        if ast.unparse(node) in _CONSTANTS:
            return
        root = node
        while isinstance(root.value, ast.Attribute):
            root = root.value
        on_self = isinstance(root.value, ast.Name) and root.value.id == "self"
        if on_self and "self" in self.local and "__" not in ast.unparse(node):
            return
        if node.attr not in _READ:
            raise _more(node)
        self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        """A function of torch, a method of a tensor, a submodule."""
        called = ast.unparse(node.func)
        if called == "getattr":
            if not (
                len(node.args) >= 2
                and isinstance(node.args[1], ast.Constant)
                and node.args[1].value in _READ
            ):
                raise _more(node)
        elif called in _BUILTINS or called in _FUNCTIONS or called == "device":
            pass
        elif isinstance(node.func, ast.Attribute) and called.startswith("self."):
            self.visit(node.func)
        elif isinstance(node.func, ast.Attribute) and node.func.attr in _METHODS:
            self.visit(node.func.value)
        else:
            raise _more(node)
        for part in [*node.args, *node.keywords]:
            self.visit(part)


# what TorchScript can do to files, to other libraries and while it is being opened
_TORCHSCRIPT = re.compile(
    r"\bops\.(?!prim\.)|\brpc_|\btorch\.(save|load|from_file|fork|ops|_C|hub|classes)\b|__setstate__|\b__torch__\."
    r"torch\.classes|::|\bfork\("
)


def check_torchscript(content: Any) -> None:
    """Refuse TorchScript that reaches files or other libraries, or runs while it is opened.

    Raises:
        Refused: naming what it calls.
    """
    if not isinstance(content, bytes):
        raise Refused("holds TorchScript that is no bytes")
    try:
        archive = torch._C.PyTorchFileReader(io.BytesIO(content))  # as torch.jit.load reads it
        sources = [name for name in archive.get_all_records() if name.endswith(".py")]
        text = "\n".join(archive.get_record(n).decode(errors="replace") for n in sources)
    except RuntimeError as error:
        raise Refused(f"holds TorchScript that cannot be read ({reason_of(error)})") from error
    found = _TORCHSCRIPT.search(text)
    if found is not None:
        raise Refused(f"holds TorchScript beside tensor arithmetic: `{found[0]}`")
