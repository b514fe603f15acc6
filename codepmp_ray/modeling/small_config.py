"""A configuration of the same class with small numbers, for models that are made to be compared.

What a family computes follows from its kinds of layers, its ratios and its switches, which stay.
Only sizes shrink: fewer layers that still have every kind, one or two groups of heads, few experts,
a window that is shorter than the pairs. Numbers that are not known here stay as they are.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

VOCABULARY = 128
WINDOW = 8
_NUM_LAYERS, _MOST_LAYERS = 2, 12
_HEAD_SIZE, _GROUP, _NUM_EXPERTS = 16, 4, 4
_WIDTH = 96
_WIDE = 256  # numbers from here on are widths, where a configuration is scaled as a whole

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_PER_TOKEN = re.compile("experts?_per_tok|experts_per_token|top_k_experts|moe_topk|moe_k$|^top_k$")
_WIDTHS = re.compile("intermediate_size|ffn_dim$|ffn_hidden_size$|^n_inner$|^mlp_hidden_size$")
# Of what a sparse attention chooses among, and of the chunks in which a recurrence is computed.
_CHOICES = re.compile("^index_topk$|(^|_)block_size$")
_BLOCKS = re.compile("(^|_)topk_blocks$")
_CHUNKS = re.compile("^chunk_size$|^mamba_chunk_size$|(d_state|state_size)$|^linear_.*head_dim$")
_LINEAR_HEADS = re.compile("^linear_num_.*heads$")
_WINDOWS = re.compile("sliding_window$|^attention_chunk_size$|attention_window_size$|^window_size$")
_SIZES = ((_WINDOWS, WINDOW), (_CHOICES, 4), (_BLOCKS, 1), (_CHUNKS, 16))
# Every how many layers another kind comes.
_EVERY = re.compile("(_period|_interval|_pattern|_step|_freq|_every_n_layers|_stride)$")
_HEADS = ("num_attention_heads", "num_key_value_heads", "num_heads", "num_kv_heads")


def small_configs(config: Any) -> Iterator[Any]:
    """Small configurations of the class of `config`, the likeliest first.

    Not all can be built: some families tie numbers together that others leave free.
    """
    for make in (_narrow, _scaled, _shallow):
        try:
            facts = make(_Facts(config))
            yield type(config).from_dict(facts)
        except Exception:  # noqa: BLE001 - what a class refuses is not the small one
            continue


class _Facts:
    """A configuration as a dictionary, addressed by the names that all families share."""

    def __init__(self, config: Any) -> None:
        self.names: dict[str, str] = dict(getattr(type(config), "attribute_map", {}) or {})
        self.values: dict[str, Any] = copy.deepcopy(config.to_dict())
        self.num_layers: int = config.num_hidden_layers
        for name in ("_name_or_path", "architectures", "quantization_config", "dtype"):
            self.values.pop(name, None)

    def get(self, name: str) -> Any:
        return self.values.get(self.names.get(name, name))

    def put(self, name: str, value: Any) -> None:
        """Where the family has a number of that name."""
        key = self.names.get(name, name)
        if self.values.get(key) is not None:
            self.values[key] = value


def _narrow(facts: _Facts) -> dict[str, Any]:
    _fewer_layers(facts)
    _fewer_tokens(facts)
    _fewer_experts(facts)
    _narrower(facts)
    return facts.values


def _scaled(facts: _Facts) -> dict[str, Any]:
    """Widths and heads divided by the same number, as families need that multiply them."""
    _fewer_layers(facts)
    _fewer_tokens(facts)
    _fewer_experts(facts)
    heads = [n for name in _HEADS if isinstance(n := facts.get(name), int)]
    factor = 1
    while facts.get("hidden_size") // (2 * factor) >= 2 * _WIDTH and all(
        n % (2 * factor) == 0 or n == 1 for n in heads
    ):
        factor *= 2
    for name, value in facts.values.items():
        is_heads = "head" in name and "dim" not in name and "size" not in name
        if type(value) is not int or value % factor or "position" in name or name.endswith("_id"):
            continue
        if value >= _WIDE or is_heads:
            facts.values[name] = max(1, value // factor)
    return facts.values


def _shallow(facts: _Facts) -> dict[str, Any]:
    _fewer_layers(facts)
    _fewer_tokens(facts)
    _fewer_experts(facts)
    return facts.values


def _fewer_layers(facts: _Facts) -> None:
    """The first layer of every kind, by all lists that have an entry for each layer."""
    num_layers = facts.num_layers
    lists = {
        name: value
        for name, value in facts.values.items()
        if isinstance(value, list) and len(value) == num_layers
    }
    by_index = {
        name: value
        for name, value in facts.values.items()
        if _is_by_index(value) and "label" not in name
    }
    kinds: dict[Any, int] = {}
    for index in range(num_layers):
        kind = [str(value[index]) for value in lists.values()]
        kind += [str(value.get(index, value.get(str(index)))) for value in by_index.values()]
        kinds.setdefault(tuple(kind), index)
    chosen = [*kinds.values()][:_MOST_LAYERS]
    periods = [
        value + (facts.values.get(name.replace("_period", "_offset")) or 0)
        for name, value in facts.values.items()
        if _EVERY.search(name) and type(value) is int and value > 1
    ]
    if not lists and periods:
        chosen = [*range(min(num_layers, _MOST_LAYERS, max(periods)))]
    while len(chosen) < min(_NUM_LAYERS, num_layers):
        chosen.append(next(i for i in range(num_layers) if i not in chosen))
    chosen.sort()
    shared = facts.get("num_kv_shared_layers")
    if shared:  # layers that read the keys of the last one before them of their kind
        facts.put("num_kv_shared_layers", len(chosen))
        chosen = chosen * 2
    for name, value in lists.items():
        facts.values[name] = [value[index] for index in chosen]
    for name, value in by_index.items():
        there = {int(key): entry for key, entry in value.items()}
        facts.values[name] = {
            new: there[old] for new, old in enumerate(chosen) if there.get(old) is not None
        }
    for name, value in facts.values.items():
        is_list = isinstance(value, list) and name not in lists
        if is_list and "layer" in name and all(type(entry) is int for entry in value):
            facts.values[name] = [entry for entry in value if entry < len(chosen)]
    facts.put("num_hidden_layers", len(chosen))
    dense = facts.get("first_k_dense_replace")
    if dense and dense >= len(chosen):
        facts.put("first_k_dense_replace", 1)
    for name in ("max_window_layers", "num_nextn_predict_layers", "mtp_num_hidden_layers"):
        value = facts.get(name)
        if isinstance(value, int):
            facts.put(name, min(value, 1) if name == "max_window_layers" else 0)


def _is_by_index(value: Any) -> bool:
    """Whether it says something of some layers, by their number."""
    return isinstance(value, dict) and bool(value) and all(str(key).isdigit() for key in value)


def _fewer_tokens(facts: _Facts) -> None:
    for name, value in facts.values.items():
        if type(value) is not int:
            continue
        if name.startswith("vocab_size"):
            facts.values[name] = min(value, VOCABULARY)
        elif name.endswith("_token_id") and value >= VOCABULARY:
            facts.values[name] = 0
        for pattern, most in _SIZES:
            if pattern.search(name):
                facts.values[name] = min(value, most)
    for name in ("bos_token_id", "eos_token_id"):  # may be several
        if isinstance(facts.values.get(name), list):
            facts.values[name] = 0


def _fewer_experts(facts: _Facts) -> None:
    groups = facts.get("n_group") or facts.get("num_expert_group") or 1
    for name in _EXPERTS:
        value = facts.get(name)
        if isinstance(value, int) and value > _NUM_EXPERTS:
            facts.put(name, max(_NUM_EXPERTS, 2 * groups))
    for name, value in facts.values.items():
        if _PER_TOKEN.search(name) and type(value) is int and value > 2:
            facts.values[name] = 2


def _narrower(facts: _Facts) -> None:
    heads, groups = facts.get("num_attention_heads"), facts.get("num_key_value_heads")
    hidden = facts.get("hidden_size")
    size = facts.get("head_dim") or hidden // heads
    # A rotary embedding with a number for every frequency, and latent attention, fix head sizes.
    if facts.get("kv_lora_rank") is None and not _has_list(facts.values.get("rope_parameters")):
        size = min(size, _HEAD_SIZE)
        facts.put("head_dim", size)
        facts.put("rotary_dim", min(facts.get("rotary_dim") or size, size // 2))
    num_groups = min(groups, 2) if groups and groups < heads else min(heads, _GROUP)
    num_heads = num_groups * min(heads // groups if groups else 1, _GROUP)
    facts.put("num_attention_heads", num_heads)
    facts.put("num_key_value_heads", num_groups)
    narrow = min(hidden, num_heads * size)
    for name in ("word_embed_proj_dim", "embedding_size", "hidden_size_per_layer_input"):
        value = facts.get(name)
        if isinstance(value, int):
            facts.put(name, narrow if value == hidden else min(value, narrow // 2))
    facts.put("hidden_size", narrow)
    _fewer_states(facts.values, narrow)
    for name, value in facts.values.items():
        if _WIDTHS.search(name):
            if type(value) is int:
                facts.values[name] = min(value, _WIDTH)
            elif isinstance(value, list) and all(type(entry) is int for entry in value):
                facts.values[name] = [min(entry, _WIDTH) for entry in value]


def _fewer_states(values: dict[str, Any], hidden_size: int) -> None:
    """Heads of recurrences: Mamba's are as wide as `mamba_expand` says, or `mamba_d_ssm`."""
    names = [name for name in values if _LINEAR_HEADS.search(name) and values[name]]
    if names:
        factor = max(1, min(values[name] for name in names) // 2)
        values |= {name: values[name] // factor for name in names}
    if not (values.get("mamba_n_heads") and values.get("mamba_d_head")):
        return
    width = (values.get("mamba_expand") or 2) * hidden_size
    if values.get("mamba_d_ssm"):
        values["mamba_d_ssm"] = width
    values |= {"mamba_d_head": _HEAD_SIZE, "mamba_n_heads": width // _HEAD_SIZE}
    values["mamba_n_groups"] = min(values.get("mamba_n_groups") or 1, 2)


def _has_list(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_list, value.values()))
    return isinstance(value, list)
