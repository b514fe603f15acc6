"""What one node says about itself: versions, code, clock, GPU, storage, and other questions.

Runs as a task there. Each question has a thread of its own and all have one deadline: a hub that
does not answer takes nothing from what the node says about the rest.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from codepmp_ray import __version__
from codepmp_ray.errors import CodePMPError, ModelError
from codepmp_ray.hub_models import hub_model
from codepmp_ray.storage import LocalStore, open_store
from codepmp_ray.versions import code_digest, has_gpu, installed_versions

SHARED, FIRST = "shared", "first"
K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """One thing that nodes have to be able to do.

    Attributes:
        concern: what the line is about, such as "model".
        subject: which one.
        fine: what a node can do that raises nothing: "can read it".
        ask: runs on the node; raises a CodePMPError or OSError.
        label_selector: nodes that are asked.
        late: what to do where nodes do not answer in time.
    """

    concern: str
    subject: str
    fine: str
    ask: Callable[[], object]
    label_selector: Mapping[str, str] = field(default_factory=dict)
    late: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.concern, self.subject


@dataclass(frozen=True)
class ProbePlan:
    """What to look at. `folder` is a scratch folder of the run, made for this check."""

    folder: str
    token: str
    questions: tuple[Question, ...] = ()
    timeout_s: float = 45.0


@dataclass(frozen=True)
class StorageAnswer:
    """What a node saw of the scratch folder; `problem` is "" where all went well."""

    problem: str = ""
    sees_shared: bool = False
    was_first: bool = False
    free_gb: float | None = None


@dataclass(frozen=True)
class NodeReport:
    """One node's answers.

    Attributes:
        code: digest of the sources that it runs.
        gpu: kind and least memory in bytes of its GPUs; None without an NVIDIA driver.
        clock_s: its time when it began and ended, seconds since the epoch.
        storage: None where it did not answer in time.
        answers: key of a question -> what is wrong, "" where nothing is. A question that is not
            there has no answer.
    """

    node: str
    versions: dict[str, str] = field(default_factory=dict)
    code: str = ""
    gpu: tuple[str, float] | None = None
    clock_s: tuple[float, float] = (0.0, 0.0)
    storage: StorageAnswer | None = None
    answers: dict[tuple[str, str], str] = field(default_factory=dict)


def probe(node: str, plan: ProbePlan) -> NodeReport:
    """Ask everything at once; nothing raises, so that one problem does not hide the next."""
    began_s = time.time()
    # Imported before there are threads: modules that import each other do not bear several.
    import codepmp_ray.evaluation.sandbox
    import codepmp_ray.modeling.sources  # noqa: F401

    asked: dict[Hashable, Callable[[], object]] = {
        "storage": partial(_try_storage, node, plan),
        "gpu": _gpu,
        **{question.key: partial(said, question.ask) for question in plan.questions},
    }
    found = answers_in_time(asked, plan.timeout_s)
    storage, gpu = found.pop("storage", None), found.pop("gpu", None)
    return NodeReport(
        node,
        own_versions(),
        code_digest(),
        gpu if isinstance(gpu, tuple) else None,
        (began_s, time.time()),
        storage if isinstance(storage, StorageAnswer) else None,
        {key: str(answer) for key, answer in found.items() if isinstance(key, tuple)},
    )


def answers_in_time(asked: Mapping[K, Callable[[], T]], timeout_s: float) -> dict[K, T]:
    """The results of `asked`, each called in a thread of its own; without those that take longer,
    which go on by themselves. What is called must not raise."""
    found: dict[K, T] = {}
    lock = threading.Lock()

    def call(key: K, action: Callable[[], T]) -> None:
        result = action()
        with lock:
            found[key] = result

    threads = [threading.Thread(target=call, args=item, daemon=True) for item in asked.items()]
    for thread in threads:
        thread.start()
    give_up_s = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, give_up_s - time.monotonic()))
    with lock:
        return dict(found)


def said(action: Callable[[], object]) -> str:
    """What `action` raises, in words; "" where it raises nothing."""
    try:
        action()
    except CodePMPError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename or 'storage'}: {error.strerror or error}"
    except Exception as error:  # noqa: BLE001 - of a library: an answer too, and no silence
        return f"{type(error).__name__}: {error}"
    return ""


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


def _try_storage(node: str, plan: ProbePlan) -> StorageAnswer:
    store = open_store(plan.folder)
    own = plan.token + node
    seen: dict[str, bool] = {}

    def work() -> None:
        store.put(f"node-{node}", own.encode())
        seen["first"] = store.put_exclusive(FIRST, own.encode())
        seen["shared"] = store.exists(SHARED) and store.read_bytes(SHARED) == plan.token.encode()

    if problem := said(work):
        return StorageAnswer(problem)
    free = shutil.disk_usage(store.root).free / 1e9 if isinstance(store, LocalStore) else None
    return StorageAnswer("", seen["shared"], seen["first"], free)


def _gpu() -> tuple[str, float] | None:
    """Asked of the driver's own program: a library would open a context on the GPU."""
    if not has_gpu():
        return None
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        rows = [line.rpartition(",") for line in done.stdout.splitlines() if line.strip()]
        return rows[0][0].strip(), min(float(size) for _, _, size in rows) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return "unknown", 0.0
