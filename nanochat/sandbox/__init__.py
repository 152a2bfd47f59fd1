"""Where text written by a model is put to use: arithmetic by walking its syntax tree, Python behind walls.

    from nanochat.sandbox import calculate, run_code, run_tests
    calculate("1,200*3")                                    # '3600'
    run_code("print(6*7)").stdout                           # '42\\n'
    run_tests(answer, "assert root(9) == 3", ["root"]).ok   # a verdict that the answer cannot forge

Nothing a model writes is ever handed to eval or exec in our own process.
"""

from nanochat.sandbox.calculator import calculate
from nanochat.sandbox.helper import check_sandbox, sandbox_level
from nanochat.sandbox.runner import Result, run_code, run_tests

__all__ = ["Result", "calculate", "check_sandbox", "run_code", "run_tests", "sandbox_level"]
