"""The calculator a chat model may call: `calculate("34*57")` is "1938", and what it will not compute is None.

The text is cut into a closed list of tokens, parsed into Python's syntax tree and walked by hand, so a name, an
attribute or a call that is not listed here has no way in. Every operation is bounded *before* it is computed:
9**9**9 is refused at once, not started and stopped. No eval, no signals, no threads; works from any thread.

    calculate("1,000 + 2.50")             -> "1002.5"
    calculate("'strawberry'.count('r')")  -> "3"
    calculate("9**9**9")                  -> None
"""

import ast
import math
import operator
import re

MAX_CHARS = 500        # of the expression
MAX_PARENS = 40        # opening ones
MAX_DEPTH = 100        # of the tree: a sum of n terms is n deep
MAX_BITS = 512         # of any integer on the way
MAX_BASE, MAX_EXPONENT = 10**6, 64
MAX_RESULT = 64        # characters of the answer

# Everything an expression may consist of. A string may hold any text but a backslash or its own quote.
TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<string>'[^'\\\n]*'|"[^"\\\n]*")
      | (?P<number>\d{1,3}(?:,\d{3})+(?:\.\d*)?(?![\d,]) | (?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
      | (?P<word>\.\s*(?:count|lower|upper)\b | len\b)
      | (?P<sign>\*\*|//|[-+*/%(),])
      | (?P<typed>[−×÷])""",
    re.VERBOSE,
)
TYPED = {"−": "-", "×": "*", "÷": "/"}

BINARY = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
UNARY = {ast.UAdd: operator.pos, ast.USub: operator.neg}


class Refused(Exception):
    """The expression is not one this calculator computes."""


def calculate(text: str) -> str | None:
    """The value of an arithmetic expression, or of a count of letters, as text; None when it is anything else.

    Numbers (with thousands separators), + - * / // % ** and parentheses; 'word'.count('x'), also after .lower() or
    .upper(), and len('word'). Integral results carry no ".0"; others have 12 significant digits.
    """
    if len(text) > MAX_CHARS or text.count("(") > MAX_PARENS:
        return None
    try:
        tree = ast.parse(_python_source(text), mode="eval")
        return _format(_value(tree.body, MAX_DEPTH))
    except (Refused, SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None


def _python_source(text: str) -> str:
    """The same expression as plain Python: only known tokens, 1,234 as 1234, × as *."""
    out, position = [], 0
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise Refused(text[position])
        token = match.group()
        if match.lastgroup == "space":
            token = " "
        elif match.lastgroup == "number":
            token = token.replace(",", "")
        out.append(TYPED.get(token, token))
        position = match.end()
    return "".join(out).strip()


def _value(node: ast.expr, depth: int) -> float | str:
    if depth == 0:
        raise Refused("too deep")
    match node:
        case ast.Constant(value=value):
            return _bounded(value)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in UNARY:
            return UNARY[type(op)](_number(operand, depth - 1))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
            a, b = _number(left, depth - 1), _number(right, depth - 1)
            if type(op) is ast.Pow and (abs(a) > MAX_BASE or abs(b) > MAX_EXPONENT):
                raise Refused("power")
            return _bounded(BINARY[type(op)](a, b))
        case ast.Call(func=ast.Name(id="len"), args=[text], keywords=[]):
            return len(_string(text, depth - 1))
        case ast.Call(func=ast.Attribute(value=text, attr="count"), args=[part], keywords=[]):
            return _string(text, depth - 1).count(_string(part, depth - 1))
        case ast.Call(func=ast.Attribute(value=text, attr="lower" | "upper" as case), args=[], keywords=[]):
            text = _string(text, depth - 1)
            return text.lower() if case == "lower" else text.upper()
    raise Refused(type(node).__name__)


def _number(node: ast.expr, depth: int) -> float:
    value = _value(node, depth)
    if isinstance(value, str):
        raise Refused("text where a number belongs")
    return value


def _string(node: ast.expr, depth: int) -> str:
    value = _value(node, depth)
    if not isinstance(value, str):
        raise Refused("a number where text belongs")
    return value


def _bounded(value):
    """`value` itself, if it is text, an integer of modest size or a finite float."""
    if type(value) is int and value.bit_length() <= MAX_BITS:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is str:
        return value
    raise Refused("too large, or not a number")


def _format(value: float | str) -> str:
    if isinstance(value, str):
        raise Refused("the result is not a number")
    if isinstance(value, float):
        value = int(value) if value.is_integer() and abs(value) < 1e15 else f"{value:.12g}"
    text = str(value)
    if len(text) > MAX_RESULT:
        raise Refused("result too long")
    return text
