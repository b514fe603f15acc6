"""Every command's body, in the order of the road; importing it fills the registry."""

# isort: off
from codepmp_ray.command import run, corpus, pairs, train, answers, evaluation, serving  # noqa: F401
from codepmp_ray.command import cluster, paper, report, config  # noqa: F401
# isort: on

ABOUT = {
    "pairs": "Preference pairs out of code: cost, making, second tries, opt-outs, label noise.",
    "train": "The preference model, the reward model, scaling curves, policies.",
    "answers": "Candidate answers to problems: sampled, graded, written to a file.",
    "eval": "What a reward model is worth: best of N, pairs, pools, audit, parity.",
    "cluster": "Ray clusters: can it run there, send it there, what runs there.",
    "paper": "The paper's tables and figures, beside the paper's values.",
    "config": "Recipes and their keys.",
}
