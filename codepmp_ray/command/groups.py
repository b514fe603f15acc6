"""Every command's body, in the order of the road; importing it fills the registry."""

from codepmp_ray.command import (
    answers,
    bundle,
    cluster,
    config,
    corpus,
    evaluation,
    pairs,
    paper,
    report,
    run,
    serving,
    train,
)
from codepmp_ray.command.registry import COMMANDS

_ORDER = (
    run,
    corpus,
    pairs,
    train,
    answers,
    evaluation,
    serving,
    cluster,
    bundle,
    paper,
    report,
    config,
)
# Whatever of them was imported first.
_PLACES = [module.__name__ for module in _ORDER]
for _spec in sorted(COMMANDS.values(), key=lambda spec: _PLACES.index(spec.body.__module__)):
    COMMANDS[_spec.path] = COMMANDS.pop(_spec.path)

ABOUT = {
    "pairs": "Preference pairs out of code: cost, making, second tries, opt-outs, label noise.",
    "train": "The preference model, the reward model, scaling curves, policies.",
    "answers": "Candidate answers to problems: sampled, graded, written to a file.",
    "eval": "What a reward model is worth: best of N, pairs, pools, audit, parity.",
    "cluster": "Ray clusters: can it run there, send it there, what runs there, a bug report.",
    "paper": "The paper's tables and figures, beside the paper's values.",
    "config": "Recipes and their keys.",
}
