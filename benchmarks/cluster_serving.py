"""Calls through our client while hosts of the service lose their power, and while it is rolled.

A head with the service's proxy and two hosts for replicas, each with room for one. Under load one
host is killed (SIGKILL to its raylet and everything below) and started again as a supervisor would,
then the other; then a new version of the model replaces the old one. A call fails that raises,
gives other rewards than its version does, or takes longer than its deadline with all its retries.
The engines are fake; everything else is real.

    python -m benchmarks.cluster_serving [--deadline 30]
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from ray import serve

from benchmarks._fake_replica import FakeReplica, fake_recipe, write_fake_model
from benchmarks._namespaces import run_in_own_namespaces
from benchmarks._ray_nodes import (
    HEAD_ADDRESS,
    RayNode,
    start_head,
    start_worker,
    started,
    stop_all,
    wait_for_nodes,
)
from benchmarks._results import conclude, one_result, options
from benchmarks._serve_load import (
    INGRESS,
    SCORER,
    Calls,
    as_the_fake_scores,
    load,
    num_running,
    processes,
    seconds_until,
)
from codepmp_ray.cluster.connect import connect
from codepmp_ray.serve.application import build_application
from codepmp_ray.serve.auth import digest_of
from codepmp_ray.serve.launch import ServiceHandle, running_service

HOSTS, LABEL = {"b": "127.0.0.2", "c": "127.0.0.3"}, {"codepmp-role": "server"}
NUM_CALLERS = 4
TOKENS_PER_S = 20_000
KINDS = {"replicas": SCORER, "ingress": INGRESS}
CALM_S = 3.0  # of load before and after each event


def start_host(folder: Path, name: str, number: int = 1) -> RayNode:
    return start_worker(f"{name}{number}", folder, address=HOSTS[name], labels=LABEL)


def num_on(node: RayNode, title: str) -> int:
    return len(processes(title, psutil.Process(node.process.pid)))


def kill_host(
    service: ServiceHandle, folder: Path, hosts: dict[str, RayNode], name: str, deadline_s: float
) -> dict[str, Any]:
    """Under load; the host comes back at once, and its replica after that."""
    lost = {kind: num_on(hosts[name], title) for kind, title in KINDS.items()}
    with load(
        service.url, service.api_key, NUM_CALLERS, deadline_s, as_the_fake_scores(0.0)
    ) as calls:
        time.sleep(CALM_S)
        hosts[name].kill()
        killed_s = time.monotonic()
        hosts[name] = start_host(folder, name, 2)
        # What is lost is noticed first.
        noticed_s = seconds_until(lambda: num_running() < len(HOSTS))
        seconds_until(lambda: num_running() == len(HOSTS) and num_on(hosts[name], SCORER) == 1)
        back_s = time.monotonic() - killed_s
        time.sleep(CALM_S)
    more = {"killed_with_it": lost, "noticed_after_s": round(noticed_s, 1)}
    more |= {"whole_again_after_s": round(back_s, 1)}
    return result_of(f"failed_calls_while_host_{name}_is_killed", calls, deadline_s, **more)


def roll(service: ServiceHandle, folder: Path, deadline_s: float) -> dict[str, Any]:
    """Deploy a new version of the model over the old one, as `serve deploy` does."""
    check, new = as_the_fake_scores(0.0, 10.0), as_the_fake_scores(10.0)
    answers: list[bool] = []

    def either(texts: list[str], rewards: list[float]) -> bool:
        answers.append(new(texts, rewards))
        return check(texts, rewards)

    model = write_fake_model(folder / "second", TOKENS_PER_S, offset=10.0)
    key = [digest_of(service.api_key)]
    application = build_application(
        recipe().serving, model, key, FakeReplica, listener=service.listener
    )
    with load(service.url, service.api_key, NUM_CALLERS, deadline_s, either) as calls:
        time.sleep(CALM_S)
        start_s = time.monotonic()
        serve.run(application, name=service.app_name, route_prefix=None)
        rolled_s = time.monotonic() - start_s
        time.sleep(CALM_S)
    result = result_of(
        "failed_calls_while_a_new_version_is_rolled",
        calls,
        deadline_s,
        rolled_after_s=round(rolled_s, 1),
        answers_of_the_new_version=sum(answers),
    )
    result["met"] &= not answers[0] and all(answers[-NUM_CALLERS:])
    return result


def result_of(metric: str, calls: Calls, deadline_s: float, **more: Any) -> dict[str, Any]:
    return one_result(
        metric,
        len(calls.failures),
        f"of {calls.num} calls",
        0,
        met=not calls.failures,
        deadline_s=deadline_s,
        longest_call_s=round(calls.longest_s, 2),
        failures=calls.failures[:5],
        **more,
    )


def recipe() -> Any:
    return fake_recipe(num_replicas=len(HOSTS), num_cpus=0.6, label_selector=LABEL)


def measure(deadline_s: float) -> list[dict[str, Any]]:
    folder = Path(tempfile.mkdtemp(prefix="cse", dir="/tmp"))  # sockets lie below it
    model = write_fake_model(folder / "first", TOKENS_PER_S)
    os.environ["RAY_ADDRESS"] = HEAD_ADDRESS
    head = start_head(folder)
    hosts = {name: started(partial(start_host, folder, name)) for name in HOSTS}
    results = []
    try:
        with connect():
            wait_for_nodes(1 + len(HOSTS))
            with running_service(recipe(), model, replica_class=FakeReplica) as service:
                # The one with the ingress first, if it is not on the head.
                for name in sorted(HOSTS, key=lambda name: -num_on(hosts[name], INGRESS)):
                    results.append(kill_host(service, folder, hosts, name, deadline_s))
                    print(results[-1], flush=True)
                results.append(roll(service, folder, deadline_s))
    finally:
        stop_all([head, *hosts.values()])
    shutil.rmtree(folder, ignore_errors=True)
    return results


def main() -> None:
    arguments = options(__doc__, deadline=(30.0, "of a call, s")).parse_args()
    run_in_own_namespaces("benchmarks.cluster_serving")
    conclude("cluster_serving", measure(arguments.deadline))


if __name__ == "__main__":
    main()
