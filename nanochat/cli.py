"""The command `nanochat`. Each command opens the room that does its work; a user's mistake is one line and exit code 2.

nanochat run --scale toy          all nine lessons, headless
nanochat chat --run toy           talk to the model
nanochat --help                   everything else
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from nanochat.runtime import UserError, say

app = typer.Typer(
    help="Build a small ChatGPT in nine notebooks, from bytes to a model you can talk to.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
tokenizer_app = typer.Typer(help="The teaching tokenizers by themselves.", no_args_is_help=True)
app.add_typer(tokenizer_app, name="tokenizer")

ScaleOption = Annotated[str, typer.Option("--scale", help="A scale of course.yml.")]
RunOption = Annotated[str, typer.Option("--run", help="A name under runs/, or a folder.")]
OwnRunOption = Annotated[
    str, typer.Option("--run", help="A name under runs/, or a folder; by default the scale's name.")
]
DepthOption = Annotated[
    int | None,
    typer.Option("--depth", min=1, max=99, help="Another depth of a scale with a horizon: gpt2 at 26 is gpt2-d26."),
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Changes the toy world, the order of data and the initial weights.")
]
ProcessesOption = Annotated[
    int | None,
    typer.Option("--nproc", min=1, help="Processes of a node, one a GPU; by default as many as the scale says."),
]
NodesOption = Annotated[
    int,
    typer.Option(
        "--nnodes", min=1, envvar="PET_NNODES", help="Nodes with one shared run folder; the others say `nanochat join`."
    ),
]
Fp8Option = Annotated[
    bool | None,
    typer.Option("--fp8/--no-fp8", help="Multiply the matrices that gain from it in fp8; by default as the scale says."),
]
RendezvousOption = Annotated[
    str,
    typer.Option(
        "--rdzv-endpoint", metavar="HOST:PORT", envvar="PET_RDZV_ENDPOINT", help="A free port of the first node."
    ),
]
StageOption = Annotated[str | None, typer.Option("--stage", help="base, mid, sft or rl; by default the newest.")]


def at_depth(scale: str, depth: int | None) -> str:
    """The name of a scale at another depth, see `nanochat.course.manifest`."""
    return f"{scale}-d{depth}" if depth else scale


@app.command()
def run(
    scale: ScaleOption = "toy",
    first: Annotated[str, typer.Option("--from", metavar="NN", help="The first lesson to run.")] = "",
    last: Annotated[str, typer.Option("--until", metavar="NN", help="The last lesson to run.")] = "",
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Execute lessons that are up to date, too. Finished stages are loaded; "
            "to train again, delete their folder.",
        ),
    ] = False,
    name: OwnRunOption = "",
    seed: SeedOption = 0,
    depth: DepthOption = None,
    sandbox: Annotated[
        str,
        typer.Option(
            "--sandbox",
            metavar="strict",
            help="Stop at once where the system cannot wall in model-written code completely "
            "(the same as NANOCHAT_SANDBOX=strict).",
        ),
    ] = "",
    nproc: ProcessesOption = None,
    nodes: NodesOption = 1,
    rendezvous: RendezvousOption = "",
    fp8: Fp8Option = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Every cell with the scale's settings, the stages on a stand-in.")
    ] = False,
):
    """Execute the lessons of a scale with papermill; what is up to date is skipped."""
    from nanochat.course.report import report
    from nanochat.course.run import LessonFailed, relative, run_course

    if sandbox:
        from nanochat.sandbox import check_sandbox

        os.environ["NANOCHAT_SANDBOX"] = sandbox         # the lessons' kernels inherit it
        check_sandbox()
    machine = _machine(nproc=nproc, nodes=nodes, rendezvous=rendezvous, fp8=fp8)
    if thrown_away := dry and not name:
        name = tempfile.mkdtemp(prefix=f"nanochat-dry-{scale}-")
    try:
        opened = run_course(
            at_depth(scale, depth), first=first, last=last, force=force, name=name, seed=seed, machine=machine, dry=dry
        )
    except LessonFailed as failed:
        print(failed, file=sys.stderr)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        print("nanochat: stopped; the same command goes on from here", file=sys.stderr)
        raise typer.Exit(130) from None
    if thrown_away:
        shutil.rmtree(opened.path)
    elif opened.results() and not dry:
        option = "" if opened.name == "toy" else f" --run {name or opened.name}"
        say(f"report  {relative(report(opened))}")
        say(f"chat    nanochat chat{option}          page    nanochat serve{option}")


def _machine(**settings) -> dict:
    """The settings of the machine that were given on the command line."""
    return {name: value for name, value in settings.items() if value not in (None, "")}


@app.command()
def join(
    node: Annotated[
        int, typer.Option("--node-rank", min=1, envvar="PET_NODE_RANK", help="1, 2, …: which of the nodes this is.")
    ],
    scale: ScaleOption = "speedrun",
    name: OwnRunOption = "",
    nproc: ProcessesOption = None,
    nodes: NodesOption = 2,
    rendezvous: RendezvousOption = "",
):
    """Be one of several nodes: take part in each stage of the run that the first node executes."""
    from nanochat.course.run import join_course

    join_course(scale, name or scale, node, _machine(nproc=nproc, nodes=nodes, rendezvous=rendezvous))


@app.command()
def grade(
    target: Annotated[
        str, typer.Argument(metavar="[NN | NOTEBOOK]", help="A lesson's number or a notebook; by default every lesson.")
    ] = "",
    solutions: Annotated[
        bool, typer.Option("--solutions", help="Mark the lessons with the reference solutions in them.")
    ] = False,
    mutants: Annotated[
        bool, typer.Option("--mutants", help="Try the wrong answers: each must fail in the case it names.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Only what is graded: no training, no plots.")] = False,
):
    """Mark exercises; exit code 0 only for full marks."""
    if mutants:
        from nanochat.course import mutants as wrong

        raise typer.Exit(wrong.main(target))
    from nanochat.course import grade as marking

    raise typer.Exit(marking.main(target, solutions, quick))


@app.command()
def sync(
    lessons: Annotated[list[str] | None, typer.Argument(metavar="[NN]...", help="Lessons; by default all.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Execute nothing; prove that text and notebook agree.")
    ] = False,
    execute: Annotated[
        bool, typer.Option("--execute/--no-execute", help="Without executing, the notebook gets no outputs.")
    ] = True,
    run: RunOption = "",
):
    """Build notebooks/NN_x.ipynb from its text by executing it at toy scale."""
    from nanochat.course.sync import main as sync_main

    raise typer.Exit(sync_main(lessons or [], check, execute, run))


@app.command()
def chat(
    run: RunOption = "toy",
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="One question; its answer is printed and that is all.")
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, help="0 always takes the likeliest token.")] = 0.6,
    top_k: Annotated[int | None, typer.Option(min=1)] = 50,
    max_tokens: Annotated[int, typer.Option(min=1)] = 256,
    seed: Annotated[int | None, typer.Option(help="Makes sampled answers repeat.")] = None,
    stage: StageOption = None,
):
    """Talk to a run's model in the terminal."""
    from nanochat.runtime import open_run
    from nanochat.serve import chat as talk

    talk(open_run(run), prompt, temperature=temperature, top_k=top_k, max_tokens=max_tokens, seed=seed, stage=stage)


