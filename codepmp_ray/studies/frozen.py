"""Rewards from a frozen model: its last hidden state of each answer, and logistic heads on that.

What pretraining changed in the features is seen without the noise of finetuning: heads of many
draws of a few pairs are fitted on the same features, and each is one look at what a few pairs say.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from codepmp_ray.evaluation.style_rule import ridge_logistic
from codepmp_ray.preference.sources.rows import Row
from codepmp_ray.resampling import Floats
from codepmp_ray.storage import LocalStore

_MAX_BATCH_TOKENS = 4096
_SIDES = ("chosen", "rejected")


def gap_features(
    store: LocalStore, key: str, weights: str, encoder: Any, rows: Sequence[Row], bf16: bool
) -> Floats:
    """[pairs, hidden]: the last hidden state of chosen less that of rejected, without any head.

    Args:
        key: of the model; what was computed before is read back from `store`.
        weights: a folder or name of weights; a reward head in it is not used.
    """
    texts = [(row["messages"] or row["prompt"], row[side]) for side in _SIDES for row in rows]
    told = json.dumps([key, bf16, texts], ensure_ascii=False)
    name = f"features/{key}-{hashlib.sha256(told.encode()).hexdigest()[:16]}.npy"
    if store.exists(name):
        return np.load(io.BytesIO(store.read_bytes(name)), allow_pickle=False)
    rendered = [(encoder.render(prompt), [text]) for prompt, text in texts]
    ids = [s for encoded in encoder.encode_rendered(rendered) for s in encoded.sequences]
    states = _last_states(weights, ids, bf16)
    found = states[: len(rows)] - states[len(rows) :]
    buffer = io.BytesIO()
    np.save(buffer, found, allow_pickle=False)
    store.put(name, buffer.getvalue())
    return found


def _last_states(weights: str, rows: list[list[int]], bf16: bool) -> Floats:
    """[rows, hidden] in float32, of the last token of each row."""
    import torch
    from transformers import AutoModel

    from codepmp_ray.modeling.sources import resolve_model

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if bf16 else torch.float32
    model: Any = AutoModel.from_pretrained(resolve_model(weights), dtype=dtype).to(device).eval()
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found: dict[int, Any] = {}
    while order:
        width = len(rows[order[-1]])
        num = max(1, _MAX_BATCH_TOKENS // width)
        batch, order = order[-num:], order[:-num]
        # Padded on the right with any id: no token sees what comes after it.
        ids = torch.tensor([rows[i] + [0] * (width - len(rows[i])) for i in batch], device=device)
        ends = torch.tensor([len(rows[i]) for i in batch], device=device)
        mask = torch.arange(width, device=device)[None, :] < ends[:, None]
        with torch.inference_mode():
            states = model(input_ids=ids, attention_mask=mask.long(), use_cache=False)
        last = states.last_hidden_state[torch.arange(len(batch), device=device), ends - 1]
        found |= dict(zip(batch, last.float().cpu().numpy(), strict=True))
    return np.array([found[i] for i in range(len(rows))], float)


def head_shares(
    train: Floats, test: Floats, sizes: Sequence[int], num_draws: int, seed: int
) -> dict[int, Floats]:
    """By size: of each test pair the share of `num_draws` heads that order it right, ties half.

    Each head is fitted on `size` of the training pairs, drawn by `seed`: models of one seed get the
    same draws. `train` and `test` are `gap_features`. Sizes above the training pairs are refused.
    """
    if max(sizes) > len(train):
        raise ValueError(f"a head on {max(sizes)} pairs of {len(train)}")
    generator = np.random.default_rng(seed)
    scale = train.std(axis=0) + 1e-9
    train, test = train / scale, test / scale
    found = {}
    for size in sizes:
        right = np.zeros(len(test))
        for _ in range(num_draws):
            drawn = generator.choice(len(train), size=size, replace=False)
            # The weights lie in the span of the pairs: there are fewer pairs than features.
            span, parts = np.linalg.qr(train[drawn].T)
            margins = test @ (span @ ridge_logistic(parts.T))
            right += (margins > 0) + (margins == 0) / 2
        found[size] = right / num_draws
    return found
