"""Plans against what the reference logged, against real training steps, and the arithmetic that must hold at any scale."""

import runpy
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from typer.testing import CliRunner

from nanochat.cli import app
from nanochat.course import load
from nanochat.course.hardware import GPUS
from nanochat.course.memory import memory
from nanochat.course.plan import Plan, duration, plan
from nanochat.course.plan_table import table, warnings
from nanochat.model import GPT, GPTConfig, loss
from nanochat.runtime import World
from nanochat.train import scaling
from nanochat.train.config import OptimConfig
from nanochat.train.optim import MuonAdamW

BENCHMARK = runpy.run_path(str(Path(__file__).resolve().parents[2] / "benchmarks" / "plan.py"))


def changed(plan: Plan, part: str, **fields) -> Plan:
    return Plan(plan.scale.model_copy(update={part: getattr(plan.scale, part).model_copy(update=fields)}), plan.nodes)


@pytest.fixture(scope="module")
def d20():
    """The reference's first speedrun: 8 × H100, 21,400 steps of 2¹⁹ tokens, device batch 32."""
    toy = load().scale("toy").model_dump()
    toy["name"] = "d20"
    toy["tokenizer"]["vocab_size"] = 65536
    toy["pretrain"] |= {"rows": 256, "device_rows": 32, "streams": 8, "model": {"depth": 20, "sequence_len": 2048}}
    toy["pretrain"]["schedule"]["steps"] = 21400
    toy["machine"] |= {"nproc": 8, "device": "cuda", "dtype": "bfloat16"}
    toy["hardware"] = {"name": "8×H100", "peak_tflops": 989, "memory_gb": 80, "mfu": 0.48, "dollars_per_hour": 24}
    return Plan(type(load().scale("toy")).model_validate(toy))


# --- time and money ---------------------------------------------------------------------------------------------------


def test_it_agrees_with_the_published_depth_20_run(d20):
    pretraining = d20.stages[0]
    assert d20.params == 560_988_160
    assert pretraining.tokens == pytest.approx(11.22e9, rel=1e-3)
    assert pretraining.flops == pytest.approx(3.918e19, rel=1e-3)
    assert pretraining.seconds / 3600 == pytest.approx(3.0, rel=0.1)
    assert d20.dollars(pretraining.seconds) == pytest.approx(72, rel=0.1)


@pytest.mark.parametrize("run", BENCHMARK["LOGGED"], ids=lambda run: run.name)
def test_the_time_of_every_logged_run_within_a_tenth(run):
    assert run.predicted == pytest.approx(run.seconds, rel=0.1)


def test_runs_that_fitted_nothing_test_both_precisions():
    tested = {(run.gpu, run.precision) for run in BENCHMARK["LOGGED"] if not run.fitted}
    assert tested == {("H100", "bf16"), ("H100", "fp8")}
    late = [row for row in BENCHMARK["times"]() if row["fitted"] is None]  # evaluation is in their minutes
    assert len(late) == 11 and all(row["predicted_min"] < row["logged_min"] for row in late)


def test_devices_share_time_and_optimizer_state_and_cost_the_same(d20):
    one = changed(d20, "machine", nproc=1)
    assert one.stages[0].seconds == pytest.approx(8 * d20.stages[0].seconds)
    assert 1 / 8 <= d20.memory().optimizer / one.memory().optimizer < 1 / 7  # 20 matrices a shape: one rank has 3
    two = Plan(d20.scale, nodes=2)
    assert 0.5 * d20.seconds < two.stages[0].seconds < 0.6 * d20.seconds  # the network costs a little
    assert two.dollars(3600) == 2 * d20.dollars(3600)


@pytest.mark.parametrize("seconds, said", [(41, "41 s"), (750, "12.5 min"), (11_000, "3.1 h"), (1e6, "11.6 days")])
def test_durations(seconds, said):
    assert duration(seconds) == said


# --- memory -----------------------------------------------------------------------------------------------------------

TINY = {
    "written-out attention": (GPTConfig.from_depth(3, 300, 64, n_embd=96, head_dim=32), 16, 1, torch.float32),
    "fused attention, bf16": (GPTConfig.from_depth(2, 1000, 320, n_embd=64, head_dim=32), 4, 1, torch.bfloat16),
    "micro-batches": (GPTConfig.from_depth(2, 2000, 64, n_embd=128, head_dim=32), 2, 3, torch.float32),
}
tiny = pytest.mark.parametrize("config, rows, micro_batches, dtype", TINY.values(), ids=TINY)


def real(config, dtype, world=None):
    model = GPT(config).init_weights(seed=0)
    model.compute_dtype = dtype
    return model, MuonAdamW(model, OptimConfig(), world or World())


def size(tensors) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


@tiny
def test_weights_gradients_and_optimizer_state_are_exact(config, rows, micro_batches, dtype):
    for ranks in (1, 4):
        model, optimizer = real(config, dtype, World(size=ranks))
        needed = memory(config, OptimConfig(), rows=rows, ranks=ranks, dtype=dtype)
        idx = torch.zeros(1, config.sequence_len, dtype=torch.long)
        model(idx, idx).backward()
        assert needed.weights == size(model.parameters())
        assert needed.gradients == size(p.grad for p in model.parameters())
        assert needed.optimizer == size(optimizer.state_tensors().values())


