"""Model files that append a line to a marker file when something in them runs."""

import io
import pickle
import tarfile
import zipfile

import torch
from torch import fx


class Call:
    """Whatever unpickles it calls the function, and gets what that returns."""

    def __init__(self, function, *arguments):
        self.reduction = function, arguments

    def __reduce__(self):
        return self.reduction

    def __call__(self):
        """So that it may stand where a function is pickled."""


def mark(path):
    return f"open({str(path)!r}, 'a').write('ran\\n')"


def passenger(path):
    """An attribute that runs when it is read, and then is None."""
    return Call(exec, mark(path))


def legacy(content):
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


class _Graph:
    """Pickled as torch.fx pickles a graph, with a text of our own."""

    def __init__(self, imports, code):
        self.imports, self.body = imports, {"_code": code, "_parameters": {}, "_modules": {}}

    def __reduce__(self):
        return fx.graph_module.reduce_graph_module, (self.body, self.imports)


IMPORTS = "import torch\nfrom torch import device\n"
PLAIN = "def forward(self, x):\n    return x\n"


def graphs(marker):
    """Texts of graphs that run at once, or when the graph is called."""
    text = mark(marker)
    return {
        "imports": _Graph(f"{IMPORTS}{text}\n", PLAIN),
        "foreign import": _Graph("import os\n", PLAIN),
        "aliased import": _Graph("from builtins import exec as getattr\n", PLAIN),
        "module level": _Graph(IMPORTS, f"{text}\n{PLAIN}"),
        "default": _Graph(IMPORTS, f"def forward(self, x={text}):\n    return x\n"),
        "annotation": _Graph(IMPORTS, f"def forward(self, x: {text}):\n    return x\n"),
        "decorator": _Graph(IMPORTS, f"@exec\n{PLAIN}"),
        "body": _Graph(IMPORTS, f"def forward(self, x):\n    y = {text}\n    return x\n"),
        "torch.load": _Graph(IMPORTS, "def forward(self, x):\n    return torch.load('x')\n"),
        "dunder": _Graph(IMPORTS, "def forward(self, x):\n    return x.__class__.__mro__\n"),
        "numpy": _Graph(IMPORTS, "def forward(self, x):\n    return x.numpy().tofile('x')\n"),
        "lambda": _Graph(IMPORTS, "def forward(self, x):\n    y = lambda: x\n    return y()\n"),
        "loop": _Graph(IMPORTS, f"def forward(self, x):\n    for _ in {text}: pass\n"),
        "code": _code_beside(text),
    }


def _code_beside(text):
    graph = _Graph(f"{IMPORTS}", None)
    graph.body["code"] = f"{text}\n{PLAIN}"
    return graph


def generated(kind, content):
    """A module of e3nn that unpickles bytes in its own state."""
    from e3nn.o3 import Linear

    module = Linear("1x0e", "1x0e")
    state = module.__getstate__()
    state["__codegen__"] = {"_compiled_main": (kind, content)}

    class Carrier:
        def __reduce__(self):
            import copyreg

            return copyreg._reconstructor, (Linear, object, None), state

    return Carrier()


def pickles(marker):
    """Contents of pickles that would run something, by name."""
    text = mark(marker)
    found = {
        "bare": saved(passenger(marker)),
        "eval": saved({"a": [Call(eval, text)]}),
        "legacy": legacy(passenger(marker)),
        "inner pickle": saved(Call(pickle.loads, pickle.dumps(passenger(marker)))),
        "storage": saved(Call(torch.storage._load_from_bytes, legacy(passenger(marker)))),
        "fx bytes": saved(generated("fx", pickle.dumps(passenger(marker)))),
        "getattr": saved(Call(Call(getattr, torch.nn.Linear(1, 1), "__init__"))),
        "method": saved(Call(Call(getattr, torch.nn.Linear(1, 1), "apply"), print)),
        "constructor": saved(Call(torch.nn.Linear, 1, 1)),
        "torch.load": saved(Call(torch.load, "x")),
        "codecs": saved(Call(__import__("codecs").encode, "x", "rot13")),
        "partial": saved(Call(__import__("functools").partial, exec, text)),
        "import": saved(Call(__import__("importlib").import_module, "this")),
    }
    for name, graph in graphs(marker).items():
        found[f"graph: {name}"] = saved(graph)
        found[f"graph in e3nn: {name}"] = saved(generated("fx", pickle.dumps(graph)))
    found["python 2"] = _renamed(saved({}), b"c__builtin__\neval\n(V" + text.encode() + b"\ntR.")
    found["os.system"] = _renamed(saved({}), b"cposix\nsystem\n(Vtrue\ntR.")
    found["dotted"] = _renamed(saved({}), b"\x80\x04\x8c\x02os\x8c\x0bpath.os.sep\x93.")
    found["twice"] = _twice(saved({}), pickle.dumps(passenger(marker), 2))
    found["tar"] = _tar(pickle.dumps(passenger(marker), 2))
    found["torchscript"] = saved(generated("torchscript", torchscript()))
    return found


def torchscript():
    """TorchScript that writes a file when it is called."""

    class Writer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.save(x, "written")
            return x

    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Writer()), buffer)
    return buffer.getvalue()


def _renamed(content, data):
    """The same archive with other bytes as its pickle."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, data if name.endswith("/data.pkl") else old.read(name))
    return out.getvalue()


def _twice(content, data):
    """An archive with two pickles of one name: readers differ in which they find."""
    out = io.BytesIO(content)
    with zipfile.ZipFile(out, "a") as archive:
        name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
        archive.writestr(name, data)
    return out.getvalue()


def _tar(data):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def retargeted(checkpoint, target, **options):
    """A checkpoint whose config names another function as its model."""
    content = torch.load(checkpoint, weights_only=True, map_location="cpu")

    def edit(node):
        if isinstance(node, dict):
            if str(node.get("_target_", "")).startswith("eqplugin.nequip."):
                node.clear()
                node.update({"_target_": target, **options})
                return
            for value in node.values():
                edit(value)

    edit(content["hyper_parameters"]["model"])
    content["hyper_parameters"]["model"] = {"_target_": target, **options}
    edit(content["hyper_parameters"]["info_dict"]["training_module"])
    return saved(content)


def with_passenger(path, marker):
    """A working file with a passenger that runs and vanishes."""
    content = torch.load(path, weights_only=False, map_location="cpu")
    if isinstance(content, dict):
        content["passenger"] = passenger(marker)
    else:
        content.passenger = passenger(marker)
    return saved(content)
