"""YAML from a stranger, with the place of every value: what JSON can hold, and nothing else."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from sternpost_operator.resources.location import Location

MAX_VALUES = 50_000
"""Values of one document, aliases counted as often as they are used: a few lines of aliases can stand for billions."""

MAX_DEPTH = 60
MAX_DOCUMENTS = 16

_KINDS = {
    "tag:yaml.org,2002:null",
    "tag:yaml.org,2002:bool",
    "tag:yaml.org,2002:int",
    "tag:yaml.org,2002:float",
    "tag:yaml.org,2002:str",
}
_MERGE = "tag:yaml.org,2002:merge"
_DIGITS = 400
"""Longer numbers are no numbers of anything here, and slow to read."""


@dataclass(frozen=True, order=True)
class Mark:
    """A place in a file; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Fault:
    """Something that is no plain YAML, and where."""

    mark: Mark
    location: Location
    message: str


@dataclass
class Document:
    """One document of a file: its value as JSON would hold it, and where each part stands."""

    value: Any = None
    marks: dict[Location, Mark] = field(default_factory=dict)
    """Of a field of an object: the place of its name."""
    faults: list[Fault] = field(default_factory=list)

    def mark(self, location: Location) -> Mark:
        """The place of a value, or of the innermost one around it that is there."""
        while location and location not in self.marks:
            location = location[:-1]
        return self.marks.get(location, Mark(1, 1))


class _Loader(yaml.SafeLoader):
    """The plain types of JSON only: a date stays text, as it does for kubectl."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _KINDS or tag == _MERGE]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}

# kubectl's reader knows these words, too; PyYAML's does not.
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^[yYnN]$"), list("yYnN"))


def read_documents(text: str) -> list[Document]:
    """All documents that are not empty; what is wrong stands in their faults. Never raises for bad input."""
    documents: list[Document] = []
    try:
        loader = _Loader(text)
        while loader.check_node() and (node := loader.get_node()) is not None:
            if len(documents) == MAX_DOCUMENTS:
                documents.append(Document(faults=[Fault(_mark(node), (), f"more than {MAX_DOCUMENTS} documents")]))
                break
            document = _Reader(loader).read(node)
            if document.value is not None or document.faults:
                documents.append(document)
    except yaml.MarkedYAMLError as error:
        documents.append(_broken(error.problem_mark or error.context_mark, error.problem or str(error)))
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        mark = Mark(before.count("\n") + 1, error.position - before.rfind("\n"))
        message = f"the character {chr(error.character)!r} cannot stand in YAML"
        documents.append(Document(faults=[Fault(mark, (), message)]))
    except RecursionError:
        documents.append(_broken(None, f"nested more than {MAX_DEPTH} levels deep"))
    return documents


def _broken(mark: yaml.Mark | None, message: str) -> Document:
    at = Mark(mark.line + 1, mark.column + 1) if mark else Mark(1, 1)
    return Document(faults=[Fault(at, (), f"not YAML: {message}" if mark else message)])


class _TooLargeError(Exception):
    """The document stands for more values than anybody writes."""


class _NotPlainError(Exception):
    """A scalar that JSON cannot hold."""


class _Reader:
    def __init__(self, loader: _Loader) -> None:
        self._loader = loader
        self._document = Document()
        self._values = 0
        self._open: set[int] = set()

    def read(self, node: yaml.Node) -> Document:
        self._document.marks[()] = _mark(node)
        try:
            self._document.value = self._value(node, ())
        except _TooLargeError:
            self._document.value = None
            self._fault(node, (), f"more than {MAX_VALUES} values, aliases counted as often as they are used")
        return self._document

    def _fault(self, node: yaml.Node, location: Location, message: str) -> None:
        self._document.faults.append(Fault(_mark(node), location, message))

    def _value(self, node: yaml.Node, location: Location) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _TooLargeError
        if len(location) > MAX_DEPTH:
            self._fault(node, location, f"nested more than {MAX_DEPTH} levels deep")
            return None
        if id(node) in self._open:
            self._fault(node, location, "an alias to what it is part of")
            return None
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, location)
            if isinstance(node, yaml.SequenceNode):
                return self._sequence(node, location)
            return self._scalar(node, location)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, location: Location) -> dict[str, Any]:
        if node.tag != "tag:yaml.org,2002:map":
            self._fault(node, location, f"the tag {node.tag} is not supported")
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _MERGE:
                what = "merges (<<) are" if key_node.tag == _MERGE else "a name that is no text is"
                self._fault(key_node, location, f"{what} not supported; write the fields out")
                continue
            key = key_node.value
            here = (*location, key)
            if key_node.tag != "tag:yaml.org,2002:str":
                self._fault(key_node, here, f"a name must be a string; put {key} in quotes")
            if key in result:
                first = self._document.marks[here]
                self._fault(key_node, here, f"given twice, first in line {first.line}")
                continue
            self._document.marks[here] = _mark(key_node)
            result[key] = self._value(value_node, here)
        return result

    def _sequence(self, node: yaml.SequenceNode, location: Location) -> list[Any]:
        if node.tag != "tag:yaml.org,2002:seq":
            self._fault(node, location, f"the tag {node.tag} is not supported")
        result = []
        for index, item in enumerate(node.value):
            here = (*location, index)
            self._document.marks[here] = _mark(item)
            result.append(self._value(item, here))
        return result

    def _scalar(self, node: yaml.Node, location: Location) -> Any:
        try:
            return _plain(self._loader, node)
        except _NotPlainError as error:
            self._fault(node, location, str(error))
            return None


def _plain(loader: _Loader, node: yaml.Node) -> Any:
    if node.tag not in _KINDS:
        raise _NotPlainError(f"the tag {node.tag} is not supported")
    if node.tag == "tag:yaml.org,2002:str":
        return node.value
    if len(node.value) > _DIGITS:
        raise _NotPlainError("a number of this length is not supported")
    if node.value in ("y", "Y", "n", "N"):
        return node.value in ("y", "Y")
    try:
        value = loader.construct_object(node)
    except (ValueError, KeyError, yaml.constructor.ConstructorError) as error:
        raise _NotPlainError(f"cannot read {node.value[:80]!r}") from error
    if isinstance(value, float) and not math.isfinite(value):
        raise _NotPlainError(f"{node.value} is not a number that JSON has")
    return value


def _mark(node: yaml.Node) -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1)
