"""The optimizer against the papers' formulas, and two ranks against one."""

import copy
import math
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent))
import peers

from nanochat.model import GPT, GPTConfig
from nanochat.model.config import SPEEDRUN
from nanochat.runtime import UserError, World
from nanochat.train.config import OptimConfig
from nanochat.train.muon import newton_schulz
from nanochat.train.optim import MuonAdamW, adamw_rule

CONFIG = OptimConfig(matrix_lr=0.02, embedding_lr=0.01, unembedding_lr=0.005)
RECIPE = CONFIG.model_copy(update={"orthogonal": "polar_express", "muoneq": True, "muon_plus": True, "normuon_beta": 0.9,
                                   "matrix_decay": 0.06})  # fmt: skip
SCALES = [1.0, 1.0, 0.5, 0.5, 0.25]


def small(seed=0, **switches) -> GPT:
    """Nothing divides evenly by two ranks: 61 rows, three matrices of one shape; of the speedrun's scalars one or three."""
    model = GPT(GPTConfig(8, 61, 3, 4, 2, 32, **switches)).init_weights(seed)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=g) * 0.1)
    return model


def batch(step):
    ids = torch.randint(0, 61, (4, 9), generator=torch.Generator().manual_seed(100 + step))
    targets = ids[:, 1:].clone()
    targets[0, 2:] = -1  # the ranks' rows do not hold equally many targets
    return ids[:, :-1], targets


