"""One part of `make gpu-report QUICK=1`: what a GPU has to show first, on torch and transformers.

exactness     losses and gradients of the packed step against two plain sequences in fp64
steps         our step against TRL's and the authors', 64 pairs
mfu           model FLOPs utilisation of a PMP step
prefix        what sharing the prompt gains
checkpoints   writing beside the steps, and reading back, with torch.distributed.checkpoint
parity        ten times 256 long candidates through vLLM's engine, held against transformers;
              left blank where vLLM is not installed

Weights are arbitrary. Where TRL is not installed its semantics stand in: padded rows of chosen and
rejected through transformers' sequence classifier, the loss of its RewardTrainer. Results are
written as they come, to results/gpu/quick_PART.json. `--tiny` runs a small shape anywhere.

    python -m benchmarks.gpu_quick PART [--tiny] [--seconds 60]
"""

from __future__ import annotations

import asyncio
import copy
import gc
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks._plain_transformers import TrlSemantics, plain_copy
from benchmarks._results import gpu, options, series_result, write_results
from benchmarks._training import (
    QWEN2_1_5B,
    SMOLLM2_135M,
    TINY,
    OurStep,
    TrlStep,
    alternate,
    device,
    make_pairs,
    now_s,
    rate_result,
    ratio_result,
    single_process_group,
    step_config,
)
from codepmp_ray.preference.items import EncodedItem
from codepmp_ray.preference.packing import pack

Results = list[dict[str, Any]]


class Part:
    """What a part measures with: its shapes, when to end, and where results go."""

    def __init__(self, name: str, seconds: float, tiny: bool) -> None:
        self.name, self.tiny = f"quick_{name}", tiny
        self.end_s = now_s() + seconds
        self.results: Results = []

    @property
    def model(self) -> str:
        return "tiny" if self.tiny else "qwen2-1.5b"

    @property
    def num_pairs(self) -> int:
        return 4 if self.tiny else 64

    def shape(self) -> Any:
        from transformers import Qwen2Config

        return Qwen2Config(**(TINY if self.tiny else QWEN2_1_5B))

    def smaller_shape(self) -> Any:
        from transformers import LlamaConfig

        small = TINY | {"num_attention_heads": 6}
        return LlamaConfig(**(small if self.tiny else SMOLLM2_135M))

    def until_s(self, share: float) -> float:
        """The moment at which that share of the time left is over."""
        return now_s() + share * max(0.0, self.end_s - now_s())

    def note(self, *found: dict[str, Any]) -> None:
        self.results += found
        if self.tiny:
            print(*found, sep="\n", flush=True)
        else:
            write_results(self.name, self.results)


def exactness(part: Part) -> None:
    """Packed losses and gradients in fp32 on the device, held against plain ones in fp64."""
    from transformers import Gemma2Config, LlamaConfig, Qwen2Config

    shape = {
        "vocab_size": 997,
        "hidden_size": 192,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
    }
    windows = {"head_dim": 32, "sliding_window": 100, "query_pre_attn_scalar": 32}
    caps = {"attn_logit_softcapping": 20.0, "final_logit_softcapping": 15.0}
    shapes = {
        "qwen2-untied": Qwen2Config(**shape, tie_word_embeddings=False),
        "llama-tied": LlamaConfig(**shape, tie_word_embeddings=True),
        "gemma2-windows-and-caps": Gemma2Config(**shape, **windows, **caps),
    }
    pairs = _short_pairs(3 if part.tiny else 8)
    for name, config in shapes.items():
        loss, gradients = _distances(config, pairs)
        context = {"model": name, "precision": "fp32", "pairs": len(pairs)}
        part.note(
            series_result(
                "loss_off_plain_fp64", [loss], "relative", "at most 1e-5", digits=9, **context
            ),
            series_result(
                "gradients_off_plain_fp64", [gradients], "relative", "at most 1e-3", digits=7,
                **context,
            ),
        )  # fmt: skip
        if now_s() > part.end_s:
            return


def _short_pairs(number: int) -> list[EncodedItem]:
    return [
        EncodedItem.of_pair(
            pair.item_id,
            [1 + i % 996 for i in pair.prompt[:120]],
            [1 + i % 996 for i in pair.answers[0][:90]],
            [1 + i % 996 for i in pair.answers[1][:90]],
        )
        for pair in make_pairs(number)
    ]


