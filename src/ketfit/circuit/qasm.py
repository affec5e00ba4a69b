"""Reader of OpenQASM 3 programs of gates.

The kept parsers are built on a Python runtime of ANTLR, which takes some six milliseconds for a statement and minutes
for deeply nested parentheses. This one reads the statements that a circuit of gates can have, in a time that is linear
in the size of the text and the number of gates, and refuses all others by name and line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ketfit.circuit.angle import Angle, AngleExpression, AngleSum
from ketfit.circuit.gate import GATES, Gate
from ketfit.errors import CircuitError

QASM_DEFINITIONS = {
    "rxx": "gate rxx(theta) a, b { h a; h b; cx a, b; rz(theta) b; cx a, b; h b; h a; }",
    "ryy": "gate ryy(theta) a, b { rx(pi/2) a; rx(pi/2) b; cx a, b; rz(theta) b; cx a, b; rx(-pi/2) b; rx(-pi/2) a; }",
    "rzz": "gate rzz(theta) a, b { cx a, b; rz(theta) b; cx a, b; }",
    "iswap": "gate iswap a, b { s a; s b; h a; cx a, b; cx b, a; h b; }",
}
"""Definitions in OpenQASM 3 of the gates that its standard library does not have."""

MAX_TEXT = 2**20
"""Maximum number of characters of a program."""

MAX_QUBITS = 1000
"""Maximum number of qubits of a program."""

MAX_STEPS = 10**6
"""Maximum number of gates and of the tokens of definitions, each counted as often as it is used."""

MAX_DEPTH = 50
"""Maximum depth of parentheses, and of definitions that use definitions."""

_TOKEN = re.compile(
    r"(?P<number>(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?)|(?P<name>[^\W\d]\w*)|(?P<string>\"[^\"\n]*\")"
    r"|(?P<symbol>->|[-+*/()\[\]{},;=@:<>!&|^%~$.])"
)
_SPACE = re.compile(r"\s*")
_CONSTANTS = {"pi": math.pi, "π": math.pi, "tau": math.tau, "τ": math.tau, "euler": math.e, "ℇ": math.e}
_ALIASES = {"U": "u", "u3": "u", "CX": "cx", "phase": "p", "u1": "p", "cphase": "cp"}
_DEFINITIONS = """
gate id a { }
gate u2(phi, lambda) a { U(pi/2, phi, lambda) a; }
gate cswap c, a, b { cx b, a; ccx c, a, b; cx b, a; }
gate cu(theta, phi, lambda, gamma) c, t {
  p(gamma) c; p(lambda/2 + phi/2) c; p(lambda/2 - phi/2) t; cx c, t; U(-theta/2, 0, -phi/2 - lambda/2) t; cx c, t;
  U(theta/2, phi, 0) t;
}
"""
_REFUSED = {
    **dict.fromkeys(("if", "else", "for", "while", "switch", "break", "continue", "end"), "classical control"),
    **dict.fromkeys(("def", "return", "extern", "const", "let", "array", "int", "uint", "bool", "float", "angle"), ""),
    **dict.fromkeys(("complex", "duration", "stretch", "output", "creg", "qreg", "opaque", "pragma", "box"), ""),
    **dict.fromkeys(("delay", "cal", "defcal", "defcalgrammar", "ctrl", "negctrl", "inv", "pow"), ""),
    "reset": "a reset",
}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # number, name, string, symbol, or end
    text: str
    position: int


@dataclass(frozen=True)
class _Definition:
    """A gate that the program defines: the tokens of its body, and its number among the definitions."""

    parameters: tuple[str, ...]
    qubits: tuple[str, ...]
    body: tuple[_Token, ...]
    order: int


@dataclass(frozen=True)
class _Scope:
    """Meaning of names: angles, and the qubits of each register or argument of a definition."""

    angles: Mapping[str, AngleExpression]
    qubits: Mapping[str, tuple[int, ...]]
    order: int | None = None  # of the definition; None is the program itself
    depth: int = 0


class QasmProgram:
    """A program to read.

    Args:
        text: OpenQASM 3.
        parameter: Returns the weight or input of a declared input's name, or raises CircuitError.
        max_steps: Maximum number of gates and of the tokens of definitions, each counted as often as it is used.

    Raises:
        CircuitError: the text is no string, too long, or has a character that no token starts with.
    """

    def __init__(self, text: str, parameter: Callable[[str], Angle], max_steps: int = MAX_STEPS) -> None:
        if not isinstance(text, str):
            raise CircuitError(f"an OpenQASM 3 program is a string, got {type(text).__name__}")
        if len(text) > MAX_TEXT:
            raise CircuitError(f"the program has {len(text):,} characters; {MAX_TEXT:,} are allowed")
        self._text = text
        self._parameter = parameter
        self._tokens = list(self._tokenize(text))
        self._at = 0
        self._angles: dict[str, AngleExpression] = {}
        self._registers: dict[str, tuple[int, ...]] = {}
        self._bits: set[str] = set()
        self._definitions: dict[str, _Definition] = {}
        self._measured: set[int] = set()
        self._n_qubits = self._steps = 0
        self._max_steps = max_steps

    def read(self) -> tuple[int, list[Gate]]:
        """Return the number of qubits and the gates.

        Raises:
            CircuitError: the program is invalid, too large, or has a part that a circuit cannot hold.
        """
        gates: list[Gate] = []
        self._read_definitions(_DEFINITIONS)
        if self._peek().text == "OPENQASM":
            self._next()
            version = self._expect("number").text
            if version.split(".")[0] != "3":
                self._fail(f"OpenQASM {version} is not supported; write version 3")
            self._expect(";")
        while self._peek().kind != "end":
            gates.extend(self._statement())
        if not self._n_qubits:
            raise CircuitError("the program declares no qubits, as 'qubit[2] q;' does")
        return self._n_qubits, gates

    def _read_definitions(self, text: str) -> None:
        own, self._tokens, self._at = (self._text, self._tokens), list(self._tokenize(text)), 0
        while self._peek().kind != "end":
            self._next()
            self._define()
        (self._text, self._tokens), self._at = own, 0

    def _tokenize(self, text: str) -> Iterator[_Token]:
        position = 0
        while True:
            match = _SPACE.match(text, position)
            assert match is not None
            position = match.end()
            if position == len(text):
                yield _Token("end", "the end of the program", position)
                return
            if text.startswith("//", position):
                newline = text.find("\n", position)
                position = len(text) if newline < 0 else newline
                continue
            if text.startswith("/*", position):
                end = text.find("*/", position + 2)
                if end < 0:
                    self._fail("this comment has no end", position)
                position = end + 2
                continue
            match = _TOKEN.match(text, position)
            if match is None:
                self._fail(f"unexpected character {text[position]!r}", position)
            assert match.lastgroup is not None
            yield _Token(match.lastgroup, match[0], position)
            position = match.end()

    def _fail(self, problem: str, position: int | None = None) -> NoReturn:
        place = self._tokens[max(0, self._at - 1)].position if position is None else position
        raise CircuitError(f"line {self._text.count(chr(10), 0, place) + 1} of the program: {problem}")

    def _peek(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
        token = self._tokens[self._at]
        if token.kind != "end":
            self._at += 1
        return token

    def _expect(self, what: str) -> _Token:
        """Return the next token, which has to be of a kind or a symbol."""
        token = self._next()
        if what != (token.kind if what in ("name", "number", "string") else token.text):
            self._fail(f"expected {what!r}, got {token.text[:40]!r}")
        return token

    def _accept(self, symbol: str) -> bool:
        if self._peek().kind == "symbol" and self._peek().text == symbol:
            self._at += 1
            return True
        return False

    def _statement(self) -> Iterator[Gate]:
        token = self._next()
        if token.kind != "name":
            self._fail(f"expected a statement, got {token.text[:40]!r}")
        word = token.text
        if word == "include":
            name = self._expect("string").text
            if name != '"stdgates.inc"':
                self._fail(f'cannot include {name[:60]}; only "stdgates.inc" is known')
            self._expect(";")
        elif word == "input":
            self._declare_input()
        elif word in ("qubit", "bit"):
            self._declare_register(word)
        elif word == "gate":
            self._define()
        elif word == "barrier":
            self._barrier(_Scope(self._angles, self._registers))
        elif word == "measure" or word in self._bits:
            self._measure(word)
        elif word in _REFUSED:
            what = _REFUSED[word] or "a statement"
            self._fail(f"{word!r} is {what} that a circuit of gates cannot hold; remove it")
        else:
            yield from self._call(word, _Scope(self._angles, self._registers))

    def _declare_input(self) -> None:
        kind = self._expect("name").text
        if kind not in ("float", "angle"):
            self._fail(f"an input of type {kind!r} is no angle; declare it as float")
        if self._accept("["):
            self._expect("number")
            self._expect("]")
        name = self._new_name()
        try:
            self._angles[name] = self._parameter(name)
        except CircuitError as error:
            self._fail(str(error))
        self._expect(";")

    def _declare_register(self, kind: str) -> None:
        size = 1
        if self._accept("["):
            size = self._integer()
            self._expect("]")
        name = self._new_name()
        if kind == "bit":
            self._bits.add(name)
            if self._accept("="):
                if self._expect("name").text != "measure":
                    self._fail("bits can be measured into alone")
                self._measure("measure")
                return
        else:
            if not 1 <= size <= MAX_QUBITS - self._n_qubits:
                self._fail(f"a program has 1 to {MAX_QUBITS} qubits")
            self._registers[name] = tuple(range(self._n_qubits, self._n_qubits + size))
            self._n_qubits += size
        self._expect(";")

    def _new_name(self) -> str:
        name = self._expect("name").text
        if name in self._angles or name in self._registers or name in self._bits or name in _CONSTANTS:
            self._fail(f"{name!r} is declared twice")
        return name

    def _integer(self) -> int:
        text = self._expect("number").text
        if not text.isdecimal() or len(text) > 9:
            self._fail(f"expected a whole number, got {text[:40]!r}")
        return int(text)

    def _define(self) -> None:
        name = self._expect("name").text
        parameters = self._names(")") if self._accept("(") else ()
        qubits = self._names("{")
        start = self._at
        while self._peek().text != "}":
            if self._next().kind == "end" or self._peek().text == "{":
                self._fail(f"the definition of gate {name!r} has no end, or braces within")
        body = tuple(self._tokens[start : self._at])
        self._expect("}")
        if name in self._definitions or name in _REFUSED:
            self._fail(f"gate {name!r} is defined twice")
        if name in QASM_DEFINITIONS:
            written = [token.text for token in self._tokenize(QASM_DEFINITIONS[name])]
            if [token.text for token in body] == written[written.index("{") + 1 : -2]:
                return  # as the export writes it: the gate of that name in the table
        elif name in GATES or name in _ALIASES:
            self._fail(f"gate {name!r} is one of the standard gates; give the definition another name")
        self._definitions[name] = _Definition(parameters, qubits, body, len(self._definitions))

    def _names(self, end: str) -> tuple[str, ...]:
        names: list[str] = []
        while not self._accept(end):
            if names:
                self._expect(",")
            names.append(self._expect("name").text)
        if len(set(names)) < len(names):
            self._fail("a name occurs twice in this list")
        return tuple(names)

    def _measure(self, word: str) -> None:
        """Read a measurement behind its first word; the bits that it is written to do not matter here."""
        if word != "measure":
            if self._accept("["):
                self._integer()
                self._expect("]")
            self._expect("=")
            if self._expect("name").text != "measure":
                self._fail("bits can be measured into alone")
        self._measured.update(self._operand(_Scope(self._angles, self._registers)))
        if self._accept("->"):
            if self._expect("name").text not in self._bits:
                self._fail("this is not a declared bit")
            if self._accept("["):
                self._integer()
                self._expect("]")
        self._expect(";")

    def _call(self, name: str, scope: _Scope) -> Iterator[Gate]:
        """Read a gate behind its name, and yield it for each element of its registers."""
        start = self._at
        definition = self._definitions.get(name)
        if definition is not None and scope.order is not None and definition.order >= scope.order:
            definition = None  # not defined yet where this body was written
        table_name = _ALIASES.get(name, name)
        kind = GATES.get(table_name)
        if definition is None and kind is None:
            self._fail(f"unknown gate or statement {name[:40]!r}", self._tokens[max(0, start - 1)].position)
        angles: list[AngleExpression] = []
        if self._accept("("):
            while not self._accept(")"):
                if angles:
                    self._expect(",")
                angles.append(_as_angle(self._expression(scope, 0)))
        operands: list[tuple[int, ...]] = []
        while not self._accept(";"):
            if operands:
                self._expect(",")
            operands.append(self._operand(scope))
        sizes = {len(operand) for operand in operands}
        wide = max(sizes, default=1)
        if sizes - {1, wide}:
            self._fail("the registers of this gate differ in size")
        end = self._at
        for step in range(wide):
            qubits = [operand[step] if len(operand) > 1 else operand[0] for operand in operands]
            yield from self._apply(name, definition, angles, qubits, scope)
            self._at = end

    def _apply(
        self,
        name: str,
        definition: _Definition | None,
        angles: list[AngleExpression],
        qubits: list[int],
        scope: _Scope,
    ) -> Iterator[Gate]:
        self._steps += 1 if definition is None else 1 + len(definition.body)
        if self._steps > self._max_steps:
            self._fail(f"the program expands to more than {self._max_steps:,} gates and tokens of definitions")
        for qubit in qubits:
            if qubit in self._measured:
                self._fail(f"gate {name!r} acts on qubit {qubit} after its measurement; measure at the end alone")
        if definition is None:
            try:
                yield Gate(_ALIASES.get(name, name), tuple(qubits), tuple(angles))
            except CircuitError as error:
                self._fail(str(error))
            return
        if len(angles) != len(definition.parameters) or len(qubits) != len(definition.qubits):
            self._fail(
                f"gate {name!r} has {len(definition.parameters)} angles and {len(definition.qubits)} qubits, "
                f"got {len(angles)} and {len(qubits)}"
            )
        if len(set(qubits)) < len(qubits):
            self._fail(f"gate {name!r} needs different qubits")
        if scope.depth == MAX_DEPTH:
            self._fail(f"definitions are nested more than {MAX_DEPTH} levels deep")
        inner = _Scope(
            dict(zip(definition.parameters, angles, strict=True)),
            {own: (qubit,) for own, qubit in zip(definition.qubits, qubits, strict=True)},
            definition.order,
            scope.depth + 1,
        )
        outer, self._at = (self._tokens, self._at), 0
        self._tokens = [*definition.body, _Token("end", "the end of the definition", outer[0][outer[1] - 1].position)]
        while self._peek().kind != "end":
            word = self._expect("name").text
            if word in _REFUSED or word in ("measure", "qubit", "bit", "input", "gate", "include"):
                self._fail(f"{word!r} cannot occur in the definition of a gate")
            if word == "barrier":
                self._barrier(inner)
                continue
            yield from self._call(word, inner)
        self._tokens, self._at = outer

    def _barrier(self, scope: _Scope) -> None:
        """Read the operands of a barrier, which has no effect here."""
        if self._accept(";"):
            return
        self._operand(scope)
        while self._accept(","):
            self._operand(scope)
        self._expect(";")

    def _operand(self, scope: _Scope) -> tuple[int, ...]:
        name = self._expect("name").text
        register = scope.qubits.get(name)
        if register is None:
            self._fail(f"{name[:40]!r} is not a declared qubit")
        if scope.order is None and self._accept("["):
            index = self._integer()
            self._expect("]")
            if index >= len(register):
                self._fail(f"{name}[{index}] is out of range; the register has {len(register)} qubits")
            return (register[index],)
        return register

    # Integers stay integers until a gate takes them, because OpenQASM divides them without a remainder.
    def _expression(self, scope: _Scope, depth: int) -> Any:
        total = self._product(scope, depth)
        while self._peek().text in ("+", "-"):
            sign = 1 if self._next().text == "+" else -1
            total = self._checked(lambda a, b: a + b, total, sign * self._product(scope, depth))
        return total

    def _product(self, scope: _Scope, depth: int) -> Any:
        total = self._factor(scope, depth)
        while self._peek().text in ("*", "/"):
            symbol, other = self._next().text, self._factor(scope, depth)
            if symbol == "*":
                if not _is_number(total) and not _is_number(other):
                    self._fail("an angle is a sum of parameters times factors; this is a product of parameters")
                total = self._checked(lambda a, b: a * b, total, other)
                continue
            if not _is_number(other) or other == 0:
                self._fail("an angle can be divided by a number other than zero alone")
            if isinstance(total, int) and isinstance(other, int):
                if total % other:
                    self._fail(f"{total}/{other} is a division of integers; write {total}.0/{other}")
                total //= other
            else:
                total = self._checked(lambda a, b: a / b, total, other)
        return total

    def _factor(self, scope: _Scope, depth: int) -> Any:
        if depth > MAX_DEPTH:
            self._fail(f"parentheses and signs are nested more than {MAX_DEPTH} levels deep")
        token = self._next()
        if token.text in ("-", "+") and token.kind == "symbol":
            value = self._factor(scope, depth + 1)
            return -value if token.text == "-" else value
        if token.text == "(" and token.kind == "symbol":
            value = self._expression(scope, depth + 1)
            self._expect(")")
            return value
        if token.kind == "number":
            if token.text.isdecimal() and len(token.text) <= 15:
                return int(token.text)
            try:
                number = float(token.text)
            except ValueError:
                self._fail(f"{token.text[:40]!r} is not a number")
            return self._checked(float, number)
        if token.kind == "name":
            if token.text in scope.angles:
                return scope.angles[token.text]
            if token.text in _CONSTANTS:
                return _CONSTANTS[token.text]
            self._fail(f"unknown name {token.text[:40]!r} in an angle")
        return self._fail(f"expected an angle, got {token.text[:40]!r}")

    def _checked(self, function: Callable[..., Any], *values: Any) -> Any:
        """Return the result of arithmetic, which has to be finite."""
        try:
            result = function(*values)
            overflows = _is_number(result) and not math.isfinite(result)
        except (CircuitError, OverflowError):
            overflows = True
        if overflows:
            self._fail("a number in this angle is not finite")
        return result


def _is_number(value: Any) -> bool:
    return not isinstance(value, (Angle, AngleSum))


def _as_angle(value: Any) -> AngleExpression:
    return float(value) if _is_number(value) else value
