"""Start the service for the time of a `with` block, and leave nothing behind."""

from __future__ import annotations

import json
import logging
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from codepmp_ray.cluster.connect import connect
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.errors import ModelError, ResourceError
from codepmp_ray.evaluation.audit.served import with_own_audit
from codepmp_ray.progress import Progress
from codepmp_ray.storage import absolute

from .application import (
    INGRESS_NAME,
    build_app,
    build_application,
    tls_options,
)
from .auth import digest_of, generate_key, key_from_environment
from .deployments import ScorerReplica
from .listening import Listener, given_to_ingresses, open_port
from .owner import make_owner
from .replicas import each_model, scorer_name, served_name, serving_needs

__all__ = ["ServiceHandle", "build_app", "running_service"]

_APP_PREFIX = "codepmp-job-"
_FAILED = ("DEPLOY_FAILED", "UNHEALTHY")
_PORT_RELEASE_TIMEOUT_S = 15.0
_ANSWER_TIMEOUT_S = 60.0
_CONTROL_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class ServiceHandle:
    """A running service. `key_was_made` is False when the key came from the environment; `listener`
    is for whoever deploys another version of the application over it.
    """

    url: str
    api_key: str = field(repr=False)
    model_name: str
    key_was_made: bool
    app_name: str = ""  # of the Serve application
    listener: Listener | None = None


@contextmanager
def running_service(
    recipe: Recipe,
    model_path: str | Path,
    replica_class: type[ScorerReplica] = ScorerReplica,
    with_tls: bool = True,
    is_measuring: bool = False,
) -> Iterator[ServiceHandle]:
    """The scoring service of `recipe.serving` on the exported model in `model_path` (also a URI).

    Ready when the block begins. When it ends, requests in flight are answered, for at most
    `drain_timeout_s` and while new ones get 503; then all is stopped and its port free. It listens
    on this machine, which has to be one of the cluster. A cluster on which Serve already runs
    something is refused: stopping ends all of Serve.
    `is_measuring` leaves `require_audit` aside: a model is scored with before it has an audit.
    `with_tls` is False where the only caller is this process, who would not know the certificate.
    """
    config, model = with_own_audit(recipe), absolute(str(model_path))
    if is_measuring:
        config = config.model_copy(update={"require_audit": False})
    given = key_from_environment(os.environ, recipe.evaluation.api_key_env)
    key = given or generate_key()
    tls = tls_options(config) if with_tls else {}
    with connect():
        owner = make_owner()
        # Importing Serve set this back to INFO after connect() had quieted it.
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        _clear_serve()
        listening = open_port(config.host, config.port)
        port = listening.getsockname()[1]
        name = f"{_APP_PREFIX}{ray.get_runtime_context().get_job_id()}"
        try:
            with listening, given_to_ingresses(listening) as path:
                listener = Listener(path, ray.get_runtime_context().get_node_id(), tls)
                application = build_application(
                    config, model, [digest_of(key)], replica_class, recipe.audit, owner, listener
                )
                models = enumerate(each_model(config, model).items())
                places = {scorer_name(n, name): place for n, (name, (_, place)) in models}
                num_replicas = sum(need.count for need in serving_needs(config))
                with Progress("scoring service", num_replicas, "replicas ready") as progress:
                    serve.start(
                        proxy_location="Disabled",
                        logging_config={"log_level": "WARNING", "enable_access_log": False},
                    )
                    serve.run_many(
                        [serve.RunTarget(application, name, route_prefix=None)],
                        wait_for_applications_running=False,
                    )
                    _wait_until_running(name, places, progress)
                    url = f"{'https' if tls else 'http'}://{_reachable(config.host)}:{port}"
                    _wait_until_ready(url)
                    progress.update(num_replicas)
                try:
                    named = served_name(config, model)
                    yield ServiceHandle(url, key, named, given is None, name, listener)
                finally:
                    _drain(name, config.drain_timeout_s)
        finally:
            serve.shutdown()
            _wait_until_released(config.host, port)


