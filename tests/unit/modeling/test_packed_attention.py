"""Kernels of packed attention and their block masks against the dense blocks."""

import pytest
import torch

from codepmp_ray.modeling.attention_blocks import AttentionRule, attend_in_blocks
from codepmp_ray.modeling.attention_cpu import attend_fused
from codepmp_ray.modeling.attention_flex import attend_with_flex
from codepmp_ray.modeling.block_mask import block_mask, may_attend, visible_blocks
from codepmp_ray.preference.items import EncodedItem, join_pairs
from codepmp_ray.preference.packing import PackedLayout, pack
from tests.packed_models import WINDOW, distance, make_items


@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("soft_cap", [None, 2.0])
@pytest.mark.parametrize("sides", ["best", "best_alone"])
def test_the_kernel_for_gpus_equals_the_blocks(window, soft_cap, sides) -> None:
    """FlexAttention runs forward on CPU: the same mask function and scores as on a GPU."""
    torch.manual_seed(0)
    batch = pack(make_items(), sides=sides)
    layout = PackedLayout(batch.spans, batch.position_ids)
    num_tokens = batch.input_ids.shape[1]
    query = torch.randn(1, 4, num_tokens, 16)
    key, value = torch.randn(2, 1, 2, num_tokens, 16).unbind(0)
    arguments = (query, key, value, layout, AttentionRule(0.3, 0.0, window, soft_cap))
    assert torch.allclose(attend_with_flex(*arguments), attend_in_blocks(*arguments), atol=1e-5)


@pytest.mark.parametrize("size", [4, 16])
@pytest.mark.parametrize("window", [None, WINDOW, 2 * WINDOW])
@pytest.mark.parametrize("sides", ["best", "best_alone"])
def test_block_masks_say_what_the_rule_says_of_their_tokens(sides, window, size) -> None:
    """Nothing that is seen is left out, and what counts as seen by all is."""
    batch = pack(
        [*make_items(), EncodedItem.of_pair("long", [1] * 19, [2] * 70, [3] * 41)], sides=sides
    )
    layout = PackedLayout(batch.spans, batch.position_ids)
    num_tokens = batch.input_ids.shape[1]
    place = torch.arange(num_tokens)
    seen = may_attend(layout, window)(place, place, place[:, None], place[None, :])
    num_blocks = -(-num_tokens // size)
    padded = torch.zeros(num_blocks * size, num_blocks * size, dtype=torch.bool)
    padded[:num_tokens, :num_tokens] = seen
    by_block = padded.view(num_blocks, size, num_blocks, size).transpose(1, 2).flatten(2)
    some, whole = visible_blocks(batch.spans, num_tokens, window, size)
    assert (by_block.any(-1) <= some).all()
    assert (whole <= by_block.all(-1)).all()
    if window is None:
        assert some.equal(by_block.any(-1))
        assert whole.any()
    else:
        assert some.sum() < visible_blocks(batch.spans, num_tokens, None, size)[0].sum()


def test_a_block_mask_has_the_blocks_in_torchs_own_form() -> None:
    from torch.nn.attention.flex_attention import create_block_mask

    pairs = [
        EncodedItem.of_pair(str(i), [1] * 90, [2] * (40 + 90 * i), [3] * 333) for i in range(4)
    ]
    batch = pack([*pairs, join_pairs(pairs)])
    layout = PackedLayout(batch.spans, batch.position_ids)
    num_tokens = batch.input_ids.shape[1]
    rule = may_attend(layout, None)
    theirs = create_block_mask(rule, None, None, num_tokens, num_tokens, "cpu")
    ours = block_mask(layout, None)
    assert ours.to_dense().equal(theirs.to_dense())
    assert ours.seq_lengths == theirs.seq_lengths and ours.shape == theirs.shape


@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("sides", ["best", "best_alone"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_one_step_of_autograd_equals_the_blocks_that_autograd_sees(window, sides, dtype) -> None:
    """In bf16 the fused backward pass is the nearer one to the truth."""
    torch.manual_seed(0)
    batch = pack(make_items(), sides=sides)
    layout = PackedLayout(batch.spans, batch.position_ids)
    num_tokens = batch.input_ids.shape[1]
    rule = AttentionRule(0.3, 0.0, window, None)
    # As a backbone hands them over: [T, heads, d] in memory.
    given = [torch.randn(1, num_tokens, heads, 16).bfloat16() for heads in (4, 2, 2, 4)]

    def run(attend, dtype: torch.dtype) -> list[torch.Tensor]:
        *inputs, gradient = [tensor.to(dtype).transpose(1, 2) for tensor in given]
        inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        output = attend(*inputs, layout, rule)
        assert output.shape == inputs[0].shape and output.dtype == dtype
        return [output.detach(), *torch.autograd.grad(output, inputs, gradient)]

    truth = run(attend_in_blocks, torch.float64)
    fused = [distance(*both) for both in zip(run(attend_fused, dtype), truth, strict=True)]
    if dtype == torch.bfloat16:
        plain = [distance(*both) for both in zip(run(attend_in_blocks, dtype), truth, strict=True)]
        assert sum(fused) < sum(plain)
        assert max(fused) < 3e-3
    else:
        assert max(fused) < (1e-14 if dtype == torch.float64 else 1e-6)
