"""What the paper reports, by table and figure: (without PMP, with PMP) unless said otherwise.

Source: CodePMP, arXiv 2410.02229. `analysis/paper.py` holds the values that a run's report shows;
these are shown beside a study's own.
"""

from __future__ import annotations

from codepmp_ray.analysis.paper import HUMANEVAL_BON, RM_ACCURACY, SOURCE
from codepmp_ray.config.study_materials import PoolConfig

__all__ = ["HUMANEVAL_BON", "SOURCE"]

Pair = tuple[float, float]

# Table 1: accuracy of the reward model on pairs.
TABLE_1: dict[str, dict[str, Pair]] = {
    "Qwen2-1.5B": RM_ACCURACY,
    "Qwen2-7B": {
        "MathShepherd-pair": (0.8777, 0.9274),
        "ReClor-pair": (0.862, 0.874),
        "LogiQA2.0-pair": (0.8263, 0.8441),
    },
}

# Table 2 ("the 1B model"): best-of-N accuracy by PMP loss at N = 32, 64, 128, 256.
TABLE_2_KS = (32, 64, 128, 256)
TABLE_2: dict[str, dict[str, tuple[float, ...]]] = {
    "GSM8K": {
        "RM only": (0.834, 0.8362, 0.8332, 0.8271),
        "LM only": (0.8317, 0.8271, 0.8309, 0.8226),
        "RM + LM": (0.8393, 0.8453, 0.8362, 0.8484),
    },
    "MATH": {
        "RM only": (0.344, 0.358, 0.366, 0.362),
        "LM only": (0.376, 0.376, 0.354, 0.372),
        "RM + LM": (0.418, 0.424, 0.434, 0.41),
    },
}

# Tables 3 to 5: best-of-N accuracy by N. The generator of Table 3 is MetaMath-Mistral-7B; those of
# Tables 4 and 5 are both stronger than it.
TABLE_3: dict[str, dict[int, Pair]] = {  # reward model Qwen2-72B
    "GSM8K": {
        1: (0.7718, 0.7718), 4: (0.8453, 0.8453), 32: (0.8529, 0.8628), 256: (0.8249, 0.84),
    },
    "MATH": {1: (0.298, 0.298), 4: (0.424, 0.424), 32: (0.488, 0.5), 256: (0.506, 0.514)},
    "ReClor": {4: (0.894, 0.918)},
    "LogiQA2.0": {4: (0.7117, 0.7927)},
}  # fmt: skip
TABLE_4: dict[str, dict[int, Pair]] = {  # generator Qwen2-Math-7B-Instruct, reward model Qwen2-7B
    "GSM8K": {4: (0.8544, 0.8931), 32: (0.8446, 0.8795), 256: (0.8256, 0.859)},
    "MATH": {4: (0.69, 0.724), 32: (0.643, 0.698), 256: (0.614, 0.69)},
}
TABLE_5: dict[str, dict[int, Pair]] = {  # generator Qwen2.5-32B-Instruct, reward model Qwen2-7B
    "GSM8K": {4: (0.9604, 0.9688), 32: (0.9573, 0.9581), 256: (0.9566, 0.9634)},
    "MATH": {4: (0.798, 0.82), 32: (0.768, 0.792), 256: (0.752, 0.798)},
}

# Table 6, called "RMBench" there; the last four columns are RewardBench's sections.
TABLE_6: dict[str, dict[str, Pair]] = {
    "Qwen2-1.5B": {
        "Summary": (0.4154, 0.6126), "Chat": (0.4804, 0.905), "Chat Hard": (0.5351, 0.4364),
        "Safety": (0.3665, 0.3698), "Reasoning": (0.2751, 0.6041),
    },
    "Qwen2-7B": {
        "Summary": (0.5839, 0.7668), "Chat": (0.4972, 0.9413), "Chat Hard": (0.5022, 0.5373),
        "Safety": (0.524, 0.4906), "Reasoning": (0.6804, 0.9116),
    },
}  # fmt: skip

# Table 11: mean response tokens, (chosen, rejected).
TABLE_11: dict[str, Pair] = {
    "Python": (170.0, 167.0), "notebook": (158.0, 155.5), "other": (213.2, 210.0),
    "total": (194.5, 189.9),
}  # fmt: skip

# Table 12: (CodePMP, majority voting). N is not stated; the values are Table 2's at N = 256.
TABLE_12: dict[str, Pair] = {"GSM8K": (0.8484, 0.8453), "MATH": (0.41, 0.37)}

# Table 13: accuracy on CodeUltraFeedback_binarized.
TABLE_13: dict[str, Pair] = {"Qwen2-1.5B": (0.6841, 0.758), "Qwen2-7B": (0.6912, 0.7619)}

# Table 15: n-gram density (n-grams over 100 hash buckets), (unigrams, bigrams).
TABLE_15: dict[str, Pair] = {
    "human": (134_538, 133_538), "strong": (97_654, 96_654), "weak": (93_692, 92_692),
}  # fmt: skip

# Table 16: KL divergence of 1-, 2- and 3-grams.
TABLE_16: dict[str, tuple[float, float, float]] = {
    "human, bootstrap": (0.2502, 0.6904, 1.3012),
    "strong against human": (0.429, 1.35, 2.566),
    "weak against human": (0.4631, 1.4281, 2.6693),
}

# Section D.4.2: share of pairs whose order GPT-4o agrees with.
JUDGE_AGREEMENT = {"CodePMP": 0.7512, "CodeUltraFeedback": 0.7156}

# Figure 4: so many finetuning samples with PMP match so many without (7B, best-of-N).
FIGURE_4_MATCH = (500, 40_000)

# Benchmarks of which the paper has best-of-N values, and MBPP, whose problems are programs as well.
_BENCHMARKS = ("GSM8K", "MATH", "HumanEval", "MBPP")


def benchmark_of(name: str, config: PoolConfig) -> str | None:
    """Of a pool: what it `stands_for`, else the benchmark that it is named after; None for others.

    Values of one benchmark must not stand beside answers to another one's questions.
    """
    if config.stands_for is not None:
        return config.stands_for
    return next((known for known in _BENCHMARKS if known.lower() == name.lower()), None)
