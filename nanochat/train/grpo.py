"""Group-relative policy optimisation: the chat model samples answers, right ones are made likelier → runs/<name>/rl.

One step: take `prompts` questions, draw `samples` answers to each at temperature 1, reward the right ones with 1. An
answer's advantage is its reward minus the mean of its group, so a question that is always right or always wrong teaches
nothing. The loss is −advantage · log-probability of every token the model chose itself, divided by the number of such
tokens in the whole batch. In the same step a batch of SFT data is learned with weight `replay_weight`: without it the
model forgets what the task does not ask for.

After Shao et al. 2024 (DeepSeekMath), reduced to what one gradient step on fresh samples needs: no ratio, no clip, no
division by the group's standard deviation, no KL term. Tokens are weighted alike (Yu et al. 2025, DAPO).
"""

import math

import numpy as np
import torch
from torch import Tensor

from nanochat.data import Loader, chat_loader
from nanochat.engine import Completion, Engine
from nanochat.evals import evaluate_task
from nanochat.model import GPT
from nanochat.runtime import Run, UserError, World, say
from nanochat.tasks import Task, load_task
from nanochat.tokenizer import Tokenizer
from nanochat.train import checkpoint
from nanochat.train.chat_stage import mixture
from nanochat.train.config import GRPOConfig, MachineConfig
from nanochat.train.garbage import Garbage
from nanochat.train.loop import flags, prepare
from nanochat.train.optim import MuonAdamW
from nanochat.train.progress import Clock, Live, Progress
from nanochat.train.saver import Saver
from nanochat.train.schedule import decay_scale, lr_scale, momentum
from nanochat.train.signals import Stop
from nanochat.train.stage import Stage, stage_folder
from nanochat.train.watch import Watch

ROWS = 64                        # sampled rows put through the model at once, where the configuration does not say
FIRST, LAST = 2**40, 2**40 + 1   # seeds of the evaluations; those of the steps are their numbers


def grpo(run: Run, config: GRPOConfig, machine: MachineConfig, world: World, live: Live | None = None) -> dict:
    """Improve the SFT model on a task with checkable answers; returns the headline numbers.

    reward_first, reward_last: mean reward of samples for fixed training prompts before and after. Two controls under
    the dice of reward_last: reward_zero_lr (the same steps with learning rate 0) and reward_more_sft (as many core
    seconds of further SFT on the replayed data). heldout_before, heldout_after: greedy accuracy on the test split.
    """
    if config.prompts % world.size:
        raise UserError(f"grpo: {config.prompts} prompts a step do not divide over {world.size} processes; change one")
    model, tokenizer, meta = checkpoint.load_model(run, "sft")
    with stage_folder(run, "rl", config, {"tokenizer": tokenizer.digest, "sft": meta["digest"]}, world) as stage:
        if stage.result is None:
            result = improve(run, stage, config, machine, world, model, tokenizer, live)
            if world.main:
                stage.finish(result)
            return result
        return stage.result


