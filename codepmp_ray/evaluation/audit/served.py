"""The gate before serving: a model's own audit is there, whole, and keeps its limits.

`build_application` of the service asks, which every way of serving goes through. The audit is that
of the weights' content: other weights at the same path have none.
"""

from __future__ import annotations

import json
from typing import Any

from codepmp_ray.config.audit import AuditConfig
from codepmp_ray.config.evaluation import ServingConfig
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import ConfigError, InputError
from codepmp_ray.evaluation.audit.gate import GENERATORS, OVER_OPTIMISATION, Figures, gate
from codepmp_ray.evaluation.audit.run import RESULTS_FILE, folder_of
from codepmp_ray.runs import reward_model
from codepmp_ray.storage import open_store
from codepmp_ray.weights_digest import weights_digest

_HEAD = "serving.require_audit is set and"
_AGAIN = "Run codepmp eval audit with the same recipe, without evaluation.endpoint, first."


def with_own_audit(recipe: Recipe) -> ServingConfig:
    """The recipe's serving section, `audit_file` being what `codepmp eval audit` writes
    for the recipe."""
    config = recipe.serving
    if not config.require_audit or config.audit_file is not None:
        return config
    # The model that is to be served, not the one that the recipe evaluates elsewhere.
    own = recipe.evaluation.model_copy(update={"endpoint": None})
    store = open_store(recipe.run_dir).sub(folder_of(recipe.model_copy(update={"evaluation": own})))
    return config.model_copy(update={"audit_file": store.locate(RESULTS_FILE)})


def require_passed_audit(recipe: Recipe) -> None:
    """`require_audited` for the recipe's model and limits, before anything is started."""
    asked = recipe.serving.model_copy(update={"require_audit": True})
    config = with_own_audit(recipe.model_copy(update={"serving": asked}))
    require_audited(config, reward_model(recipe), recipe.audit)


def require_audited(
    config: ServingConfig, model_path: str, limits: AuditConfig | None = None
) -> None:
    """Raises InputError unless `config.audit_file` is a passed audit of the weights in
    `model_path`.

    Args:
        limits: today's, which may not be those of the audit's recipe; None takes the latter.
    """
    place = config.audit_file
    if place is None:
        raise ConfigError(
            f"{_HEAD} serving.audit_file is not.",
            "Name the audit.json that codepmp eval audit wrote.",
        )
    record = _read(place)
    if record.get("model_digest") is None:
        raise InputError(f"{_HEAD} {place} does not say which weights it is of.", _AGAIN)
    if record["model_digest"] != weights_digest(model_path):
        raise InputError(
            f"{_HEAD} {place} is the audit of other weights than those in {model_path}.", _AGAIN
        )
    try:
        figures = Figures.from_json(record["figures"])
        known = limits or AuditConfig.model_validate(record["manifest"]["recipe"]["audit"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{place} is no audit ({type(error).__name__}: {error}).", _AGAIN
        ) from error
    result = gate(figures, known)
    broken = [check.text for check in result.checks if not check.passed]
    if broken:
        raise InputError(
            f"{_HEAD} the model does not pass its audit: {'; '.join(broken)}.",
            f"Read {place}; train again, or change the limits in audit.",
        )
    if result.not_measured:
        raise InputError(
            f"{_HEAD} its audit did not measure {', '.join(result.not_measured)}.",
            " ".join(_remedies(result.not_measured)),
        )


def _read(place: str) -> dict[str, Any]:
    folder, _, name = place.rpartition("/")
    store = open_store(folder or ".")
    if not store.exists(name):
        raise InputError(f"{_HEAD} {folder} holds no audit of this model ({name}).", _AGAIN)
    try:
        record = json.loads(store.read_bytes(name))
    except ValueError as error:
        raise InputError(f"{place} cannot be read: {error}.", _AGAIN) from error
    if not isinstance(record, dict):
        raise InputError(f"{place} is no audit.", _AGAIN)
    return record


def _remedies(missing: Any) -> list[str]:
    edits = [name for name in missing if name not in (OVER_OPTIMISATION, GENERATORS)]
    found = []
    if edits:
        found.append(
            f"Audit pairs that {', '.join(edits)} can be applied to (accuracy.data), or leave "
            f"{'it' if len(edits) == 1 else 'them'} out of audit.edits."
        )
    if OVER_OPTIMISATION in missing:
        found.append(
            "Run codepmp eval audit again with labelled pools (audit.pools) or after "
            "codepmp eval bon, or set audit.max_over_optimisation=null to do without it."
        )
    if GENERATORS in missing:
        found.append(
            "Run codepmp eval audit again with a pool that names the model of each candidate "
            "(audit.pools), or set audit.max_generator_r2=null to do without it."
        )
    return found
