"""Rules about the code itself: who may import whom, what is pure, how long things may be, what must be said."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("schemas", "broker", "producers", "streams", "store", "queries", "tasktrail")

MAY_IMPORT: dict[str, set[str]] = {
    # The first entry whose name a file's path begins with holds. Besides these, the standard library.
    "schemas/": {"schemas"},
    "streams/join/": {"schemas", "streams.join"},
    "streams/fleet/application.py": {"schemas", "streams", "broker", "faust"},
    "streams/": {"schemas", "streams", "producers", "store", "broker"},
    "producers/bpf/probes.py": {"schemas", "producers", "bcc"},
    "producers/": {"schemas", "producers", "broker"},
    "broker/connection.py": {"schemas", "broker", "confluent_kafka"},
    "broker/failures.py": {"schemas", "confluent_kafka"},
    "broker/": {"schemas", "broker"},
    "store/connection.py": {"schemas", "store", "clickhouse_driver"},
    "store/server_child.py": {"schemas", "store", "chdb", "_chdb"},
    "store/": {"schemas", "store"},
    "queries/": {"schemas", "queries", "store"},
    "tasktrail/metrics.py": {"schemas", "prometheus_client"},
    "tasktrail/terminal.py": {*PACKAGES, "click", "rich"},
    "tasktrail/": {*PACKAGES, "click"},
}
PURE = ("schemas/", "streams/join/")
NOT_PURE = ("schemas/dictionary.py",)
"""A program that writes documentation, imported by nothing but its test."""
PURE_STDLIB = {"bisect", "collections", "dataclasses", "enum", "functools", "heapq", "itertools", "json", "operator", "struct", "typing"}
PURE_STDLIB |= {"hashlib", "hmac", "re", "uuid", "zlib"}
IMPURE_BUILTINS = {"open", "print", "input", "eval", "exec", "__import__", "hash", "id", "breakpoint", "globals"}
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70


def modules() -> list[Path]:
    """Every Python file of our packages."""
    return sorted(path for top in PACKAGES for path in (ROOT / top).rglob("*.py"))


def name_of(path: Path) -> str:
    """The path within the project."""
    return path.relative_to(ROOT).as_posix()


def tree_of(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(path.read_text("utf-8"))


EVERY_MODULE = pytest.mark.parametrize("path", modules(), ids=name_of)


def import_problems(name: str, tree: ast.Module) -> Iterator[str]:
    """Imports that the table does not allow."""
    allowed = next(value for key, value in MAY_IMPORT.items() if name.startswith(key))
    pure = name.startswith(PURE) and name not in NOT_PURE
    nodes = list(ast.walk(tree))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {("." * node.level) + (node.module or "") for node in nodes if isinstance(node, ast.ImportFrom)}
    for module in sorted(found):
        ours = any(f"{module}.".startswith(f"{one}.") for one in allowed)
        top = module.split(".")[0]
        if not ours and (top not in sys.stdlib_module_names or (pure and top not in PURE_STDLIB)):
            yield f"{name} imports {module}"


def purity_problems(name: str, tree: ast.Module) -> Iterator[str]:
    """Calls that reach outside, in modules that must not."""
    if not name.startswith(PURE) or name in NOT_PURE:
        return
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    yield from (f"{name} calls {call}" for call in sorted(calls & IMPURE_BUILTINS))
    yield from (f"{name}: global {node.names}" for node in ast.walk(tree) if isinstance(node, ast.Global))


def is_set(node: ast.expr, sets: set[str]) -> bool:
    """Whether an expression is a set, as far as the text shows."""
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in ("set", "frozenset")
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr | ast.Sub | ast.BitXor):
        return is_set(node.left, sets) or is_set(node.right, sets)
    label = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return label in sets


def set_problems(name: str, tree: ast.Module) -> Iterator[str]:
    """Iterations over sets in the join: their order differs from process to process."""
    if not name.startswith("streams/join/"):
        return
    sets: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and re.match(r"(frozen)?set\b", ast.unparse(node.annotation)):
            sets.add(ast.unparse(node.target).split(".")[-1])
        if isinstance(node, ast.Assign) and is_set(node.value, sets):
            sets.update(ast.unparse(target).split(".")[-1] for target in node.targets)
        if isinstance(node, ast.arg) and node.annotation and re.match(r"(frozen)?set\b", ast.unparse(node.annotation)):
            sets.add(node.arg)
    for node in ast.walk(tree):
        walked: list[ast.expr] = []
        if isinstance(node, ast.For | ast.comprehension):
            walked = [node.iter]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("list", "tuple", "iter", "next", "enumerate")
        ):
            walked = node.args[:1]
        yield from (f"{name} iterates over the set {ast.unparse(one)}" for one in walked if is_set(one, sets))


def size_problems(name: str, text: str) -> Iterator[str]:
    """Modules and functions that do not fit."""
    lines = text.count("\n")
    if lines > MODULE_LINES_MAX:
        yield f"{name} has {lines} lines, the limit is {MODULE_LINES_MAX}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or 0) - node.lineno + 1
            if size > FUNCTION_LINES_MAX:
                yield f"{name}: {node.name} has {size} lines, the limit is {FUNCTION_LINES_MAX}"


def docstring_problems(name: str, tree: ast.Module) -> Iterator[str]:
    """Public things that nobody has described."""
    if tree.body and not ast.get_docstring(tree):
        yield f"{name} has no docstring"
    pending: list[tuple[str, ast.AST]] = [("", tree)]
    while pending:
        above, parent = pending.pop()
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
                if not ast.get_docstring(node):
                    yield f"{name}: {above}{node.name} has no docstring"
                if isinstance(node, ast.ClassDef) and "Protocol" not in map(ast.unparse, node.bases):
                    pending.append((f"{node.name}.", node))


@EVERY_MODULE
def test_imports_follow_the_flow(path: Path) -> None:
    assert not list(import_problems(name_of(path), tree_of(path)))


@EVERY_MODULE
def test_pure_packages_are_pure(path: Path) -> None:
    assert not [*purity_problems(name_of(path), tree_of(path)), *set_problems(name_of(path), tree_of(path))]


@EVERY_MODULE
def test_modules_and_functions_fit(path: Path) -> None:
    assert not list(size_problems(name_of(path), path.read_text("utf-8")))


@EVERY_MODULE
def test_public_things_are_described(path: Path) -> None:
    assert not list(docstring_problems(name_of(path), tree_of(path)))


def test_every_third_party_package_has_one_door() -> None:
    doors = {"bcc": "producers/bpf/probes.py", "clickhouse_driver": "store/connection.py", "chdb": "store/server_child.py"}
    doors |= {"rich": "tasktrail/terminal.py", "prometheus_client": "tasktrail/metrics.py", "faust": "streams/fleet/application.py"}
    for package, door in doors.items():
        allowed = [key for key, value in MAY_IMPORT.items() if package in value]
        assert allowed == [door]
    # Its error numbers are the client's too.
    assert [key for key, value in MAY_IMPORT.items() if "confluent_kafka" in value] == ["broker/connection.py", "broker/failures.py"]


def test_tests_wait_for_events_and_use_no_patches() -> None:
    waiting, patching = "sle" + "ep(", "mock.pa" + "tch"
    problems = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if path.parent.name == "bench":
            continue  # measures over time
        calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
        problems += [
            name_of(path) for call in calls if (ast.unparse(call.func) + "(").endswith(waiting) or patching in ast.unparse(call.func)
        ]
    assert not problems


def test_no_module_is_called_utils() -> None:
    vague = {"utils", "util", "helpers", "misc", "common", "manager"}
    assert not [name_of(path) for path in modules() if path.stem in vague]


MACHINE = re.compile("/wo" + r"rk/(main|shared|\.)|/ro" + r"ot/\.")
DOWNLOAD = re.compile(
    r"https?://[\w.:-]*(pypi\.org/simple|python" + r"hosted|index-url|extra-index|art" + r"ifactory|mirror|nexus|registry)[\w./-]*", re.I
)
TALK = re.compile("pro" + r"totypes/|\b(cla" + r"ude|chat" + r"gpt|ll" + r"m)\b", re.I)


def tracked() -> list[Path]:
    """Every text file that is kept."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False).stdout.decode().split("\0")
    names = [name for name in listed if name] or [name_of(path) for path in ROOT.rglob("*.py") if ".venv" not in path.parts]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