def improve(run: Run, stage: Stage, config: GRPOConfig, machine: MachineConfig, world: World, model: GPT,
            tokenizer: Tokenizer, live: Live | None) -> dict:
    """The stage itself: measure, train (resuming from the newest checkpoint), measure again, run the control."""
    schedule = config.schedule
    task = load_task(config.task, "train", world_folder=run / "data")
    items = answerable(task, tokenizer, model.config.sequence_len - config.max_tokens)
    replay = replay_loader(run, config, tokenizer, model, world) if config.replay_weight and config.mixture else None
    belongs = {"config": stage.digest, "tokenizer": tokenizer.digest}
    start, state = 0, {}
    path = checkpoint.latest(stage.folder, **belongs)
    if path is not None:
        weights, optim_state, data, state = checkpoint.load(path)
        model.load_state_dict(weights)
        start = state["step"]
        if world.rank < len(state["rng"]):
            checkpoint.restore_random_state(state["rng"][world.rank])
        say(f"rl: resuming at step {start} of {schedule.steps}")
    world.agree({**belongs, "task": task.name, **(replay.same if replay else {}), "first step": start})
    prepare(model, machine, world, state.get("dtype"))
    optimizer = MuonAdamW(model, config.optim, world)
    if path is not None:
        optimizer.load_tensors(optim_state)
        if replay:
            replay.load(data)
    engine = Engine(model, tokenizer)

    def measure(engine: Engine, seed: int) -> float:
        return sampled_reward(engine, task, items, config, world, run.seed, seed)

    def heldout(engine: Engine) -> float:
        test = load_task(config.task, "test", world_folder=run / "data")
        return evaluate_task(engine, test, max_items=config.heldout_items)["accuracy"]

    # Steps with learning rate 0 leave every weight as it is: that control is the model before, under the dice of after.
    before = state.get("before") or {"reward_first": measure(engine, FIRST), "reward_zero_lr": measure(engine, LAST),
                                     "heldout_before": heldout(engine)}
    clock = Clock(state.get("core_s", 0.0), state.get("wall_s", 0.0))
    sft_clock = Clock(state.get("sft_core_s", 0.0), 0.0)       # of that, what a step of plain SFT would have cost
    watch = Watch(run, "rl", world)
    with (Stop() as stop, Garbage() as garbage,
          Progress(run, "rl", schedule.steps, world, machine.tracker, live) as progress,
          Saver(stage.folder, world, keep=config.keep, belongs=belongs, last=start) as saver):
        for step in range(start, schedule.steps):
            with clock:
                asked = prompts_of_step(step, config.prompts, len(items), run.seed)
                chosen = [items[i] for i in asked[world.rank :: world.size]]
                prompts, groups, rewards = rollout(engine, task, chosen, config, run.seed, step)
                loss = policy_backward(model, *policy_rows(prompts, groups, tokenizer.bos), advantages(rewards), world,
                                       config.device_rows or ROWS)
                replay_loss = 0.0
                with sft_clock:
                    if replay:
                        replay_loss = float(
                            sft_backward(model, replay, config.replay_weight, world, config.device_rows))
                    grad_norm = math.nan                   # a loss that is not finite: no update, on no rank
                    if math.isfinite(loss + replay_loss):
                        grad_norm = optimize(optimizer, step, schedule.steps, config)
                    optimizer.zero_grad()
                engine.refresh(model)
                row = {"step": step + 1, "loss": loss, "replay_loss": replay_loss, **summary(rewards, groups, world),
                       "grad_norm": grad_norm, "core_s": clock.core_s}
                stopping, written = world.sum(torch.stack(flags(stop.asked, saver.written, world))).tolist()
            done = step + 1
            watch(done, loss + replay_loss, grad_norm, [chosen, replay.keys if replay else []])
            if math.isfinite(grad_norm):
                progress(row, logged=done % config.log_every == 0 or done == schedule.steps)
            if done == start + 1 or done % config.save_every == 0:
                garbage.collect()
            if written == world.size:
                saver.finish()
            if done % config.save_every == 0 or done == schedule.steps or stopping:
                state = {"schema": checkpoint.SCHEMA, "tokenizer": tokenizer.digest, "before": before,
                         "dtype": str(model.compute_dtype).removeprefix("torch."),
                         "core_s": clock.core_s, "wall_s": clock.wall_s, "sft_core_s": sft_clock.core_s}
                saver.start(done, model=model, optim=optimizer.state_tensors(), data=replay.state() if replay else {},
                            state=state)
            if stopping:
                stop.leave(saver.stopped(done, schedule.steps))
    saver.require(schedule.steps)
    result = {**before, "reward_last": measure(engine, LAST), "heldout_after": heldout(engine),
              "core_s": state["core_s"], "wall_s": state["wall_s"]}
    if replay:
        steps = world.gather(round(schedule.steps * state["core_s"] / max(state["sft_core_s"], 1e-9)))[0]
        control = more_sft(run, config, machine, world, state["dtype"], steps)
        result |= {"reward_more_sft": measure(Engine(control, tokenizer), LAST), "more_sft_steps": steps}
    return result


# --- one step ---------------------------------------------------------------------------------------------------------


