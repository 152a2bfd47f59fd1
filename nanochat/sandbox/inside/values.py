"""How a test and the answer it judges talk: plain values, as data, through a pipe.

None, bool, int, float, complex, str, bytes, and lists, tuples, sets and dicts of them. An object whose == is always
true, a function, a generator cannot cross: there is no way to write it down. Types are exact, so that True is not 1,
and a (1, 2) arrives as no [1, 2]. Depth and size are bounded.
"""

import json
import os

MAX_DEPTH = 60
MAX_BYTES = 1 << 20
PLAIN = (type(None), bool, int, float, str)
ROWS = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class Unplain(ValueError):
    """Not a plain value, or too large a one, or no message at all."""

    __module__ = "builtins"             # so that a traceback shows the bare name


def encode(value, depth: int = MAX_DEPTH):
    """The value as JSON: plain ones as they are, others as [type, parts…]."""
    if type(value) in PLAIN:
        return value
    if depth == 0:
        raise Unplain(f"nested more than {MAX_DEPTH} deep")
    name = type(value).__name__
    if ROWS.get(name) is type(value):
        return [name, *(encode(part, depth - 1) for part in value)]
    if isinstance(value, dict):             # Counter and defaultdict too: as data they are equal to their dict
        return ["dict", *([encode(k, depth - 1), encode(v, depth - 1)] for k, v in dict.items(value))]
    if type(value) is complex:
        return ["complex", value.real, value.imag]
    if type(value) is bytes:
        return ["bytes", value.hex()]
    raise Unplain(f"an object of type {name[:60]} cannot cross")


def decode(data, depth: int = MAX_DEPTH):
    """The value that `encode` wrote. Whatever else `data` is: Unplain."""
    if type(data) in PLAIN:
        return data
    if type(data) is not list or not data or depth == 0:
        raise Unplain("not a value")
    try:
        match data:
            case ["complex", real, imaginary]:
                return complex(real, imaginary)
            case ["bytes", text]:
                return bytes.fromhex(text)
            case ["dict", *pairs]:
                return {decode(k, depth - 1): decode(v, depth - 1) for k, v in pairs}
            case [str(name), *parts] if name in ROWS:
                return ROWS[name](decode(part, depth - 1) for part in parts)
    except (TypeError, ValueError) as error:                # unhashable keys, an odd number of digits
        raise Unplain(f"not a value: {error}") from None
    raise Unplain("not a value")


def send(fd: int, message) -> None:
    """Write a message: four bytes of length, then JSON. Raises Unplain when it is too long."""
    try:
        data = json.dumps(message).encode()
    except (ValueError, RecursionError) as error:           # an int of more digits than may be written
        raise Unplain(str(error)) from None
    if len(data) > MAX_BYTES:
        raise Unplain(f"a value of {len(data):,} bytes; {MAX_BYTES:,} may cross")
    data = len(data).to_bytes(4, "little") + data
    while data:
        data = data[os.write(fd, data):]


def receive(fd: int):
    """Read a message. Raises EOFError when the other side has ended, Unplain when it talks nonsense."""
    length = int.from_bytes(_exactly(fd, 4), "little")
    if length > MAX_BYTES:
        raise Unplain(f"a message of {length:,} bytes")
    try:
        return json.loads(_exactly(fd, length))
    except (ValueError, RecursionError):
        raise Unplain("not a message") from None


def _exactly(fd: int, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = os.read(fd, length - len(data))
        if not piece:
            raise EOFError("the program ended before it answered")
        data += piece
    return data
