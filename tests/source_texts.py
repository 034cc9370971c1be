"""The texts that expressions of the source can have, with … for what only a run knows.

What a text is made of is followed through variables, parameters, returned values, tables and fields
of objects, by their names. A text that goes into a field of another one, as a reason in
parentheses, is kept beside it.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("wav2lip_npu", "face_detection", "scripts")
FIELD = "…"
MIN_WORDS = 3  # of a text in a field of a message; a shorter one is a name or a number in words
MAX_ALTERNATIVES = 100  # texts that one expression can be; more are too many to multiply
INTERNAL = ("AttributeError", "UnreadableSamples")  # for the code that catches them
NO_FAULTS = ("Device",)  # classes whose fields with texts say what is right
_Definition = ast.FunctionDef | ast.AsyncFunctionDef


def words(text: str) -> list[str]:
    """The words of a template that are always there."""
    return re.findall(r"[^\W\d_]{2,}", text)


def normal(text: str) -> str:
    """A template in one form: fields side by side are one, a file in front is left out."""
    line = " ".join(text.split())
    line = re.sub(rf"{FIELD}(?:[\s.]*{FIELD})+", FIELD, line)
    line = re.sub(rf"^(?:{FIELD}: )+|(?<=\w){FIELD}$", "", line)
    return re.sub(r"^[\s;,:]+(?=[\w'.(-])", "", line).strip()


class Scope:
    """A function, or a whole module, in which names have values."""

    def __init__(self, module: Module, node: _Definition | None, outer: Scope | None) -> None:
        self.module, self.node, self.outer = module, node, outer

    @cached_property
    def values(self) -> dict[str, list[tuple[ast.expr, tuple[int, ...] | None]]]:
        """Of each name: what is assigned, and where in it; an empty place is each element."""
        found: dict[str, list[tuple[ast.expr, tuple[int, ...] | None]]] = {}

        def bind(target: ast.expr, value: ast.expr, place: tuple[int, ...] | None) -> None:
            if isinstance(target, ast.Name):
                found.setdefault(target.id, []).append((value, place))
            elif isinstance(target, ast.Tuple | ast.List):
                for index, one in enumerate(target.elts):
                    bind(one, value, (*(place or ()), index))

        for node in own_nodes(self.node or self.module.tree):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    bind(target, node.value, None)
            elif isinstance(node, ast.AugAssign):
                bind(node.target, node.value, None)  # what is added is a text of its own
            elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value:
                bind(node.target, node.value, None)
            elif isinstance(node, ast.For | ast.comprehension):
                bind(node.target, node.iter, (-1,))
        return found


def own_nodes(root: ast.AST) -> Iterator[ast.AST]:
    """The nodes below this one, without those of functions in it."""
    for child in ast.iter_child_nodes(root):
        yield child
        if not isinstance(child, _Definition):
            yield from own_nodes(child)


class Module:
    """A source file."""

    def __init__(self, path: Path, root: Path) -> None:
        self.name = path.relative_to(root).as_posix()
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.scope = Scope(self, None, None)
        self.functions: dict[str, list[Scope]] = {}
        self.scopes = [self.scope]
        self._find(self.tree, self.scope)
        self.imports = {
            alias.asname or alias.name: (node.module or "").replace(".", "/")
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }

    def _find(self, node: ast.AST, outer: Scope) -> None:
        for child in ast.iter_child_nodes(node):
            inner = outer
            if isinstance(child, _Definition):
                inner = Scope(self, child, outer)
                self.functions.setdefault(child.name, []).append(inner)
                self.scopes.append(inner)
            self._find(child, inner)


class Code:
    """All source files, and the messages that they make."""

    def __init__(self, root: Path = ROOT) -> None:
        paths = sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py"))
        self.modules = [Module(path, root) for path in paths]
        self.parts: dict[str, tuple[str, int]] = {}  # texts in fields of messages, and their place
        self._errors = {  # classes of exceptions whose names do not say so
            node.name
            for module in self.modules
            for node in module.tree.body
            if isinstance(node, ast.ClassDef) and any("Error" in ast.unparse(b) for b in node.bases)
        }
        self._known: dict[ast.expr, set[str]] = {}
        self._open: set[ast.expr] = set()
        self.calls: dict[str, list[tuple[ast.Call, Scope]]] = {}
        self._attributes: dict[str, list[tuple[ast.expr, Scope, tuple[int, ...] | None]]] = {}
        for scope in self._scopes():
            for node in own_nodes(scope.node or scope.module.tree):
                self._index(node, scope)

    def _scopes(self) -> Iterator[Scope]:
        return (scope for module in self.modules for scope in module.scopes)

    def _index(self, node: ast.AST, scope: Scope) -> None:
        if isinstance(node, ast.Call):
            self.calls.setdefault(called(node), []).append((node, scope))
            for keyword in node.keywords:
                if keyword.arg and called(node) not in NO_FAULTS:
                    self._attributes.setdefault(keyword.arg, []).append(
                        (keyword.value, scope, None)
                    )
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Attribute):
                    self._attributes.setdefault(target.attr, []).append((node.value, scope, None))

    def is_error(self, name: str) -> bool:
        """Whether a call of this name makes an exception that a user may see."""
        is_named = name.endswith(("Error", "BadZipFile")) and name[:1].isupper()
        return (is_named or name in self._errors) and name not in INTERNAL

    # --- what an expression can be ---------------------------------------------------------------

    def texts(self, node: ast.expr, scope: Scope) -> set[str]:
        """The templates of the texts that an expression can be; … for what is not known."""
        if node in self._known:
            return self._known[node]
        self._known[node] = set()  # while it is being found: it adds nothing to itself
        found = self._texts(node, scope)
        is_short = len(found) <= MAX_ALTERNATIVES
        self._known[node] = found if is_short else self.keep(found, node, scope)
        return self._known[node]

    def _texts(self, node: ast.expr, scope: Scope) -> set[str]:
        match node:
            case ast.Constant(value=str() as text):
                return {text}
            case ast.Constant(value=None):
                return set()
            case ast.JoinedStr(values=values):
                choices = [self._piece(value, scope) for value in values]
                return {"".join(pieces) for pieces in itertools.product(*choices)}
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                pairs = itertools.product(self.texts(left, scope), self.texts(right, scope))
                return {"".join(pair) for pair in pairs}
            case ast.IfExp(body=body, orelse=orelse):
                return self.texts(body, scope) | self.texts(orelse, scope)
            case ast.BoolOp(values=values):
                return set().union(*(self.texts(value, scope) for value in values))
            case ast.NamedExpr(value=value) | ast.Starred(value=value) | ast.Await(value=value):
                return self.texts(value, scope)
            case ast.Name(id=name):
                return self._of_name(name, scope)
            case ast.Attribute(attr=name):
                return self._of_attribute(node, name, scope)
            case ast.Subscript(value=value):
                return self._elements(value, scope)
            case ast.Call():
                return self._of_call(node, scope)
        return {FIELD}

    def _piece(self, node: ast.expr, scope: Scope) -> set[str]:
        """A part of an f-string; a text that it holds becomes a message of its own."""
        if isinstance(node, ast.Constant):
            return {str(node.value)}
        value = node.value if isinstance(node, ast.FormattedValue) else node
        found = self.texts(value, scope)
        is_constant = isinstance(value, ast.Name) and value.id.isupper() and len(found) == 1
        return found if is_constant else self.keep(found, node, scope)

    def keep(self, found: set[str], node: ast.expr, scope: Scope) -> set[str]:
        for text in found:
            if len(words(text)) >= MIN_WORDS and " " in normal(text):
                self.parts.setdefault(normal(text), (scope.module.name, node.lineno))
        return {FIELD}

    def _of_name(self, name: str, scope: Scope) -> set[str]:
        place: Scope | None = scope
        while place is not None:
            found: set[str] = set()
            bound = False
            if place.node is not None and name in parameters(place.node):
                bound = True
                found |= self._of_parameter(name, place)
            for value, index in place.values.get(name, []):
                bound = True
                found |= self._at(value, index, place)
            if bound:
                rows = self._added(name, place)
                return found.union(*(self.texts(row, origin) for row, origin in rows))
            place = place.outer
        origin = self._imported(name, scope)
        return self._of_name(name, origin.scope) if origin else {FIELD}

    def _imported(self, name: str, scope: Scope) -> Module | None:
        source = scope.module.imports.get(name)
        names = (f"{source}/{name}.py", f"{source}.py", f"{source}/__init__.py")
        files = {module.name: module for module in self.modules}
        found = next((files[one] for one in names if one in files), None)
        return None if found is scope.module else found

    def _of_parameter(self, name: str, scope: Scope) -> set[str]:
        node = scope.node
        assert node is not None
        names = parameters(node)
        annotation = names[name]
        if name in ("self", "cls"):
            return {FIELD}
        if annotation is not None and not re.search(r"\bstr\b|Error", ast.unparse(annotation)):
            return {FIELD}
        own = [one for one in names if one not in ("self", "cls")]
        found: set[str] = set()
        for call, place in self.calls.get(node.name, []):
            given = [one.value for one in call.keywords if one.arg == name]
            if not given and len(call.args) > own.index(name):
                given = [call.args[own.index(name)]]
            for value in given:
                found |= self.texts(value, place)
        for default in (*node.args.defaults, *(one for one in node.args.kw_defaults if one)):
            if isinstance(default, ast.Constant) and isinstance(default.value, str):
                found.add(default.value)
        return found or {FIELD}

    def _of_attribute(self, node: ast.Attribute, name: str, scope: Scope) -> set[str]:
        if isinstance(node.value, ast.Name) and (module := self._imported(node.value.id, scope)):
            return self._of_name(name, module.scope)
        found: set[str] = set()
        for value, place, index in self._attributes.get(name, []):
            found |= self._at(value, index, place)
        for scope_of in self._methods(name):  # a property
            found |= self._returned(scope_of, None)
        return found or {FIELD}

    def _methods(self, name: str) -> list[Scope]:
        return [
            found for module in self.modules for found in module.functions.get(name, [])
            if found.node and any("property" in ast.unparse(d) for d in found.node.decorator_list)
        ]  # fmt: skip

    def _of_call(self, node: ast.Call, scope: Scope) -> set[str]:
        name = called(node)
        if name in ("next", "min", "max", "iter", "list", "tuple", "sorted", "set") and node.args:
            found = self._elements(node.args[0], scope)
            for more in node.args[1:]:
                found |= self.texts(more, scope)
            return found
        if name == "join" and node.args:
            return self.keep(self._elements(node.args[0], scope), node, scope)
        if name in ("strip", "rstrip", "lstrip", "removeprefix", "capitalize", "expand"):
            return self.texts(getattr(node.func, "value", node.func), scope)
        if self.is_error(name) and node.args:
            return self.texts(node.args[0], scope)
        targets = self._functions(node, scope)
        return set().union(*(self._returned(one, None) for one in targets)) or {FIELD}

    def _functions(self, node: ast.Call, scope: Scope) -> list[Scope]:
        """The functions of the project that a call can mean."""
        name = called(node)
        if isinstance(node.func, ast.Name):
            module = scope.module
            if name not in module.functions:
                origin = self._imported(name, scope)
                return origin.functions.get(name, []) if origin else []
            return module.functions[name]
        return [one for module in self.modules for one in module.functions.get(name, [])]

    def _returned(self, scope: Scope, index: tuple[int, ...] | None) -> set[str]:
        found: set[str] = set()
        for node in own_nodes(scope.node or scope.module.tree):
            if isinstance(node, ast.Return | ast.Yield) and node.value is not None:
                found |= self._at(node.value, index, scope)
        return found

    def _at(self, value: ast.expr, index: tuple[int, ...] | None, scope: Scope) -> set[str]:
        """The texts at a place of a value: in a tuple, or (-1) in each element."""
        if not index:
            return self.texts(value, scope)
        if index[0] == -1:
            rows = self._rows(value, scope)
            return set().union(*(self._at(row, index[1:], place) for row, place in rows))
        if isinstance(value, ast.Tuple | ast.List) and index[0] < len(value.elts):
            return self._at(value.elts[index[0]], index[1:], scope)
        if isinstance(value, ast.Call) and value not in self._open:
            targets = self._functions(value, scope)
            self._open.add(value)
            found = set().union(*(self._returned(one, index) for one in targets))
            self._open.discard(value)
            return found or {FIELD}
        return {FIELD}

    def _elements(self, node: ast.expr, scope: Scope) -> set[str]:
        rows = self._rows(node, scope)
        return set().union(*(self.texts(row, place) for row, place in rows)) or {FIELD}

    def _rows(self, node: ast.expr, scope: Scope) -> list[tuple[ast.expr, Scope]]:
        """The elements of a collection that the source shows."""
        if node in self._open:
            return []
        self._open.add(node)
        try:
            return self._rows_of(node, scope)
        finally:
            self._open.discard(node)

    def _rows_of(self, node: ast.expr, scope: Scope) -> list[tuple[ast.expr, Scope]]:
        match node:
            case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
                return [(one, scope) for one in elements]
            case ast.Dict(values=values):
                return [(one, scope) for one in values]
            case ast.GeneratorExp(elt=element) | ast.ListComp(elt=element):
                return [(element, scope)]
            case ast.BinOp(left=left, right=right):
                return self._rows(left, scope) + self._rows(right, scope)
            case ast.IfExp(body=body, orelse=orelse):
                return self._rows(body, scope) + self._rows(orelse, scope)
            case ast.Starred(value=value) | ast.Subscript(value=value):
                return self._rows(value, scope)
            case ast.Name(id=name):
                return self._rows_of_name(name, scope)
            case ast.Attribute(attr=name):
                given = self._attributes.get(name, [])
                found = [row for one, place, _ in given for row in self._rows(one, place)]
                return found + self._added(name)
            case ast.Call(args=[first, *_]) if not self._functions(node, scope):
                return self._rows(first, scope)
            case ast.Call():
                return [
                    row
                    for one in self._functions(node, scope)
                    for each in own_nodes(one.node or one.module.tree)
                    if isinstance(each, ast.Return | ast.Yield) and each.value is not None
                    for row in (
                        [(each.value, one)]
                        if isinstance(each, ast.Yield)
                        else self._rows(each.value, one)
                    )
                ]
        return []

    def _rows_of_name(self, name: str, scope: Scope) -> list[tuple[ast.expr, Scope]]:
        place: Scope | None = scope
        while place is not None:
            if given := [value for value, index in place.values.get(name, []) if index is None]:
                found = [row for one in given for row in self._rows(one, place)]
                return found + self._added(name, place)
            place = place.outer
        origin = self._imported(name, scope)
        return self._rows_of_name(name, origin.scope) if origin else []

    def _added(self, name: str, within: Scope | None = None) -> list[tuple[ast.expr, Scope]]:
        """What is appended to a list of this name, or put into a dictionary."""
        found: list[tuple[ast.expr, Scope]] = []
        for call, place in self.calls.get("append", []) + self.calls.get("add", []):
            owner = call.func.value if isinstance(call.func, ast.Attribute) else None
            owner_name = getattr(owner, "id", getattr(owner, "attr", None))
            if (within is None or place is within) and owner_name == name and call.args:
                found.append((call.args[0], place))
        return found


def called(node: ast.Call) -> str:
    """The last name of what is called."""
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def parameters(node: _Definition) -> dict[str, ast.expr | None]:
    """The parameters of a function, and their annotations."""
    every = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    return {one.arg: one.annotation for one in every}