def steps(model, optimizer, first, last, rank=0, size=1):
    """Train on this rank's rows; the loss is divided by the number of targets of all rows. Returns the losses."""
    losses = []
    for step in range(first, last):
        idx, targets = batch(step)
        mine = slice(rank * 4 // size, (rank + 1) * 4 // size)
        loss = model(idx[mine], targets[mine], reduction="sum") / (targets >= 0).sum()
        with optimizer.overlap():
            loss.backward()
        optimizer.step(lr_scale=SCALES[step])
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def start(world=None, load=None, seed=0):
    model = small(seed)
    if load:
        model.load_state_dict(load_file(load[0]))
    optimizer = MuonAdamW(model, CONFIG, world or World())
    if load:
        merged = {}
        for path in load[1:]:
            merged.update(load_file(path))
        optimizer.load_tensors(merged)
    return model, optimizer


def speedrun(world, first=0, last=3, load=()):
    """The weights of a speedrun model after its steps with all of Muon's parts, and its optimizer's state."""
    model = small(**{**SPEEDRUN, "vocab_multiple": 1})
    optimizer = MuonAdamW(model, RECIPE, world)
    if load:
        saved = {name: t for path in load for name, t in load_file(path).items()}
        model.load_state_dict({name: saved[name] for name in model.state_dict()})
        optimizer.load_tensors({name[6:]: t for name, t in saved.items() if name.startswith("state/")})
    steps(model, optimizer, first, last, world.rank, world.size)
    return {**model.state_dict(), **{f"state/{name}": t for name, t in optimizer.state_tensors().items()}}


def rank_of_two(world, folder):
    """What each of two Gloo processes does: five steps, saving after three; two steps from one rank's files."""
    rank = world.rank
    model, optimizer = start(world)
    losses = steps(model, optimizer, 0, 3, rank, 2)
    save_file(model.state_dict(), f"{folder}/two3.{rank}")
    save_file(optimizer.state_tensors(), f"{folder}/two3.optim{rank}")
    losses += steps(model, optimizer, 3, 5, rank, 2)
    save_file({**model.state_dict(), "losses": torch.tensor(losses)}, f"{folder}/two5.{rank}")
    model, optimizer = start(world, (f"{folder}/one3", f"{folder}/one3.optim"))
    steps(model, optimizer, 3, 5, rank, 2)
    save_file(model.state_dict(), f"{folder}/one3two5.{rank}")
    save_file(speedrun(world), f"{folder}/speedrun3.{rank}")
    save_file(speedrun(world, 3, 5, [f"{folder}/speedrun3"]), f"{folder}/speedrun_one3two5.{rank}")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One process trained for five steps, in this one; then two processes, twice (see above)."""
    folder = tmp_path_factory.mktemp("ranks")
    model, optimizer = start()
    losses = steps(model, optimizer, 0, 3)
    save_file(model.state_dict(), folder / "one3")
    save_file(optimizer.state_tensors(), folder / "one3.optim")
    losses += steps(model, optimizer, 3, 5)
    save_file({**model.state_dict(), "losses": torch.tensor(losses)}, folder / "one5")
    save_file(speedrun(World()), folder / "speedrun3")
    peers.run(2, rank_of_two, folder)
    return folder


def close(a, b, tolerance=1e-6):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=tolerance, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


def test_two_ranks_equal_one(runs):
    one, two = load_file(runs / "one5"), [load_file(runs / f"two5.{rank}") for rank in range(2)]
    losses = one.pop("losses"), two[0].pop("losses") + two[1].pop("losses")
    close({"losses": losses[1]}, {"losses": losses[0]})
    close(two[0], one)
    moved = small().state_dict()
    assert all((one[name] - moved[name]).abs().max() > 1e-2 for name in one)


def test_two_ranks_equal_one_for_the_speedruns_weights_too(runs):
    one, *two = (load_file(runs / name) for name in ("speedrun3", "speedrun3.0", "speedrun3.1"))
    weights = {name for name in one if not name.startswith("state/")}
    close({name: two[0][name] for name in weights}, {name: one[name] for name in weights}, tolerance=2e-6)
    close({name: two[1][name] for name in weights}, {name: two[0][name] for name in weights}, tolerance=0)
    before = small(**{**SPEEDRUN, "vocab_multiple": 1}).state_dict()
    assert all((one[name] - before[name]).abs().max() > 1e-4 for name in weights)
    # a scalar has one owner, of three scalars the first rank has two, and every piece of the state has a place
    assert "state/smear.scale/exp_avg@rows0:1" in two[0] and "state/x0_lambdas/exp_avg@rows2:3" in two[1]
    assert "state/blocks.0.attn.value.table.weight/exp_avg@rows0:31" in two[0]
    assert {name.rpartition("/")[0] for name in two[0].keys() | two[1].keys() if "/exp_avg@" in name or "/mom" in name} == {
        f"state/{name}" for name in weights}  # fmt: skip
    moments = [{name for name in rank if name.endswith("/second_moment")} for rank in two]
    matrices = {name for name in one if name.endswith("/momentum")}
    assert moments[0] | moments[1] == {name.replace("/momentum", "/second_moment") for name in matrices}
    assert not moments[0] & moments[1]
    for name in moments[0] | moments[1]:
        close({name: (two[0] | two[1])[name]}, {name: one[name]})


def test_the_recipes_state_of_two_ranks_goes_on_in_one_and_the_reverse(runs):
    five = speedrun(World(), 0, 5)
    want = {name: t for name, t in five.items() if not name.startswith("state/")}
    again = speedrun(World(), 3, 5, [runs / "speedrun3"])
    close(again, five, tolerance=0)
    one = speedrun(World(), 3, 5, [runs / "speedrun3.0", runs / "speedrun3.1"])
    two = load_file(runs / "speedrun_one3two5.0")
    for got in (one, two):
        close({name: got[name] for name in want}, want, tolerance=4e-6)


def test_a_state_without_the_second_moment_is_refused(runs):
    model = small()
    with pytest.raises(UserError, match="second_moment is missing"):
        MuonAdamW(model, RECIPE, World()).load_tensors(load_file(runs / "one3.optim"))


def test_every_weight_has_the_published_rule():
    config = OptimConfig(embedding_lr=0.3, unembedding_lr=0.008, scalar_lr=0.5, scale_by_width=True, embedding_decay=0.001,
                         unembedding_decay=0.01, embedding_betas=(0.8, 0.995), unembedding_betas=(0.8, 0.96))  # fmt: skip
    with torch.device("meta"):
        model = GPT(GPTConfig.from_depth(48, 1024, 64, arch="speedrun"))  # width 3072: s = 1/2
    rules = {name: adamw_rule(name, config, 3072) for name, _ in model.named_parameters()}
    want = {
        "lm_head.weight": (0.004, (0.8, 0.96), 0.01), "wte.weight": (0.15, (0.8, 0.995), 0.001),
        "resid_lambdas": (0.005, (0.8, 0.95), 0.05), "x0_lambdas": (0.5, (0.96, 0.95), 0.0),
        "smear.gate.weight": (0.2, (0.8, 0.95), 0.0), "smear.scale": (0.2, (0.8, 0.95), 0.0),
        "backout_lambda": (0.2, (0.8, 0.95), 0.0),
    }  # fmt: skip
    want |= {f"blocks.{i}.attn.value.table.weight": (0.075, (0.8, 0.995), 0.01) for i in range(1, 48, 2)}
    assert {name: rule for name, rule in rules.items() if rule} == want
    muon = {tuple(p.shape) for name, p in model.named_parameters() if rules[name] is None}
    assert muon == {(3072, 3072), (12288, 3072), (3072, 12288), (24, 12)}  # the last are the value embeddings' gates


def test_all_ranks_hold_the_same_weights_to_the_last_bit(runs):
    close(load_file(runs / "one3two5.0"), load_file(runs / "one3two5.1"), tolerance=0)


def test_the_gathered_shards_of_the_state_equal_the_whole(runs):
    one, shards = load_file(runs / "one3.optim"), [load_file(runs / f"two3.optim{rank}") for rank in range(2)]
    sizes = [sum(t.numel() for t in shard.values()) for shard in shards]
    assert max(sizes) < 0.65 * sum(t.numel() for t in one.values())  # not half: three whole matrices make two and one
    assert shards[0].keys() & shards[1].keys() == {"step"} and shards[0]["step"] == 3
    gathered = {}
    for shard in shards:
        for name, tensor in shard.items():
            name, _, rows = name.partition("@rows")
            key = f"{name}@rows0:61" if rows else name
            gathered[key] = torch.cat((gathered[key], tensor)) if rows and key in gathered else tensor
    close(gathered, one)


def test_state_of_two_ranks_goes_on_in_one_and_the_reverse(runs):
    model, optimizer = start(load=[runs / name for name in ("two3.0", "two3.optim0", "two3.optim1")], seed=5)
    steps(model, optimizer, 3, 5)
    one = load_file(runs / "one5")
    one.pop("losses")
    close(model.state_dict(), one)
    close(load_file(runs / "one3two5.0"), one)


def test_a_missing_ranks_file_is_named(runs):
    with pytest.raises(UserError, match="rows0:61 is not complete") as error:
        start(load=[runs / "two3.0", runs / "two3.optim0"])
    assert "\n" not in str(error.value)


def test_saved_and_loaded_state_goes_on_bit_for_bit(runs):
    model, optimizer = start(load=(runs / "one3", runs / "one3.optim"), seed=9)
    steps(model, optimizer, 3, 5)
    one = load_file(runs / "one5")
    one.pop("losses")
    close(model.state_dict(), one, tolerance=0)


def in_two_passes(model, optimizer, rank):
    """This rank's gradients of a step in two micro-batches; the last one overlaps."""
    idx, targets = batch(0)
    for i in range(2):
        row = slice(2 * rank + i, 2 * rank + i + 1)
        with optimizer.overlap(last=i == 1):
            (model(idx[row], targets[row], reduction="sum") / 32).backward()


def overlapping(world):
    """On each of two ranks: what is sent when, and what arrives."""
    model, optimizer = start(world)
    names, events = {p: name for name, p in model.named_parameters()}, []
    for group in optimizer.groups:
        group.send = lambda bucket, send=group.send: (send(bucket), events.append([names[p] for p in bucket]))
    for p, name in names.items():
        p.register_hook(lambda _, name=name: events.append(name))
    in_two_passes(model, optimizer, world.rank)
    assert all(work is not None for group in optimizer.groups for _, work in group.sums)
    events = events[len(names) :]  # of the last pass
    sent = [event for event in events if isinstance(event, list)]
    assert events[-2:] == ["wte.weight", ["wte.weight"]] and sent[0] == ["lm_head.weight"]
    assert all(events.index(name) < events.index(bucket) for bucket in sent for name in bucket)
    of_block = [[i for i, event in enumerate(events) if f"blocks.{b}" in str(event)] for b in range(3)]
    assert events.index(sent[0]) < min(of_block[2]), (
        "the head's gradient is on its way before the last block has its own"
    )
    assert sum(events.index(bucket) < min(of_block[0]) for bucket in sent) > len(sent) / 2
    assert world.gather(sent)[0] == world.gather(sent)[1], "all ranks must send in one order"

    overlapped = received(optimizer)
    optimizer.zero_grad()
    idx, targets = batch(0)
    for row in (2 * world.rank, 2 * world.rank + 1):
        (model(idx[row : row + 1], targets[row : row + 1], reduction="sum") / 32).backward()
    optimizer._send_all()
    for a, b in zip(overlapped, received(optimizer), strict=True):
        assert torch.equal(a, b)

    in_two_passes(model, optimizer, world.rank)  # the loss was not finite, say: on their way and not wanted
    optimizer.zero_grad()
    with optimizer.overlap():  # one rank has nothing to learn from
        if world.rank == 0:
            (model(idx, targets, reduction="sum") / 32).backward()
    assert optimizer.step() > 0
    alone = small()
    other = MuonAdamW(alone, CONFIG, World())
    (alone(idx, targets, reduction="sum") / 32).backward()
    other.step()
    close(model.state_dict(), alone.state_dict())


def received(optimizer) -> list[torch.Tensor]:
    optimizer.sent = 0
    for group in optimizer.groups:
        group.receive()
    return [run.clone() for group in optimizer.groups for run in group.grads]


def test_gradients_are_sent_while_the_backward_pass_goes_on_and_arrive_whole():
    peers.run(2, overlapping)


def test_one_rank_has_no_hooks_and_a_weight_without_gradient_counts_as_zero():
    (model, optimizer), (other, zeros) = start(), start()
    for m, o in ((model, optimizer), (other, zeros)):
        o.load_tensors(
            {name: torch.ones_like(t) for name, t in o.state_tensors().items()}
        )  # momentum moves it all the same
        with o.overlap():
            m.wte.weight.square().sum().backward()
            assert m.wte.weight.grad is not None
    for p in other.parameters():
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    assert optimizer.step() == zeros.step() > 0
    close(model.state_dict(), other.state_dict(), tolerance=0)
    assert (model.lm_head.weight - small().lm_head.weight).abs().max() > 1e-3


def test_a_model_whose_weights_lie_in_banks_is_like_any_other(tmp_path):
    model, optimizer = start()
    steps(model, optimizer, 0, 1)
    copied, frozen = copy.deepcopy(model), model.inference_copy()
    save_file(model.state_dict(), tmp_path / "weights")
    idx, _ = batch(1)
    for other in (copied, frozen):
        assert torch.equal(other(idx), model(idx))
    steps(model, optimizer, 1, 3)
    after = {name: t.clone() for name, t in model.state_dict().items()}
    close(load_file(tmp_path / "weights"), copied.state_dict(), tolerance=0)  # the copies have memory of their own
    close(frozen.state_dict(), copied.state_dict(), tolerance=0)
    model, optimizer = start()
    steps(model, optimizer, 0, 1)
    model.load_state_dict(small(seed=7).state_dict())  # into the banks
    model.load_state_dict(load_file(tmp_path / "weights"))
    steps(model, optimizer, 1, 3)
    close(model.state_dict(), after, tolerance=0)


def test_weights_that_were_moved_are_refused():
    for move in (lambda model: model.double(), lambda model: MuonAdamW(model, CONFIG, World())):
        model, optimizer = start()
        move(model)
        with pytest.raises(UserError, match="weights were moved"):
            optimizer.step()


def test_a_zero_gradient_moves_nothing_and_breaks_nothing():
    model = small()
    optimizer = MuonAdamW(model, CONFIG, World())
    before = {name: p.clone() for name, p in model.state_dict().items()}
    (sum(p.sum() for p in model.parameters()) * 0).backward()
    optimizer.step()
    close(model.state_dict(), before, tolerance=0)


def test_two_steps_equal_the_formulas_weight_by_weight():
    model, lr, beta1, beta2, eps = small(), CONFIG.matrix_lr, 0.8, 0.95, 1e-10
    optimizer = MuonAdamW(model, CONFIG, World())
    want = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    moments = {name: [torch.zeros_like(w), torch.zeros_like(w)] for name, w in want.items()}
    for step in (1, 2):
        idx, targets = batch(step)
        model(idx, targets).backward()
        for name, p in model.named_parameters():
            g, (m, v), w = p.grad.double(), moments[name], want[name]
            if name in ("wte.weight", "lm_head.weight"):
                m.mul_(beta1).add_(g, alpha=1 - beta1)
                v.mul_(beta2).add_(g * g, alpha=1 - beta2)
                rate = CONFIG.embedding_lr if name == "wte.weight" else CONFIG.unembedding_lr
                w -= 0.5 * rate * (m / (1 - beta1**step)) / ((v / (1 - beta2**step)).sqrt() + eps)
            else:
                m.mul_(0.9).add_(g, alpha=0.1)
                direction = newton_schulz((0.1 * g + 0.9 * m)[None], dtype=torch.float64)[0]  # Nesterov looks ahead
                w -= 0.5 * lr * math.sqrt(max(1, w.shape[0] / w.shape[1])) * direction
        optimizer.step(lr_scale=0.5, momentum=0.9)
        optimizer.zero_grad()
    close({name: p.detach().double() for name, p in model.named_parameters()}, want, tolerance=2e-5)


def test_rates_follow_the_width_when_asked():
    moved = []
    for wide in (False, True):
        model, before = small(), small()
        optimizer = MuonAdamW(model, CONFIG.model_copy(update={"scale_by_width": wide}), World())
        steps(model, optimizer, 0, 1)
        both = zip(model.parameters(), before.parameters(), strict=True)
        moved.append([(a - b).abs().mean().item() for a, b in both])
    ratio = [b / a for a, b in zip(*moved, strict=True)]
    names = [name for name, _ in small().named_parameters()]
    for name, r in zip(names, ratio, strict=True):
        expected = (32 / 768) ** -0.5 if name in ("wte.weight", "lm_head.weight") else 1.0
        assert r == pytest.approx(expected, rel=1e-3), name


def test_zero_grad_leaves_no_gradient_behind():
    model, optimizer = start()
    steps(model, optimizer, 0, 1)
    assert all(p.grad is None for p in model.parameters())


def test_another_models_state_is_refused():
    _, optimizer = start()
    other = MuonAdamW(GPT(GPTConfig(8, 61, 3, 4, 2, 16)).init_weights(0), CONFIG, World())
    for tensors, word in ((other.state_tensors(), "exp_avg"), ({}, "step")):
        with pytest.raises(UserError, match=word):
            optimizer.load_tensors(tensors)