@app.command()
def serve(
    run: RunOption = "toy",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    stage: StageOption = None,
):
    """Serve a run's model: a chat page and an OpenAI-style API."""
    from nanochat.runtime import open_run
    from nanochat.serve import serve as serve_run

    serve_run(open_run(run), port=port, stage=stage)


@app.command()
def plan(
    scale: ScaleOption = "speedrun",
    gpu: Annotated[
        str, typer.Option("--gpu", help="H100, H200, A100, B200, 4090 or cpu; by default the scale's own hardware.")
    ] = "",
    gpus: Annotated[
        int | None, typer.Option("--gpus", help="Of those, in one node; by default as many as the scale's processes.")
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", help="Nodes, each with all the GPUs.")] = 1,
    fp8: Fp8Option = None,
    depth: DepthOption = None,
):
    """What a scale will cost: parameters, tokens, FLOPs, memory, hours, dollars."""
    from nanochat.course.plan import plan as make_plan
    from nanochat.course.plan_table import table

    say(table(make_plan(at_depth(scale, depth), gpu, gpus, nodes, fp8)))


@app.command()
def report(run: RunOption = "toy"):
    """Write a run's report card: report.md, report.json, plots/."""
    from nanochat.course.report import report as write_report
    from nanochat.course.run import relative
    from nanochat.runtime import open_run

    say(relative(write_report(open_run(run))))


@app.command()
def export(
    to: Annotated[str, typer.Option("--to", help="hf, tiktoken or c.")],
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    run: RunOption = "toy",
    stage: StageOption = None,
):
    """Write a run's model in another program's format."""
    from nanochat.runtime import open_run
    from nanochat.serve.export import export as write_export

    write_export(open_run(run), to, folder, stage)


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="nanochat's model_*.pt and meta_*.json, or a transformers NanoChat.")],
    run: Annotated[str, typer.Option("--run", help="The new run: a name under runs/, or a folder.")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="A folder with tokenizer.json or our model.json; by default the model's.")
    ] = None,
    stage: Annotated[str, typer.Option("--stage", help="base, mid, sft or rl.")] = "sft",
    step: Annotated[int | None, typer.Option(help="Of several nanochat checkpoints; by default the newest.")] = None,
):
    """Bring in a model that was trained elsewhere, as a run to talk to."""
    from nanochat.serve.convert import import_run

    import_run(folder, tokenizer, run, stage, step)


