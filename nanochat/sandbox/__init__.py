"""Where text written by a model is put to use: arithmetic by walking its syntax tree, Python in a process of its own.

    from nanochat.sandbox import calculate, run_code
    calculate("1,200*3")            # '3600'
    run_code("print(6*7)").stdout   # '42\\n'

Nothing a model writes is ever handed to eval or exec in our own process.
"""

from nanochat.sandbox.calculator import calculate
from nanochat.sandbox.runner import Result, run_code

__all__ = ["Result", "calculate", "run_code"]