def answerable(task: Task, tokenizer: Tokenizer, room: int) -> list[int]:
    """The items whose prompt has at most `room` tokens, so that the longest answer still fits the context."""
    items = [i for i in range(len(task)) if len(tokenizer.render_for_completion(task.prompt(i))) <= room]
    if not items:
        raise UserError(f"grpo: no prompt of {task.name} leaves room for an answer in this model's context; "
                        "lower max_tokens or train with a longer sequence_len")
    return items


def prompts_of_step(step: int, prompts: int, n: int, seed: int) -> list[int]:
    """Which of n items step number `step` asks: a seeded order, shuffled anew every epoch."""
    chosen, orders = [], {}
    for place in range(step * prompts, (step + 1) * prompts):
        epoch, i = divmod(place, n)
        if epoch not in orders:
            orders[epoch] = np.random.default_rng([seed, epoch]).permutation(n)
        chosen.append(int(orders[epoch][i]))
    return chosen


def rollout(engine: Engine, task: Task, chosen: list[int], config: GRPOConfig, seed: int, step: int,
            samples: int | None = None) -> tuple[list[list[int]], list[list[Completion]], Tensor]:
    """Sample and judge answers to these items. -> (P prompts, P groups of S answers, rewards (P, S)).

    An answer that did not end by itself gets nothing. What is sampled follows from (seed, step) and the item alone.
    """
    samples = samples or config.samples
    prompts = [engine.tokenizer.render_for_completion(task.prompt(i)) for i in chosen]
    groups = engine.generate(prompts, num_samples=samples, max_tokens=config.max_tokens, temperature=config.temperature,
                             top_k=config.top_k, seed=(seed << 48) + step)
    rewards = [[task.reward(task[i], answer) if answer.finish_reason == "stop" else 0.0 for answer in group]
               for i, group in zip(chosen, groups)]
    return prompts, groups, torch.tensor(rewards, dtype=torch.float32).view(len(chosen), samples)


def advantages(rewards: Tensor) -> Tensor:
    """How much better than its group each answer did: rewards (P, S) -> (P, S), every row with mean zero."""
    return rewards - rewards.mean(dim=1, keepdim=True)


def policy_rows(prompts: list[list[int]], groups: list[list[Completion]], pad: int) -> tuple[Tensor, Tensor]:
    """Prompts with their answers as training rows: (inputs, targets), each (P·S, T), padded on the right.

    Targets are −1, not counted, for the prompt, for tokens that a tool forced and for padding. The token that ended the
    answer counts: when to stop is learned too.
    """
    rows = [(prompt + answer.ids, [0] * len(prompt) + answer.mask)
            for prompt, group in zip(prompts, groups) for answer in group]
    T = max((len(ids) for ids, _ in rows), default=1) - 1
    inputs, targets = np.full((len(rows), T), pad), np.full((len(rows), T), -1)
    for i, (ids, mask) in enumerate(rows):
        inputs[i, : len(ids) - 1] = ids[:-1]
        targets[i, : len(ids) - 1] = np.where(mask[1:], ids[1:], -1)
    return torch.from_numpy(inputs), torch.from_numpy(targets)


def policy_loss(nll: Tensor, advantages: Tensor, tokens: int) -> Tensor:
    """−Σ advantage · log p / tokens; nll (B, T) is −log p of the chosen tokens, else 0; advantages (B,)."""
    return (nll * advantages[:, None]).sum() / tokens


def policy_backward(model: GPT, inputs: Tensor, targets: Tensor, advantages: Tensor, world: World,
                    at_once: int) -> float:
    """Add the policy gradient of these rows to the gradients; -> the loss over all ranks.

    Rows with advantage zero have no gradient, so they are left out of the pass (though their tokens are counted). The
    others go through by length, `at_once` together.
    """
    counted = targets >= 0                                                          # (N, T)
    tokens = int(world.sum(counted.sum().to(world.device)))
    advantages = advantages.flatten()                                               # (N,)
    ends = (counted * torch.arange(1, counted.size(1) + 1)).amax(dim=1)             # (N,) up to each row's last target
    rows = [i for i in ends.argsort(stable=True).tolist() if advantages[i] != 0 and ends[i] > 0]
    total = torch.zeros((), device=world.device)
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        T = int(ends[part].max())
        nll = model(inputs[part, :T].to(world.device), targets[part, :T].to(world.device), reduction="none")   # (B, T)
        loss = policy_loss(nll, advantages[part].to(world.device), tokens)
        loss.backward()
        total += loss.detach()
    return float(world.sum(total))