def _distances(config: Any, pairs: list[EncodedItem]) -> tuple[float, float]:
    """How far the loss and all gradients of one packed PMP batch are from the plain ones."""
    from codepmp_ray.modeling.building import model_from_config
    from codepmp_ray.modeling.plain_reference import plain_sums
    from codepmp_ray.training.compiling import compile_blocks
    from codepmp_ray.training.step import objective_of

    torch.manual_seed(0)
    settings = step_config(objective="pmp")
    objective = objective_of(settings)
    counts = objective.counts(pairs)
    ours = model_from_config(copy.deepcopy(config), objective)
    plain = plain_copy(config, ours)
    head = ours.score.weight.detach().double()
    truth = objective.loss(plain_sums(plain, head, pairs, objective), counts)
    truth.backward()
    wanted = {name: parameter.grad for name, parameter in plain.base_model.named_parameters()}
    ours.to(device())
    compile_blocks(ours, settings, device())
    loss = objective.loss(ours(pack(pairs).to(device())), counts)
    loss.backward()
    found = {name: parameter.grad for name, parameter in ours.backbone.named_parameters()}
    gaps = (wanted[name] - found[name].double().cpu() for name in wanted)
    off = sum(float(gap.square().sum()) for gap in gaps) ** 0.5
    size = sum(float(gradient.square().sum()) for gradient in wanted.values()) ** 0.5
    return abs(float(loss) - float(truth)) / abs(float(truth)), off / size


def steps(part: Part) -> None:
    """One step of each way over the same pairs, in turn; TRL first."""
    from benchmarks.train_step_vs_authors import AuthorsStep

    pairs, shape = make_pairs(part.num_pairs), part.shape()
    ours = OurStep("pmp", bf16=True, shape=shape)
    context = {"model": part.model, "precision": "bf16", "pairs": len(pairs)}
    has_trl = find_spec("trl") is not None and find_spec("datasets") is not None
    with tempfile.TemporaryDirectory() as scratch:
        trl: Any = TrlStep(scratch, bf16=True, shape=shape) if has_trl else None
        trl = trl or TrlSemantics(bf16=True, shape=shape)
        name = "trl" if has_trl else "trl_semantics"
        times = _in_turn(part, 0.5, {name: trl, "ours": ours}, pairs)
        part.note(
            ratio_result(
                f"our_pmp_over_{name}_rm", times[name], times["ours"], "at least 2.0", **context
            ),
            rate_result("our_pmp_pairs_per_s", len(pairs), times["ours"], **context),
        )
    del trl
    _free()
    authors = AuthorsStep(bf16=True, shape=shape)
    times = _in_turn(part, 0.8, {"authors": authors, "ours": ours}, pairs)
    goal = "at least 2.5"
    part.note(
        ratio_result("our_pmp_over_authors_pmp", times["authors"], times["ours"], goal, **context)
    )


def _in_turn(
    part: Part, share: float, ways: dict[str, Callable[..., None]], pairs: list[EncodedItem]
) -> dict[str, list[float]]:
    runs = {name: lambda way=way: way(pairs) for name, way in ways.items()}
    return alternate(runs, 1 if part.tiny else 5, part.until_s(share))


def mfu(part: Part) -> None:
    """Compiled blocks with kept activations; then, if there is time, with recomputed ones."""
    from benchmarks.train_mfu import full_micro_batches, measure

    most = 2_048 if part.tiny else 16_384
    pairs = full_micro_batches(1 if part.tiny else 4, most)
    half_s = part.until_s(0.5)
    for recompute in (False, True):
        settings = {
            "torch_compile": None,
            "gradient_checkpointing": recompute,
            "max_tokens_per_micro_batch": most,
        }
        shape = TINY if part.tiny else QWEN2_1_5B
        part.note(*measure(shape, pairs, 1 if part.tiny else 5, settings))
        _free()
        if now_s() > half_s:
            return


def prefix(part: Part) -> None:
    """The gain at three shares of the prompt and of prompts with many answers, of L_RM alone."""
    from benchmarks.train_prefix_sharing import SHARES, measure_share
    from benchmarks.train_trees import SHAPES, measure_shape
    from codepmp_ray.modeling.building import model_from_config
    from codepmp_ray.training.step import objective_of

    with device():
        model = model_from_config(part.smaller_shape(), objective_of(step_config(objective="rm")))
    model.train()
    rounds, pairs, tokens = (1, 2, 500) if part.tiny else (5, 32, 32_000)
    ways = [partial(measure_share, model, share, pairs) for share in SHARES]
    ways += [partial(measure_shape, model, name, tokens) for name in SHAPES]
    for number, way in enumerate(ways):
        part.note(*way(rounds, part.until_s(1 / (len(ways) - number))))