@tiny
def test_activations_are_what_autograd_keeps(config, rows, micro_batches, dtype):
    model, _ = real(config, dtype)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()} | {
        model.cos.untyped_storage().data_ptr(),
        model.sin.untyped_storage().data_ptr(),
    }
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.hidden(torch.zeros(rows, config.sequence_len, dtype=torch.long))
    assert memory(config, OptimConfig(), rows=rows, dtype=dtype).activations == pytest.approx(
        sum(kept.values()), rel=0.15
    )
    assert hidden.requires_grad


@tiny
def test_the_peak_of_a_real_step_within_15_percent(config, rows, micro_batches, dtype):
    model, optimizer = real(config, dtype)
    idx = torch.zeros(rows, config.sequence_len, dtype=torch.long)

    def step():
        for _ in range(micro_batches):
            model(idx, idx, reduction="sum").backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    events = sorted(
        (e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()
    )
    alive, peak = 0, 0
    for event in events:
        alive += event.nbytes()
        peak = max(peak, alive)
    measured = peak + size(model.parameters()) + size(optimizer.state_tensors().values())
    needed = memory(config, OptimConfig(), rows=rows, micro_batches=micro_batches, dtype=dtype)
    assert needed.peak == pytest.approx(measured, rel=0.15)


def test_the_peak_of_a_step_whose_loss_is_taken_in_chunks(monkeypatch):
    monkeypatch.setattr(loss, "LOGITS", 128 * 3000)  # of 1,024 rows
    config = GPTConfig.from_depth(2, 3000, 64, n_embd=64, head_dim=32)
    test_the_peak_of_a_real_step_within_15_percent(config, 16, 1, torch.float32)
    chunked = memory(config, OptimConfig(), rows=16).logits
    assert chunked < 1024 * 3000 * 4, "less than the logits of all rows alone"


def test_a_batch_that_does_not_fit_is_said_and_the_largest_that_does_is_proposed(d20):
    cramped = changed(d20, "hardware", memory_gb=40)
    stage = cramped.stages[0]
    rows = cramped.rows_that_fit(stage)
    assert rows < 32 and cramped.fits(stage, rows) and not cramped.fits(stage, 2 * rows)
    assert f"set pretrain.device_rows to {rows} instead of 32" in table(cramped)
    roomy = table(changed(d20, "hardware", memory_gb=400))
    assert "pretrain needs" not in roomy
    assert "take a larger device" in table(changed(d20, "hardware", memory_gb=3))


@pytest.mark.parametrize("scale", [*load().scales, "gpt2-d26"])
def test_every_scale_fits_the_machine_that_it_names(scale):
    assert warnings(plan(scale)) == []


# --- hyperparameters from depth ---------------------------------------------------------------------------------------


def test_the_plan_prints_each_number_with_its_reason_beside_the_scale_s_own(d20):
    lines = table(d20).splitlines()
    [batch] = [line for line in lines if line.lstrip().startswith("batch ")]
    assert "1,048,576" in batch and "524,288" in batch and "to a power of two" in batch
    assert sum(line in table(d20) for line in scaling.table(d20.scale.pretrain, 65536)) == 12


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_table_states_what_it_assumes(course_folder):
    done = CliRunner().invoke(app, ["plan", "--scale", "toy"])
    assert done.exit_code == 0
    assert "917,504" in done.output and "TFLOP/s peak a device" in done.output and "not counted" in done.output
    assert done.output.count("\n  pretrain ") == 1 and "\n  all " in done.output
    for part in ("weights", "gradients", "optimizer", "activations", "logits", "update", "peak"):
        assert done.output.count(f"\n  {part} ") == 1


@pytest.mark.parametrize("gpu", GPUS)
def test_another_machine(gpu):
    planned = plan("toy", gpu.lower(), gpus=2)
    assert planned.ranks == 2 and planned.scale.hardware.peak_tflops == GPUS[gpu].peak_tflops
    assert plan("toy", gpu, gpus=4).stages[0].seconds == pytest.approx(planned.stages[0].seconds / 2)


def test_fp8_is_what_the_machine_does_with_it():
    """d24: all matrices of the blocks but the tiny gates. A model too small to gain takes as long as in bf16."""
    bf16, fp8 = (plan("gpt2", fp8=fp8) for fp8 in (False, True))
    assert fp8.scale.machine.fp8 and not bf16.scale.machine.fp8 and fp8.fp8_share > 0.99
    assert fp8.stages[0].seconds == pytest.approx(bf16.stages[0].seconds * bf16.scale.hardware.mfu / 0.593, rel=1e-2)
    small = plan("toy", "H100", fp8=True)
    assert small.fp8_share == 0 and small.stages[0].seconds == plan("toy", "H100").stages[0].seconds
    assert "0% of the blocks' weights multiplied in fp8" in table(small)


@pytest.mark.parametrize("arguments, line", [
    (("--gpu", "H1000"), "unknown GPU 'H1000'; choose one of H100, H200, A100, B200, 4090, cpu"),
    (("--gpu", "H100", "--gpus", "0"), "--gpus is 0; it must be at least 1"),
    (("--nodes", "-1"), "--nodes is -1; it must be at least 1"),
    (("--gpus", "2"), "--gpus needs --gpu"),
    (("--fp8",), "--fp8 needs --gpu"),
    (("--gpu", "A100", "--fp8"), "no efficiency in fp8 is known for A100; it has bf16"),
    (("--gpu", "H100", "--gpus", "33"), "33 devices are more than the 32 rows of a step (pretrain.rows of scale toy)"),
])  # fmt: skip
def test_a_bad_value_is_one_clear_line(arguments, line):
    error = CliRunner().invoke(app, ["plan", "--scale", "toy", *arguments]).exception
    assert type(error).__name__ == "UserError" and line in str(error) and "\n" not in str(error)