@app.command()
def data(
    what: Annotated[str, typer.Argument(metavar="[fetch | verify | contamination]")] = "fetch",
    scale: ScaleOption = "toy",
    run: OwnRunOption = "",
    seed: SeedOption = 0,
):
    """Fetch or generate everything a scale reads, before a long run needs it.

    verify: read it all again and compare it with what it was. contamination: look for exam questions in it.
    """
    from nanochat import course
    from nanochat.course import prepare

    todo = {"fetch": prepare.fetch, "verify": prepare.verify, "contamination": prepare.contamination}
    if what not in todo:
        raise UserError(f"nanochat data does not know {what!r}; it knows {', '.join(todo)}")
    table = todo[what](course.scale(scale), course.open_run(scale, run, seed))
    if what == "contamination":
        from nanochat.course.report import contamination_table

        say(contamination_table(table))


@app.command()
def doctor(
    scale: Annotated[str, typer.Option("--scale", help="Also what this scale needs of its machine.")] = "",
    nproc: ProcessesOption = None,
):
    """Is everything here that the course needs?"""
    from nanochat.course import load
    from nanochat.course.doctor import main as examine

    chosen = load().scale(scale).changed({"machine": _machine(nproc=nproc)}) if scale else None
    raise typer.Exit(examine(chosen))


@tokenizer_app.command("train")
def tokenizer_train(
    file: Annotated[Path, typer.Argument(help="A text in UTF-8.")],
    vocab: Annotated[int, typer.Option("--vocab", help="Tokens, the 256 bytes included.")] = 512,
    out: Annotated[Path, typer.Option("--out", help="The folder for the files.")] = Path("models"),
):
    """Train the two teaching tokenizers on a text and save them: basic and regex, .model and .vocab of each.

    (A run's own tokenizer is made by lesson 02.)
    """
    from nanochat.tokenizer.train import train_file

    train_file(file, out, vocab)


def main() -> None:
    """The console command. (typer ends with 130 on Ctrl-C, and with 2 on a wrong option.)"""
    try:
        app()
    except UserError as error:
        print(f"nanochat: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:                      # `nanochat … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
