"""The recurrent baseline: what it carries from byte to byte, how it is sampled, how big it is."""

import pytest
import torch

from nanochat.model.char_rnn import BOS, CharRNN
from nanochat.runtime import UserError


def small(kind="lstm", seed=0, **more) -> CharRNN:
    return CharRNN(n_embd=12, n_layer=2, kind=kind, **more).init_weights(seed)


def ids(B=2, T=10, seed=0):
    return torch.randint(0, 257, (B, T), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_reading_in_pieces_with_the_state_equals_reading_at_once(kind):
    model, idx = small(kind), ids()
    want, end = model(idx)
    assert want.shape == (2, 10, 257)
    got, state = [], None
    for piece in idx.split([3, 1, 6], dim=1):
        logits, state = model(piece, state)
        got.append(logits)
    torch.testing.assert_close(torch.cat(got, 1), want)
    torch.testing.assert_close(state, end)
    without, _ = model(idx[:, 3:])
    assert not torch.allclose(without, want[:, 3:], atol=1e-4)


def test_an_lstm_step_is_the_published_cell():
    model = CharRNN(n_embd=6, n_layer=1).init_weights(3)
    w, x = dict(model.rnn.named_parameters()), model.embedding(ids(1, 4))[0]
    h, c, rows = torch.zeros(6), torch.zeros(6), []
    for t in range(4):
        gates = w["weight_ih_l0"] @ x[t] + w["bias_ih_l0"] + w["weight_hh_l0"] @ h + w["bias_hh_l0"]
        i, f, g, o = gates.chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        rows.append(model.embedding.weight @ h)  # the head is the embedding
    torch.testing.assert_close(model(ids(1, 4))[0][0], torch.stack(rows))


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_temperature_zero_takes_the_likeliest_byte_each_time(kind):
    model = small(kind)
    with torch.no_grad():
        model.head.weight[BOS].zero_()
    text, want = b"ab", b""
    for _ in range(8):
        logits, _ = model(torch.tensor([[BOS, *text, *want]]))
        want += bytes([int(logits[0, -1].argmax())])
    assert model.generate(text, 8, temperature=0) == want


def test_sampling_follows_the_models_distribution_and_the_seed():
    model = small()
    with torch.no_grad():
        model.head.weight.mul_(20)
    first = model(torch.tensor([[BOS]]))[0][0, -1]
    for temperature in (0.7, 1.5):
        drawn = [model.generate(b"", 1, temperature, seed=s) for s in range(400)]
        p = (first / temperature).softmax(-1)
        top = int(p[:BOS].argmax())
        assert drawn.count(bytes([top])) / 400 == pytest.approx(p[top].item(), abs=0.08)
    assert model.generate(b"x", 20, 1.0, seed=4) == model.generate(b"x", 20, 1.0, seed=4)
    assert model.generate(b"x", 20, 1.0, seed=4) != model.generate(b"x", 20, 1.0, seed=5)


def test_generation_stops_where_the_document_ends():
    model = small(n_hidden=20)  # not tied: the head can be set alone
    assert model.generate(b"", 50, temperature=0) != b""
    after_bos = model.rnn(model.embedding(torch.tensor([[BOS]])))[0][0, -1].detach()
    with torch.no_grad():
        model.head.weight[BOS] = 1e3 * after_bos
    assert model.generate(b"", 50, temperature=0) == b""


@pytest.mark.parametrize("vocab, kind, size", [(257, "lstm", 863_968), (512, "lstm", 921_088), (257, "gru", 662_368)])
def test_sizes(vocab, kind, size):
    assert CharRNN(vocab, 224, 2, kind).num_params() == size


def test_a_head_of_another_width_is_its_own_matrix():
    model = small(n_hidden=20)
    assert model(ids())[0].shape == (2, 10, 257) and model.head.weight.shape == (257, 20)


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    a = small(seed=3).state_dict()
    torch.manual_seed(2)
    torch.testing.assert_close(a, small(seed=3).state_dict(), atol=0, rtol=0)
    assert not torch.equal(a["embedding.weight"], small(seed=4).state_dict()["embedding.weight"])


def test_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match="transformer"):
        CharRNN(kind="transformer")