def _drain(name: str, timeout_s: float) -> None:
    """Close the doors of the application and wait for those inside."""
    give_up_s = time.monotonic() + timeout_s
    was_told = False
    try:
        ingress = serve.get_deployment_handle(INGRESS_NAME, name)
        while time.monotonic() < give_up_s:
            replies = ingress.broadcast("close_doors").results(timeout_s=_CONTROL_TIMEOUT_S)
            if not sum(replies):
                break
            if not was_told:
                num = f"{sum(replies)} requests in flight"
                print(
                    f"Answering {num} (at most {timeout_s:g} s) before the stop.", file=sys.stderr
                )
                was_told = True
            time.sleep(0.1)
    except (RayError, RayServeException, TimeoutError):
        return  # it is gone already


def _clear_serve() -> None:
    """Shut down what killed jobs left of Serve. Raises ResourceError when it serves others."""
    from ray._private.state import state

    found = serve.status()
    alive = {str(job["JobID"]) for job in state.job_table() if not job["IsDead"]}
    others = [
        name
        for name in found.applications
        if not name.startswith(_APP_PREFIX) or name.removeprefix(_APP_PREFIX) in alive
    ]
    if others:
        raise ResourceError(
            f"Ray Serve already runs {', '.join(sorted(others))} on this cluster.",
            "Set evaluation.endpoint to a running service, or stop it (serve shutdown).",
        )
    if found.applications or found.proxies:
        serve.shutdown()


def _wait_until_running(name: str, places: dict[str, str], progress: Progress) -> None:
    """Until every replica has loaded its model. Raises ModelError when one cannot.

    `places` are those of the models, by the name of the deployment.
    """
    while True:
        app = serve.status().applications.get(name)
        status = app.status if app else "NOT_STARTED"
        if app is not None and status in _FAILED:
            details = [app.message, *(item.message for item in app.deployments.values())]
            failed = [
                place
                for scorer, place in places.items()
                if (found := app.deployments.get(scorer)) and found.status in _FAILED
            ]
            raise ModelError(
                "The scoring service cannot start with the model in "
                f"{' and '.join(failed or places.values())}: "
                f"{_cause(' '.join(details))}",
                "serving.engine=torch is the plain fallback; the replica's log has the details.",
            )
        scorers = [s for n, s in app.deployments.items() if n != INGRESS_NAME] if app else []
        states = [item for scorer in scorers for item in scorer.replica_states.items()]
        num_running = sum(count for state, count in states if state == "RUNNING")
        if status == "RUNNING":
            return
        progress.update(num_running, note=_wait_note(num_running))
        time.sleep(0.5)


def _wait_note(num_running: int) -> str:
    free = ray.available_resources()
    return f"loading the model ({free.get('CPU', 0.0):g} CPUs free)" if not num_running else ""


def _cause(message: str) -> str:
    """The last line of a traceback inside Serve's message: the error itself."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    raised = [line for line in lines if "Error" in line and not line.startswith("File ")]
    return (raised or lines or ["no reason given"])[-1][:500]


def _wait_until_ready(url: str) -> None:
    give_up_s = time.monotonic() + _ANSWER_TIMEOUT_S
    reason = "no answer"
    # The certificate is for the name that callers use; no key is sent here.
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    while time.monotonic() < give_up_s:
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=10, context=anyone) as answer:
                if json.load(answer).get("status") == "ready":
                    return
        except (OSError, ValueError, urllib.error.URLError) as error:
            reason = str(error)
        time.sleep(0.2)
    raise ResourceError(
        f"The service is deployed, but {url}/ready is not good after {_ANSWER_TIMEOUT_S:g} s "
        f"({reason}).",
        "Run the job on the cluster's head node, where the service listens.",
    )


def _wait_until_released(host: str, port: int) -> None:
    give_up_s = time.monotonic() + _PORT_RELEASE_TIMEOUT_S
    while time.monotonic() < give_up_s:
        try:
            open_port(host, port).close()
            return
        except ResourceError:
            time.sleep(0.1)


def _reachable(host: str) -> str:
    """The address to call for an address to listen on."""
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