@pytest.mark.parametrize("pattern", [MACHINE, DOWNLOAD, TALK], ids=["paths of one machine", "download addresses", "talk about tools"])
def test_files_speak_of_the_project_alone(pattern: re.Pattern[str]) -> None:
    problems = []
    for path in tracked():
        text = path.read_bytes()
        if b"\0" in text:
            continue
        for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
            if pattern.search(line):
                problems.append(f"{name_of(path)}:{number}: {line.strip()[:100]}")
    assert not problems


WRONG: list[tuple[Callable[[str, ast.Module], Iterator[str]], str, str]] = [
    (import_problems, "schemas/x.py", "import datetime"),
    (import_problems, "schemas/x.py", "from streams import join"),
    (import_problems, "streams/join/x.py", "import time"),
    (import_problems, "streams/join/x.py", "from . import model"),
    (import_problems, "streams/join/x.py", "from streams.sinks import clickhouse"),
    (import_problems, "queries/x.py", "import clickhouse_driver"),
    (import_problems, "store/x.py", "import queries"),
    (import_problems, "producers/x.py", "from bcc import BPF"),
    (import_problems, "producers/x.py", "import store.connection"),
    (import_problems, "producers/x.py", "import confluent_kafka"),
    (import_problems, "broker/x.py", "import producers"),
    (import_problems, "tasktrail/ps.py", "import rich.table"),
    (purity_problems, "schemas/x.py", "print(1)"),
    (purity_problems, "streams/join/x.py", "key = hash('a')"),
    (purity_problems, "streams/join/x.py", "def f():\n    global g"),
    (set_problems, "streams/join/x.py", "for one in {1, 2}: pass"),
    (set_problems, "streams/join/x.py", "seen = set()\nrows = [one for one in seen]"),
    (set_problems, "streams/join/x.py", "class State:\n    ids: set[int]\ndef f(s):\n    return list(s.ids)"),
    (set_problems, "streams/join/x.py", "def f(a: set[int], b: set[int]):\n    return [x for x in a & b]"),
    (docstring_problems, "schemas/x.py", '"""Module."""\ndef shown(): pass'),
    (docstring_problems, "schemas/x.py", "x = 1"),
    (docstring_problems, "schemas/x.py", '"""Module."""\nclass A:\n    """A."""\n    def shown(self): pass'),
]


@pytest.mark.parametrize(("check", "name", "text"), WRONG)
def test_the_checker_finds_what_is_wrong(check: Callable[[str, ast.Module], Iterator[str]], name: str, text: str) -> None:
    assert list(check(name, ast.parse(text)))


def test_the_checker_finds_what_is_too_long() -> None:
    assert list(size_problems("x.py", "x = 1\n" * (MODULE_LINES_MAX + 1)))
    assert list(size_problems("x.py", "def f():\n" + "    x = 1\n" * FUNCTION_LINES_MAX))
    assert not list(size_problems("x.py", "def f():\n" + "    x = 1\n" * (FUNCTION_LINES_MAX - 1)))


def test_the_checker_lets_sorted_sets_pass() -> None:
    assert not list(set_problems("streams/join/x.py", ast.parse("seen = set()\nfor one in sorted(seen): pass\nif 1 in seen: pass")))
