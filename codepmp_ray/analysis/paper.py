"""What the CodePMP paper measured, shown beside a run's own figures for orientation.

Other models, other data, other sizes: these are not targets for a run on a laptop.
Source: arXiv 2410.02229; the table is named at each constant.
"""

from __future__ import annotations

SOURCE = "CodePMP, arXiv 2410.02229"

# Table 11, total: mean response tokens.
MEAN_CHOSEN_TOKENS = 194.5
MEAN_REJECTED_TOKENS = 189.9

# Table 1, Qwen2-1.5B: accuracy of the reward model (without PMP, with PMP) on pairs.
RM_ACCURACY = {
    "MathShepherd-pair": (0.7226, 0.8186),
    "ReClor-pair": (0.758, 0.794),
    "LogiQA2.0-pair": (0.7538, 0.7774),
}

# Table 14: HumanEval pass@1 of the pick among N (without PMP, with PMP). Reward model Qwen2-7B,
# generator deepseek-coder-6.7b-instruct.
HUMANEVAL_BON = {
    1: (0.7134, 0.7134),
    2: (0.7317, 0.7195),
    4: (0.7073, 0.7622),
    8: (0.6890, 0.7683),
    16: (0.6951, 0.7256),
    32: (0.6585, 0.7378),
    64: (0.6829, 0.7134),
    128: (0.6707, 0.7012),
    256: (0.6707, 0.7195),
}
