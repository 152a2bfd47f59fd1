"""With several ranks each block is compiled by itself, so that its gradients are there before those of the blocks below."""

import torch

from nanochat.model import GPT, GPTConfig
from nanochat.train.loop import compiled


def test_blocks_compiled_one_by_one_give_the_gradients_early_and_the_same():
    model = GPT(GPTConfig.from_depth(2, 64, 16, n_embd=32, head_dim=16)).init_weights(seed=0)
    with torch.no_grad():
        for p in model.parameters():  # zero-initialised output matrices would hide most gradients
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    idx = torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(2))
    model(idx[:, :-1], idx[:, 1:]).backward()
    plain = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad()

    events = []
    for name, p in model.named_parameters():
        p.register_post_accumulate_grad_hook(lambda _, name=name: events.append(name))
    forward = compiled(model, ranks=2)
    forward.blocks[0].register_forward_hook(
        lambda block, x, y: y.register_hook(lambda _: events.append("block 0 begins")) and None
    )
    forward(idx[:, :-1], idx[:, 1:]).backward()

    before = events[: events.index("block 0 begins")]
    assert set(before) == {name for name in plain if name.startswith("blocks.1.") or name == "lm_head.weight"}
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, plain[name], rtol=1e-4, atol=1e-7)
