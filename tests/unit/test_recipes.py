"""Every shipped recipe parses, and the paper's recipes hold the paper's numbers."""

from pathlib import Path

import pytest

from codepmp_ray.config.recipe import load_recipe

RECIPES = Path(__file__).resolve().parents[2] / "jobs" / "recipes"

# file: (PMP rate, RM rate, RM warmup ratio); Tables 7, 8 and 9
PAPER = {
    "qwen2-1.5b-math": (3e-6, 1e-6, 0.03),
    "qwen2-1.5b-logic": (3e-6, 1e-5, 0.25),
    "qwen2-7b-math": (1e-6, 3e-7, 0.03),
    "qwen2-7b-logic": (1e-6, 1e-5, 0.25),
}


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipe_parses_and_is_named_like_its_file(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.run_dir == f"runs/{path.stem}"


@pytest.mark.parametrize("name", PAPER)
def test_recipe_holds_the_papers_hyperparameters(name: str) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    pmp, rm = recipe.pretraining, recipe.finetuning
    assert (pmp.learning_rate, rm.learning_rate, rm.warmup_ratio) == PAPER[name]
    assert (pmp.objective, pmp.batch_size, pmp.num_train_epochs) == ("pmp", 1024, 1)
    assert (pmp.schedule, pmp.warmup_ratio, pmp.decay_ratio) == ("wsd", 0.03, 0.1)
    assert (pmp.weight_decay, pmp.max_length, pmp.lm_loss_weight) == (0.1, 1024, 1.0)
    assert (rm.objective, rm.batch_size, rm.num_train_epochs) == ("rm", 64, 1)
    assert (rm.schedule, rm.weight_decay, rm.max_length) == ("cosine", 0.0, 1024)
    kinds = ["math_shepherd"] if name.endswith("math") else ["reclor", "logiqa2"]
    assert [source.kind for source in rm.data] == kinds and pmp.data == ()
    assert (recipe.candidates.sampling.temperature, recipe.candidates.sampling.top_p) == (0.7, 1.0)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_finetuning_has_something_to_train_on(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.finetuning.data or recipe.candidates.num_train_problems > 0
    if path.stem.endswith("-math"):
        assert [source.kind for source in recipe.finetuning.data] == ["math_shepherd"]