def sft_backward(model: GPT, loader: Loader, weight: float, world: World, at_once: int | None = None) -> Tensor:
    """Add `weight` times the gradient of the next SFT batch; -> its loss over all ranks, not weighted."""
    inputs, targets = (torch.from_numpy(a).to(world.device) for a in loader.next())
    tokens = max(int(world.sum((targets >= 0).sum())), 1)
    total = torch.zeros((), device=world.device)
    for i in range(0, len(inputs), at_once or len(inputs)):
        part = slice(i, i + (at_once or len(inputs)))
        loss = model(inputs[part], targets[part], reduction="sum") / tokens
        (weight * loss).backward()
        total += loss.detach()
    return world.sum(total)


def optimize(optimizer: MuonAdamW, step: int, steps: int, config: GRPOConfig) -> float:
    """One optimizer step; -> the norm of the gradient, zero where nothing was learned (no replay, all groups of one
    mind). See `MuonAdamW.step` for one that is not finite."""
    s = config.schedule
    scale = s.scale * lr_scale(step, steps, s.warmup, s.flat, s.final)
    norm = optimizer.step(lr_scale=scale, momentum=momentum(step, steps, config.optim, s),
                          decay_scale=decay_scale(step, steps))
    optimizer.zero_grad()
    return norm


def summary(rewards: Tensor, groups: list[list[Completion]], world: World) -> dict:
    """What a step's samples looked like, over all ranks: mean reward, tokens an answer, share of answers that called a
    tool, share of groups that taught something (neither all right nor all wrong)."""
    answers = [answer for group in groups for answer in group]
    sums = [float(rewards.sum()), sum(len(a.ids) for a in answers), sum(0 in a.mask for a in answers), len(answers),
            int((rewards.std(dim=1, correction=0) > 0).sum()), len(groups)]
    reward, tokens, tools, n, mixed, all_groups = (sum(column) for column in zip(*world.gather(sums)))
    return {"reward": reward / n, "tokens": tokens / n, "tool_rate": tools / n, "mixed_groups": mixed / all_groups}


# --- measuring --------------------------------------------------------------------------------------------------------


def sampled_reward(engine: Engine, task: Task, items: list[int], config: GRPOConfig, world: World, seed: int,
                   dice: int) -> float:
    """Mean reward of `eval_samples` answers to each of `eval_prompts` training items, the same ones every time."""
    n = min(config.eval_prompts, len(items))
    fixed = [items[i * len(items) // n] for i in range(n)][world.rank :: world.size]       # spread over the task
    _, _, rewards = rollout(engine, task, fixed, config, seed, dice, config.eval_samples)
    return sum(world.gather(float(rewards.sum()))) / (n * config.eval_samples)


def replay_loader(run: Run, config: GRPOConfig, tokenizer: Tokenizer, model: GPT, world: World) -> Loader:
    """Packed rows of the SFT mixture, in another order than SFT itself saw them."""
    items = mixture(config.mixture, run, "train", run.seed + 1_000_000)
    return chat_loader(items, tokenizer, rows=config.replay_rows, sequence_len=model.config.sequence_len,
                       streams=config.streams, rank=world.rank, world=world.size)


def more_sft(run: Run, config: GRPOConfig, machine: MachineConfig, world: World, dtype: str, steps: int) -> GPT:
    """The control: the SFT model after `steps` more steps on the replayed data; the same optimizer and schedule."""
    model, tokenizer, _ = checkpoint.load_model(run, "sft")
    prepare(model, machine, world, dtype)
    optimizer, loader = MuonAdamW(model, config.optim, world), replay_loader(run, config, tokenizer, model, world)
    say(f"rl: control, {steps} more steps of SFT in the same core seconds")
    for step in range(steps):
        sft_backward(model, loader, 1.0, world, config.device_rows)
        optimize(optimizer, step, steps, config)
    return model
