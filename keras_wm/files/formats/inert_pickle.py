"""What a pickle says, without doing any of it.

A pickle is a program: its instructions name functions and call them. Here they are
followed on paper only. A name stays a name, a call becomes a record of the call, and
long bytes stay where they are in the file.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from keras_wm.errors import UnsafeFileError

_LONGEST_TEXT = 1024
_MOST_TEXT = 16 * 1024**2
_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}


@dataclass(frozen=True)
class Name:
    """The name of a function or a class."""

    name: str


@dataclass(frozen=True)
class Blob:
    """Bytes that were left in the file."""

    start: int
    size: int


@dataclass(eq=False)
class Call:
    """A call that was not made, and the state that its result would have got."""

    function: Any
    arguments: Any
    state: Any = None


def read_pickle(file: BinaryIO, size: int, steps: Iterator[object]) -> Any:
    """Follows a pickle on paper.

    Args:
        file: The file, at the pickle's start.
        size: Where the file ends.
        steps: As many items as instructions may be followed.

    Returns:
        The value, of plain Python values and the classes of this module.

    Raises:
        UnsafeFileError: If it has instructions other than those that arrays are
            pickled with, or too many.
    """
    paper = _Paper()
    text_left = _MOST_TEXT
    for _ in steps:
        code = _OPCODES.get(file.read(1).decode("latin-1"))
        if code is None or code.name not in _INSTRUCTIONS:
            name = code.name if code else "none"
            raise UnsafeFileError(
                f"the instruction {name} in a pickle is none that arrays need. "
                "Pickles can run code: do not use this file."
            )
        argument = _argument(code, file, size)
        text_left -= len(argument) if isinstance(argument, str) else 0
        if text_left < 0:
            raise UnsafeFileError(f"a pickle with more than {_MOST_TEXT:,} letters.")
        if code.name == "STOP":
            return paper.pop()
        _INSTRUCTIONS[code.name](paper, argument)
    raise UnsafeFileError("a pickle with more instructions than Limits.pickle_steps.")


def _argument(code: pickletools.OpcodeInfo, file: BinaryIO, size: int) -> Any:
    if code.name in _LENGTHS:
        length = int.from_bytes(file.read(_LENGTHS[code.name]), "little")
        start = file.tell()
        if length > size - start:
            raise UnsafeFileError("a pickle with more bytes than the file has.")
        if "UNICODE" not in code.name:
            file.seek(length, 1)
            return Blob(start, length)
        if length > _LONGEST_TEXT:
            raise UnsafeFileError(f"a pickle with a text of {length:,} bytes.")
        return file.read(length).decode()
    if code.name == "GLOBAL":
        lines = [file.readline(_LONGEST_TEXT).decode().strip() for _ in range(2)]
        return ".".join(lines)
    return code.arg.reader(file) if code.arg else None


class _Paper:
    """The stack of values that a pickle works on, and what it remembers."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        return self.stack.pop()

    def pop_tuple(self, length: int) -> None:
        start = len(self.stack) - length
        self.stack[start:] = [tuple(self.stack[start:])]

    def pop_marked(self) -> list[Any]:
        start = self.marks.pop()
        marked = self.stack[start:]
        del self.stack[start:]
        return marked

    def name(self) -> None:
        name, module = self.pop(), self.pop()
        self.push(Name(f"{module}.{name}"))

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        self.push(Call(function, arguments))

    def build(self) -> None:
        state = self.pop()
        if not isinstance(self.stack[-1], Call):
            raise UnsafeFileError("a pickle that changes what it did not make.")
        self.stack[-1].state = state

    def append(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise UnsafeFileError("a pickle that appends to what is no list.")
        self.stack[-1].extend(values)

    def set_items(self, items: list[Any]) -> None:
        keys = items[::2]
        if not isinstance(self.stack[-1], dict) or not all(
            isinstance(key, str) for key in keys
        ):
            raise UnsafeFileError("a pickle with keys that are no names.")
        self.stack[-1].update(zip(keys, items[1::2], strict=True))

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])


_LENGTHS = {
    "SHORT_BINUNICODE": 1,
    "BINUNICODE": 4,
    "BINUNICODE8": 8,
    "SHORT_BINBYTES": 1,
    "BINBYTES": 4,
    "BINBYTES8": 8,
}
_VALUES = ("BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1", *_LENGTHS)
_INSTRUCTIONS: dict[str, Callable[[_Paper, Any], object]] = {
    "PROTO": lambda paper, version: None,
    "FRAME": lambda paper, size: None,
    "STOP": lambda paper, _: None,
    "MARK": lambda paper, _: paper.marks.append(len(paper.stack)),
    "MEMOIZE": lambda paper, _: paper.memo.update({len(paper.memo): paper.stack[-1]}),
    "BINPUT": lambda paper, key: paper.memo.update({key: paper.stack[-1]}),
    "LONG_BINPUT": lambda paper, key: paper.memo.update({key: paper.stack[-1]}),
    "BINGET": lambda paper, key: paper.push(paper.memo[key]),
    "LONG_BINGET": lambda paper, key: paper.push(paper.memo[key]),
    "NONE": lambda paper, _: paper.push(None),
    "NEWTRUE": lambda paper, _: paper.push(True),
    "NEWFALSE": lambda paper, _: paper.push(False),
    "EMPTY_TUPLE": lambda paper, _: paper.push(()),
    "EMPTY_LIST": lambda paper, _: paper.push([]),
    "EMPTY_DICT": lambda paper, _: paper.push({}),
    "EMPTY_SET": lambda paper, _: paper.push(frozenset()),
    "TUPLE1": lambda paper, _: paper.pop_tuple(1),
    "TUPLE2": lambda paper, _: paper.pop_tuple(2),
    "TUPLE3": lambda paper, _: paper.pop_tuple(3),
    "TUPLE": lambda paper, _: paper.push(tuple(paper.pop_marked())),
    "APPEND": lambda paper, _: paper.append([paper.pop()]),
    "APPENDS": lambda paper, _: paper.append(paper.pop_marked()),
    "SETITEM": lambda paper, _: paper.set_item(),
    "SETITEMS": lambda paper, _: paper.set_items(paper.pop_marked()),
    "GLOBAL": lambda paper, name: paper.push(Name(name)),
    "STACK_GLOBAL": lambda paper, _: paper.name(),
    "REDUCE": lambda paper, _: paper.call(),
    "NEWOBJ": lambda paper, _: paper.call(),
    "BUILD": lambda paper, _: paper.build(),
    **dict.fromkeys(_VALUES, _Paper.push),
}
