"""The LM loss in chunks, and what is compiled of it and of the blocks."""

import pytest
import torch

from codepmp_ray.config.training import TrainingConfig
from codepmp_ray.errors import ConfigError
from codepmp_ray.modeling.lm_loss import (
    _compiled_loss_and_slope,
    _loss_and_slope,
    lm_loss_sum,
    token_log_likelihoods,
)
from codepmp_ray.modeling.objectives import make_objective
from codepmp_ray.preference.packing import pack
from codepmp_ray.training.compiling import compile_blocks
from tests.packed_models import ExactNorm, distance, make_models, make_pairs

RM, PMP = make_objective("rm"), make_objective("pmp")


@pytest.mark.parametrize("soft_cap", [None, 2.0])
@pytest.mark.parametrize("method", ["sum", "tokens"])
def test_chunked_lm_loss_equals_the_whole(method, soft_cap) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(23, 16, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(31, 16, dtype=torch.float64, requires_grad=True)
    arguments = (hidden, weight, targets := torch.randint(31, (23,)))
    if method == "sum":
        chunked = lm_loss_sum(*arguments, soft_cap=soft_cap, chunk_size=5)
    else:
        tokens, mean_logits = token_log_likelihoods(*arguments, soft_cap=soft_cap, chunk_size=5)
        chunked = -tokens.sum()
    logits = hidden @ weight.T
    logits = logits if soft_cap is None else soft_cap * torch.tanh(logits / soft_cap)
    whole = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    assert torch.allclose(chunked, whole, rtol=1e-12)
    if method == "tokens":
        assert torch.allclose(mean_logits, logits.mean(dim=1), rtol=1e-12)
        assert not mean_logits.requires_grad
    ours = torch.autograd.grad(chunked / 7, [hidden, weight])
    theirs = torch.autograd.grad(whole / 7, [hidden, weight])
    assert all(torch.allclose(a, b, rtol=1e-10) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("method", ["sum", "tokens"])
def test_chunks_cost_bf16_little_of_its_precision(method: str) -> None:
    """The head's gradient is added up in fp32 over chunks, 128 of them here."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(4096, 64).bfloat16(), (torch.randn(499, 64) / 10).bfloat16()
    targets = torch.randint(499, (4096,))

    def gradients(dtype: torch.dtype, chunk_size: int) -> list[torch.Tensor]:
        inputs = [tensor.to(dtype).requires_grad_() for tensor in (hidden, weight)]
        if method == "sum":
            loss = lm_loss_sum(*inputs, targets, chunk_size=chunk_size)
        else:
            loss = -token_log_likelihoods(*inputs, targets, chunk_size=chunk_size)[0].sum()
        return list(torch.autograd.grad(loss, inputs))

    truth = gradients(torch.float64, 4096)
    whole, chunked = (
        [distance(*both) for both in zip(gradients(torch.bfloat16, size), truth, strict=True)]
        for size in (4096, 32)
    )
    assert chunked[0] == pytest.approx(whole[0], rel=0.02)
    # One rounding of each product more than in one chunk, however many there are: 0.0137 in bf16.
    assert chunked[1] < 1.5 * whole[1] < 0.0035


@pytest.mark.slow
@pytest.mark.skipif(" " in torch.__file__, reason="torch does not quote its own folder to g++")
def test_what_gpus_compile_of_the_lm_loss_equals_what_runs_here() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(7, 31).bfloat16(), torch.randint(31, (7, 1))
    here = _loss_and_slope(logits, targets, None)
    compiled = _compiled_loss_and_slope()(logits, targets, None)
    assert all(
        torch.allclose(*both, rtol=1e-2, atol=1e-3) for both in zip(here, compiled, strict=True)
    )
    assert compiled[1].dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.skipif(" " in torch.__file__, reason="torch does not quote its own folder to g++")
def test_compiled_blocks_equal_plain_ones_at_every_length() -> None:
    results = []
    for torch_compile in (False, True):
        _, model = make_models("qwen2-untied", PMP)
        for norm in [m for m in model.modules() if isinstance(m, ExactNorm)]:
            assert norm.weight.dtype == torch.float64
        config = TrainingConfig(torch_compile=torch_compile)
        names = list(dict(model.named_parameters()))
        compile_blocks(model, config, torch.device("cpu"))
        assert list(dict(model.named_parameters())) == names
        for pairs in (make_pairs(), make_pairs()[1:3], make_pairs()[2:]):
            out = model(pack(pairs))
            (out["rm"] + out["lm"]).backward()
        gradients = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        results.append((float(out["rm"]), gradients))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-12)
    assert distance(results[1][1], results[0][1]) < 1e-12


def test_compiling_on_cpu_in_a_folder_with_a_space_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch, "__file__", "/a folder/torch/__init__.py")
    _, model = make_models("llama-tied", RM)
    with pytest.raises(ConfigError, match="a folder with a space"):
        compile_blocks(model, TrainingConfig(torch_compile=True), torch.device("cpu"))
    compile_blocks(model, TrainingConfig(), torch.device("cpu"))
