"""What a plain installation lacks is said in one line, with the line that installs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from codepmp_ray import versions
from codepmp_ray.command.extras import require_extras
from codepmp_ray.config.recipe import load_recipe
from codepmp_ray.errors import ResourceError
from codepmp_ray.modeling import sources

STAGES = ("synthesis", "candidates", "evaluation")


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation from the wheel, without vLLM and the demonstration's model."""
    package = tmp_path / "site" / "codepmp_ray"
    monkeypatch.setattr(versions, "__file__", str(package / "versions.py"))
    for module in (versions, sources):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    monkeypatch.setattr(versions, "has_gpu", lambda: False)
    return package


@pytest.mark.parametrize("stage", STAGES)
def test_stages_with_vllm_are_refused_and_those_without_are_not(plain: Path, stage: str) -> None:
    with pytest.raises(ResourceError, match="=vllm needs vLLM, which is not installed") as caught:
        require_extras(load_recipe("qwen2-1.5b-math"), [stage])
    line = str(caught.value).partition("Install it: ")[2]
    assert line.startswith("uv pip install 'codepmp-ray[cpu]' --constraints ")
    for name in ("constraints.txt", "overrides.txt", "overrides-cpu.txt"):
        assert f"'{plain}/{name}'" in line
    fake = [f"engines.{role}.kind=fake" for role in ("strong", "weak")]
    require_extras(load_recipe("laptop", [*fake, "serving.engine=torch"]), STAGES)
    require_extras(load_recipe("laptop"), ["corpus", "pretraining", "grades", "finetuning"])


def test_the_demonstration_asks_for_both_extras_at_once(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ResourceError, match=r"codepmp-ray\[cpu,demo\]"):
        require_extras(load_recipe("laptop"), STAGES)
    monkeypatch.setattr(versions, "has_gpu", lambda: True)
    with pytest.raises(ResourceError, match=r"codepmp-ray\[gpu,demo\]") as caught:
        require_extras(load_recipe("laptop"), STAGES)
    assert "overrides-cpu" not in str(caught.value) and "--index" not in str(caught.value)


def test_in_a_checkout_setup_installs_it() -> None:
    assert versions.install_line("cpu", "demo") == "make setup"
    assert versions.install_line("s3").startswith("uv pip install 'codepmp-ray[s3]' --constraints")
