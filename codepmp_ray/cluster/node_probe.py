"""What one node says about itself: versions, storage, models, sandbox. Runs as a task there."""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from codepmp_ray import __version__
from codepmp_ray.config.evaluation import SandboxConfig
from codepmp_ray.errors import CodePMPError, ModelError
from codepmp_ray.hub_models import hub_model
from codepmp_ray.storage import LocalStore, open_store
from codepmp_ray.versions import installed_versions

SHARED, FIRST = "shared", "first"


@dataclass(frozen=True)
class ProbePlan:
    """What to look at. `folder` is a scratch folder of the run, made for this check."""

    folder: str
    token: str
    models: tuple[str, ...]
    sandbox: SandboxConfig | None  # of code that is to be executed


@dataclass
class NodeReport:
    """One node's answers. `errors` are those of storage; `models` and `sandbox` name problems."""

    node: str
    versions: dict[str, str] = field(default_factory=dict)
    clock_s: float = 0.0
    free_gb: float | None = None
    sees_shared: bool = False
    was_first: bool = False
    storage_error: str = ""
    models: dict[str, str] = field(default_factory=dict)
    sandbox: str = ""


def probe(node: str, plan: ProbePlan) -> NodeReport:
    """Look at everything; nothing raises, so that one problem does not hide the next."""
    report = NodeReport(node, own_versions(), time.time())
    report.storage_error = _said(lambda: _try_storage(node, plan, report))
    report.models = {
        name: problem for name in plan.models if (problem := _said(lambda n=name: require_model(n)))
    }
    if (sandbox := plan.sandbox) is not None:
        report.sandbox = _said(lambda: _try_sandbox(sandbox))
    return report


def own_versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "codepmp-ray": __version__,
        **installed_versions(),
    }


def require_model(name: str) -> None:
    """Raise ModelError unless the model's configuration can be read here. No weights are loaded."""
    from codepmp_ray.modeling.sources import require_builtin, require_weights

    if name.startswith("builtin:"):
        require_builtin(name)  # converting its weights is left to whoever needs them
        return
    hub = hub_model(name)
    if hub is None:
        require_weights(name)
        return
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(hub.repo, "config.json", revision=hub.revision, etag_timeout=5)
    except Exception as error:  # the hub's errors are many, and all mean the same here
        first = (str(error).strip().splitlines() or [""])[0]
        raise ModelError(
            f"{name} cannot be fetched ({type(error).__name__}: {first[:160]}).",
            "Set HF_TOKEN for gated models, or put the model into a folder that all nodes share "
            "and name that.",
        ) from error


def _try_storage(node: str, plan: ProbePlan, report: NodeReport) -> None:
    store = open_store(plan.folder)
    own = plan.token + node
    store.put(f"node-{node}", own.encode())
    report.was_first = store.put_exclusive(FIRST, own.encode())
    report.sees_shared = store.exists(SHARED) and store.read_bytes(SHARED) == plan.token.encode()
    if isinstance(store, LocalStore):
        report.free_gb = shutil.disk_usage(store.root).free / 1e9


def _try_sandbox(config: SandboxConfig) -> None:
    from codepmp_ray.evaluation.sandbox import Sandbox

    Sandbox.detect(config)


def _said(action: Callable[[], object]) -> str:
    try:
        action()
    except CodePMPError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or 'storage'}: {error.strerror or error}"
    return ""
