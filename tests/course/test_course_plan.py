"""Plans against what the reference published for its depth-20 run, and the arithmetic that must hold at any scale."""

import pytest

from nanochat.course import load
from nanochat.course.plan import Plan, duration, plan


@pytest.fixture
def d20(course_folder):
    """The reference's first speedrun: 8 × H100, 21,400 steps of 2¹⁹ tokens, device batch 32."""
    toy = load().scale("toy").model_dump()
    toy["name"] = "d20"
    toy["tokenizer"]["vocab_size"] = 65536
    toy["pretrain"] |= {"rows": 256, "device_rows": 32, "model": {"depth": 20, "sequence_len": 2048}}
    toy["pretrain"]["schedule"]["steps"] = 21400
    toy["machine"]["nproc"] = 8
    toy["hardware"] = {"name": "8 × H100", "peak_tflops": 989, "memory_gb": 80, "mfu": 0.48, "dollars_per_hour": 24}
    return Plan(type(load().scale("toy")).model_validate(toy))


def test_it_agrees_with_the_published_depth_20_run(d20):
    pretraining = d20.stages[0]
    assert d20.params == 560_988_160
    assert pretraining.tokens == pytest.approx(11.22e9, rel=1e-3)
    assert pretraining.flops == pytest.approx(3.918e19, rel=1e-3)
    assert pretraining.seconds / 3600 == pytest.approx(3.0, rel=0.1)
    assert pretraining.seconds / 3600 * 24 == pytest.approx(72, rel=0.1)
    assert d20.memory_gb == pytest.approx(79.1, rel=0.1)      # 75,423 MiB


def test_memory_beyond_the_device_is_said(d20):
    assert "more than its 40 GB" in Plan(d20.scale.model_copy(update={
        "hardware": d20.scale.hardware.model_copy(update={"memory_gb": 40})})).table()


def test_the_table_states_what_it_assumes(course_folder):
    text = plan("toy").table()
    assert "917,504" in text and "TFLOP/s peak a device" in text and "not counted" in text
    assert text.count("\n  pretrain ") == 1


def test_devices_share_optimizer_state_and_time(d20):
    one = Plan(d20.scale.model_copy(update={"machine": d20.scale.machine.model_copy(update={"nproc": 1})}))
    assert one.seconds == pytest.approx(8 * d20.seconds)
    assert one.memory_gb > d20.memory_gb


@pytest.mark.parametrize("seconds, said", [(41, "41 s"), (750, "12.5 min"), (11_000, "3.1 h")])
def test_durations(seconds, said):
    assert duration(seconds) == said
