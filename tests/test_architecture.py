"""The architecture that the documentation describes: floors without circles, one name for one thing."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp

import fluxwerk

SOURCE = Path(fluxwerk.__file__).parent
MOST_ROOT_MODULES = 10


@cache
def imports() -> dict[str, frozenset[str]]:
    """Return what each module of the package imports, imports for type checkers included."""
    graph = grimp.build_graph("fluxwerk", exclude_type_checking_imports=False, cache_dir=None)
    return {name: frozenset(graph.find_modules_directly_imported_by(name)) for name in graph.modules}


@cache
def modules() -> dict[str, ast.Module]:
    """Return the syntax tree of every module, by its path below the package."""
    files = sorted(SOURCE.rglob("*.py"))
    return {file.relative_to(SOURCE).as_posix(): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def circle(graph: Mapping[str, frozenset[str]]) -> list[str]:
    """Return the modules of one import circle, or nothing if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as found:
        return list(found.args[1])
    return []


def constants(tree: ast.Module) -> Iterator[tuple[str, object]]:
    """Yield the module's constants that are plain numbers, with their values."""
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if re.fullmatch(r"[A-Z][A-Z0-9_]+", name):
                try:
                    number = eval(compile(ast.Expression(value), name, "eval"), {"__builtins__": {}})
                except Exception:  # noqa: BLE001  (it is not made of literals)
                    continue
                if isinstance(number, int | float):
                    yield name, number


def test_no_module_imports_itself_through_others():
    assert circle(imports()) == []


def test_a_circle_is_found_where_there_is_one():
    graph = {"a": frozenset({"b"}), "b": frozenset({"c"}), "c": frozenset({"a"})}
    assert set(circle(graph)) == {"a", "b", "c"}


def test_imports_for_type_checkers_are_counted():
    assert "fluxwerk.client.client" in imports()["fluxwerk.webhook.receiver"]


def test_no_two_modules_define_a_class_of_one_name():
    places = defaultdict(set)
    for file, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].add(file)
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_every_exception_ends_in_error():
    bases: dict[str, set[str]] = {}
    for tree in modules().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {ast.unparse(base).rpartition(".")[2] for base in node.bases}

    def raises(name: str) -> bool:
        return name in ("Exception", "BaseException") or name.endswith("Error") or any(map(raises, bases.get(name, ())))

    assert [name for name in bases if raises(name) and not name.endswith("Error")] == []


def test_a_number_under_one_name_is_the_same_everywhere():
    values = defaultdict(dict)
    for file, tree in modules().items():
        for name, value in constants(tree):
            values[name][file] = value
    assert {name: files for name, files in values.items() if len(set(files.values())) > 1} == {}


def test_at_most_ten_modules_stand_at_the_root():
    root = {path for path in modules() if "/" not in path} - {"__init__.py", "__main__.py"}
    assert len(root) <= MOST_ROOT_MODULES, sorted(root)
