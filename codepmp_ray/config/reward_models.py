"""Reward models at hand: trained elsewhere, measured by studies beside those that they train."""

from __future__ import annotations

from pydantic import model_validator

from codepmp_ray.config.base import Section, operational

# Words of tables and plots that a model at hand must not be called by.
_TAKEN = ("without PMP", "with PMP", "length alone", "random", "length", "oracle", "majority")


class RewardConfig(Section):
    """One reward model: exactly one of `model_name_or_path` and `endpoint`.

    Attributes:
        model_name_or_path: the folder (or its URI) of an exported reward model; it is scored with
            as trained ones are.
        endpoint: the address of our scoring service, without a path; it is scored with over HTTP.
        api_key_env: the environment variable that holds the key of `endpoint`.
        title: in tables and plots; by default the model's name among `rewards`.
    """

    model_name_or_path: str | None = None
    endpoint: str | None = None
    api_key_env: str = operational("CODEPMP_API_KEY")
    title: str = ""

    @model_validator(mode="after")
    def _one_place(self) -> RewardConfig:
        if bool(self.model_name_or_path) == bool(self.endpoint):
            raise ValueError(
                "give exactly one of model_name_or_path (the folder of an exported reward model) "
                "and endpoint (the address of a service)"
            )
        if self.endpoint and not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(f"endpoint={self.endpoint!r} must start with http:// or https://")
        return self


def require_own_labels(rewards: dict[str, RewardConfig]) -> None:
    """Raises ValueError where two models, or a model and a curve of its own, have one label."""
    seen: dict[str, str] = {}
    for name, config in rewards.items():
        label = config.title or name
        if label in _TAKEN or label in seen:
            other = f"rewards.{seen[label]}" if label in seen else "a curve of every study"
            raise ValueError(
                f"rewards.{name} is called {label!r}, as is {other}: set rewards.{name}.title"
            )
        seen[label] = name