def checkpoints(part: Part) -> None:
    """Synchronous writes, a restore, and windows of steps with and without a write beside them."""
    from benchmarks.checkpoint_overhead import Trainer

    pairs = make_pairs(2 if part.tiny else 32)
    num_steps = 1 if part.tiny else 12
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(Path(scratch), part.smaller_shape())
        context = {"model": "tiny" if part.tiny else "smollm2-135m", "steps": num_steps}
        trainer.window(pairs, num_steps, checkpoint=True)  # kernels, and the first layout
        writes = [trainer.write() for _ in range(2)]
        part.note(series_result("synchronous_write", writes, "s", **context))
        part.note(_restored(trainer, pairs, context))
        losses: list[float] = []
        until_s = part.until_s(0.7)
        while not losses or (len(losses) < 4 and now_s() < until_s):
            plain = trainer.window(pairs, num_steps, checkpoint=False)
            losses.append(trainer.window(pairs, num_steps, checkpoint=True) - plain)
        shares = [loss / min(writes) for loss in losses]
        goal = "at most 0.1"
        part.note(
            series_result("lost_over_synchronous", shares, "ratio", goal, **context),
            series_result("lost", losses, "s", **context),
        )


def _restored(trainer: Any, pairs: list[EncodedItem], context: dict[str, Any]) -> dict[str, Any]:
    """Whether a step more and a restore give the bits that were written."""
    model, optimizer = trainer.step.model, trainer.step.optimizer
    trainer.write()
    before = [p.detach().full_tensor().clone() for p in model.parameters()]
    trainer.step(pairs)
    start_s = now_s()
    trainer.blocking.restore(model, optimizer)
    took_s = now_s() - start_s
    after = [p.detach().full_tensor() for p in model.parameters()]
    same = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    result = series_result("restore", [took_s], "s", "the same bits", **context)
    return result | {"same_bits": same, "met": same}


def parity(part: Part) -> None:
    """Each row's score of the serving engine, as the service sets it, and of plain transformers.

    Scores of rows that an engine splits or pads wrongly are far off, not by rounding.
    """
    goal, context = "at most 0.25", {"candidates": 8 if part.tiny else 256, "precision": "bf16"}
    if find_spec("vllm") is None:
        print("vLLM is not installed: no parity of its scores.", flush=True)
        part.note(series_result("largest_difference_over_range", [], "ratio", goal, **context))
        return
    from transformers import AutoModelForSequenceClassification

    from codepmp_ray.cluster.vllm_scorer import VLLMScorer
    from codepmp_ray.config.evaluation import ServingConfig

    torch.manual_seed(0)
    shape = part.smaller_shape()
    shape.num_labels, shape.pad_token_id, shape.problem_type = 1, None, "regression"
    with tempfile.TemporaryDirectory() as folder:
        AutoModelForSequenceClassification.from_config(shape).bfloat16().save_pretrained(folder)
        plain = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.bfloat16)
        plain = plain.to(device()).eval()
        settings = ServingConfig(dtype="bfloat16", max_model_len=2048)
        scorer = VLLMScorer(folder, settings, num_gpus=float(torch.cuda.is_available()))
        found: list[float] = []
        loop = asyncio.new_event_loop()  # the engine's own, for all rounds
        while len(found) < 10 and (not found or now_s() < part.end_s):
            torch.manual_seed(len(found))
            prompt = torch.randint(1, shape.vocab_size, (200,)).tolist()
            lengths = torch.randint(300, 1500, (context["candidates"],)).tolist()
            rows = [torch.randint(1, shape.vocab_size, (n,)).tolist() for n in lengths]
            rewards = loop.run_until_complete(scorer.score_ids(prompt, rows)).rewards
            with torch.inference_mode():
                expected = [
                    plain(torch.tensor([prompt + row], device=device())).logits.item()
                    for row in rows
                ]
            spread = max(expected) - min(expected)
            gaps = [abs(a - b) for a, b in zip(expected, map(float, rewards), strict=True)]
            found.append(max(gaps) / spread)
        scorer.shutdown()
    part.note(series_result("largest_difference_over_range", found, "ratio", goal, **context))


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


PARTS: dict[str, Callable[[Part], None]] = {
    function.__name__: function for function in (exactness, steps, mfu, prefix, checkpoints, parity)
}


def main() -> None:
    parser = options(__doc__, tiny=False, seconds=(60.0, "no new round after that"))
    parser.add_argument("part", choices=PARTS)
    arguments = parser.parse_args()
    if not gpu() and not arguments.tiny:
        raise SystemExit("These shapes need a GPU; --tiny runs small ones here.")
    with single_process_group():
        PARTS[arguments.part](Part(arguments.part, arguments.seconds, arguments.tiny))


if __name__ == "__main__":
    main()
