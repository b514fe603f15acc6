"""Callers of a running service through our client, their failed calls, and its processes."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil
from ray import serve

from benchmarks._fake_scoring import expected_reward
from codepmp_ray.client import RewardClient
from codepmp_ray.errors import CodePMPError
from codepmp_ray.serve.replicas import SCORER_NAME

# Names of Serve's processes, as Ray titles them.
SCORER, INGRESS, PROXY = ":ScorerReplica", ":Ingress", "ProxyActor"
Check = Callable[[list[str], list[float]], bool]


@dataclass
class Calls:
    """`failures` says of each failed call when (seconds since the start) and why."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def num(self) -> int:
        return len(self.seconds)

    @property
    def longest_s(self) -> float:
        return max(self.seconds, default=0.0)


def as_the_fake_scores(*offsets: float) -> Check:
    """All rewards of an answer are those of one of these versions of the fake model."""

    def check(texts: list[str], rewards: list[float]) -> bool:
        for offset in offsets:
            expected = [expected_reward(text, offset) for text in texts]
            if all(abs(a - b) < 1e-6 for a, b in zip(expected, rewards, strict=True)):
                return True
        return False

    return check


@contextmanager
def load(
    url: str, key: str, num_callers: int, deadline_s: float, check: Check | None = None
) -> Iterator[Calls]:
    """`num_callers` threads call without a pause until the block ends; it waits for the last calls.

    A call fails that raises, that takes longer than `deadline_s` with all its retries, or whose
    rewards do not pass `check`.
    """
    calls, stop, start_s = Calls(), threading.Event(), time.monotonic()

    def call_on(number: int) -> None:
        choice = random.Random(number)
        with RewardClient(url, key) as client:
            while not stop.is_set():
                texts = [f"answer {choice.random()}" for _ in range(choice.choice([2, 4, 16]))]
                begun_s = time.monotonic()
                reason = ""
                try:
                    rewards = client.choose(f"prompt {choice.randrange(8)}", texts).rewards
                    if check is not None and not check(texts, rewards):
                        reason = f"wrong rewards {rewards[:3]}"
                except CodePMPError as error:
                    reason = str(error)
                took_s = time.monotonic() - begun_s
                calls.seconds.append(took_s)
                if reason or took_s > deadline_s:
                    what = reason or f"took {took_s:.1f} s"
                    calls.failures.append(f"{begun_s - start_s:.1f} s: {what}")

    threads = [threading.Thread(target=call_on, args=[i], daemon=True) for i in range(num_callers)]
    for thread in threads:
        thread.start()
    try:
        yield calls
    finally:
        stop.set()
        for thread in threads:
            thread.join(2 * deadline_s)


def processes(title: str, below: psutil.Process | None = None) -> list[psutil.Process]:
    """Serve's processes of this kind among those that this process's Ray started."""
    found = []
    for process in (below or psutil.Process()).children(recursive=True):
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if line.startswith("ray::") and title in line:
            found.append(process)
    return found


def kill_one(title: str, choice: random.Random) -> bool:
    """SIGKILL one process of this kind; False if there is none at this moment."""
    victims = processes(title)
    if not victims:
        return False
    choice.choice(victims).kill()
    return True


def num_running() -> float:
    """Scorer replicas that Serve says are running; NaN while its controller, which may be starting
    again, tells nothing of them.
    """
    for app in serve.status().applications.values():
        if (scorers := app.deployments.get(SCORER_NAME)) is not None:
            return scorers.replica_states.get("RUNNING", 0)
    return float("nan")


def seconds_until(is_so: Callable[[], bool], give_up_s: float = 180.0) -> float:
    """How long it took. Raises TimeoutError when it takes too long."""
    start_s = time.monotonic()
    while not is_so():
        if time.monotonic() - start_s > give_up_s:
            raise TimeoutError(f"not so after {give_up_s:g} s")
        time.sleep(0.1)
    return time.monotonic() - start_s
