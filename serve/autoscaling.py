"""How many replicas: by the tokens they have to compute, not by the number of calls."""

from __future__ import annotations

from typing import Any

from ray.serve.config import AutoscalingContext

METRIC = "tokens_in_flight"


class TokenPolicy:
    """As many replicas as have `target_tokens` each. Serve applies bounds and delays to it."""

    def __init__(self, target_tokens: int) -> None:
        self._target_tokens = target_tokens

    def __call__(self, context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        reported = (context.aggregated_metrics or {}).get(METRIC, {})
        if not reported:
            return context.current_num_replicas, {}
        # Replicas that have not reported yet are taken to be like the others.
        mean = sum(reported.values()) / len(reported)
        return mean * context.current_num_replicas / self._target_tokens, {}
