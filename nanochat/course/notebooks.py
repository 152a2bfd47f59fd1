"""Notebooks as data: text to cells, stable ids, tags, hashes. What sync, run and grade share.

A lesson's text is jupytext py:percent. Ids come from an exercise's tag or from the cell's source, so that a rebuild
gives the same ids; the hash of the code cells says which source an executed notebook belongs to.
"""

import hashlib
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from nanochat.course.manifest import Lesson
from nanochat.runtime import UserError, atomic_write

PROTECTED = ("parameters", "setup", "grade:", "use:")   # cells that marking puts back as released
HEADLESS = {
    "PYTHONHASHSEED": "0",
    "COURSE_HEADLESS": "1",
}  # a kernel nobody watches: sets keep their order, plots draw once
QUIET_KERNEL = ["--IPKernelApp.log_level=CRITICAL"]      # kernels warn on our terminal otherwise, at every shutdown
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def from_text(path: Path) -> NotebookNode:
    """The notebook that a py:percent text describes: cells, tags, ids; no outputs."""
    import jupytext

    if not path.exists():
        raise UserError(f"{path} does not exist; a lesson's text stands beside its notebook")
    nb = jupytext.reads(path.read_text(), fmt="py:percent")
    return tidy(nb)


def read(path: Path) -> NotebookNode:
    """The notebook in an .ipynb file. Raises UserError when it is missing or is not a notebook."""
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; build it with `nanochat sync`") from None
    except Exception as error:  # noqa: BLE001  nbformat raises many types for a broken file
        raise UserError(
            f"{path} is not a readable notebook ({type(error).__name__}); rebuild it with `nanochat sync`"
        ) from None


def write(nb: NotebookNode, path: Path) -> None:
    atomic_write(path, nbformat.writes(nb, version=4).rstrip("\n") + "\n")


def tidy(nb: NotebookNode) -> NotebookNode:
    """Only what belongs into the repository: tags, stable ids, plain metadata. Outputs are left as they are."""
    taken: set[str] = set()
    for cell in nb.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k in ("tags", "editable", "deletable")}
        if not cell.metadata.get("tags", [True]):
            del cell.metadata["tags"]
        cell.id = _cell_id(cell, taken)
        taken.add(cell.id)
        if cell.cell_type == "code":
            cell.setdefault("outputs", [])
            cell.setdefault("execution_count", None)
    course = nb.metadata.get("course")
    nb.metadata = nbformat.from_dict({"kernelspec": KERNELSPEC, "language_info": {"name": "python"}})
    if course:
        nb.metadata["course"] = course
    nb.nbformat, nb.nbformat_minor = 4, 5
    return nb


def _cell_id(cell: NotebookNode, taken: set[str]) -> str:
    named = [t for t in tags(cell) if t in ("parameters", "setup") or ":" in t]
    base = (
        re.sub(r"[^a-zA-Z0-9_-]", "-", named[0])[:50]
        if named
        else hashlib.sha256(cell.source.encode()).hexdigest()[:12]
    )
    name, n = base, 2
    while name in taken:
        name, n = f"{base}-{n}", n + 1
    return name


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def tag(cell: NotebookNode, prefix: str) -> str | None:
    """The exercise id of a cell tagged "<prefix>:<id>", or None: tag(cell, "grade") -> "01.merge"."""
    return next((t.split(":", 1)[1] for t in tags(cell) if t.startswith(prefix + ":")), None)


def protected_tag(cell: NotebookNode) -> str | None:
    """The tag that makes a cell one of the released, protected ones."""
    return next((t for t in tags(cell) if t in PROTECTED or t.startswith(PROTECTED[2:])), None)


def code_hash(nb: NotebookNode) -> str:
    """Identifies the code of a notebook: 16 hex digits over the sources of its code cells."""
    digest = hashlib.sha256()
    for cell in nb.cells:
        if cell.cell_type == "code":
            digest.update(cell.source.encode() + b"\0")
    return digest.hexdigest()[:16]


def unrun(nb: NotebookNode) -> int | None:
    """Index among the code cells of the first that has code but was not executed; None if all were."""
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    return next((i for i, cell in enumerate(code) if cell.source.strip() and not cell.execution_count), None)


def errors(nb: NotebookNode) -> list[str]:
    """The names of the errors stored in a notebook's outputs."""
    return [output.ename for cell in nb.cells for output in cell.get("outputs", []) if output.output_type == "error"]


def chunks(path: Path) -> list[tuple[dict[str, str], str]]:
    """The parts of a solutions or mutants file: ({"exercise": "01.merge", "mutant": "in_place", …}, source) each."""
    if not path.exists():
        raise UserError(f"{path} does not exist")
    found = []
    for part in re.split(r"^# %%", path.read_text(), flags=re.MULTILINE)[1:]:
        head, _, source = part.partition("\n")
        fields = dict(re.findall(r"(\w+):\s*(\S+)", head))
        if "exercise" in fields:
            found.append((fields, source.strip("\n")))
    return found


def solutions(lesson: Lesson) -> dict[str, str]:
    """Exercise id -> the reference solution's cell."""
    return {fields["exercise"]: source for fields, source in chunks(lesson.solutions)}


def few_colours(png: str) -> str:
    """A picture (base64) in at most 64 colours: a small figure loses nothing to be seen, and most of its bytes."""
    import base64
    import io

    from PIL import Image

    small = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(64, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode()
