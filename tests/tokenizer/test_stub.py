"""The type stub tells the truth about the compiled module."""

import ast
import doctest
from pathlib import Path

import rustbpe

STUB = Path(__file__).parents[2] / "rustbpe" / "rustbpe.pyi"


def declared(body: list[ast.stmt]) -> set[str]:
    names = {node.target.id for node in body if isinstance(node, ast.AnnAssign)}
    return names | {node.name for node in body if isinstance(node, (ast.FunctionDef, ast.ClassDef))} - {"__init__"}


def test_the_stub_declares_all_that_is_there():
    module = ast.parse(STUB.read_text(encoding="utf-8"))
    (tokenizer,) = [node for node in module.body if isinstance(node, ast.ClassDef)]
    assert declared(module.body) == {name for name in dir(rustbpe) if not name.startswith("_")} - {"rustbpe"}
    assert declared(tokenizer.body) == {name for name in dir(rustbpe.Tokenizer) if not name.startswith("_")}


def test_worked_examples_in_the_stub_are_true():
    text = STUB.read_text(encoding="utf-8").replace('"""', "\n\n")
    example = doctest.DocTestParser().get_doctest(text, dict(vars(rustbpe)), "rustbpe.pyi", str(STUB), 0)
    results = doctest.DocTestRunner().run(example)
    assert (results.attempted, results.failed) == (2, 0)
