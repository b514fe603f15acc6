"""What measured rates mean for a recipe: pure functions from figures to findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codepmp_ray.cluster.check_findings import Finding
from codepmp_ray.cluster.deep_probe import ModelTimes


@dataclass(frozen=True)
class StorageRates:
    """Bytes per second of all nodes together."""

    num_nodes: int
    write: float
    read: float


@dataclass(frozen=True)
class ReduceRate:
    """An all-reduce of `num_bytes` on each of `num_workers` ranks took `seconds`."""

    num_workers: int
    num_nodes: int
    num_bytes: int
    seconds: float

    @property
    def bus(self) -> float:
        """Bytes per second on the slowest link, as nccl-tests count them: 2 (n - 1) / n of what is
        summed passes it, for any number n of ranks."""
        share = 2 * (self.num_workers - 1) / self.num_workers
        return share * self.num_bytes / self.seconds


@dataclass(frozen=True)
class TrainingSize:
    """What a training moves, by the memory planner.

    Attributes:
        gradient_bytes: that workers sum up in a step, fp32.
        checkpoint_bytes: of parameters and optimizer state, all workers together.
        stop_timeout_s: what `ray job stop` leaves for the last checkpoint.
    """

    stage: str
    gradient_bytes: float
    checkpoint_bytes: float
    stop_timeout_s: float


def storage_findings(rates: StorageRates, trainings: Sequence[TrainingSize]) -> list[Finding]:
    """The rates, and for each training how long a checkpoint takes against its time to stop."""
    text = (
        f"{_nodes(rates.num_nodes)} at once write {_rate(rates.write)} and read "
        f"{_rate(rates.read)}, all together"
    )
    findings = [Finding("storage rate", "ok", text)]
    for size in trainings:
        took_s = size.checkpoint_bytes / rates.write
        text = (
            f"{size.stage}: a checkpoint of {_bytes(size.checkpoint_bytes)} takes {took_s:,.1f} s "
            f"at that rate; stopping waits {size.stop_timeout_s:g} s for the last one"
        )
        if took_s < size.stop_timeout_s:
            findings.append(Finding("storage rate", "ok", text))
            continue
        remedy = (
            f"Raise {size.stage}.stop_timeout_s above {took_s:.0f}, and RAY_JOB_STOP_WAIT_TIME_S "
            "above that, or use faster storage."
        )
        findings.append(Finding("storage rate", "warn", text, remedy))
    return findings


def reduce_finding(rate: ReduceRate, trainings: Sequence[TrainingSize]) -> Finding:
    """The bandwidth, and how long the gradients of a step take. How long a step computes no planner
    knows, so that nothing is judged."""
    text = (
        f"{rate.num_workers} workers on {_nodes(rate.num_nodes)}: all-reduce of "
        f"{_bytes(rate.num_bytes)} in {rate.seconds:.3f} s, {_rate(rate.bus)} of bus bandwidth"
    )
    share = 2 * (rate.num_workers - 1) / rate.num_workers
    for size in trainings:
        took_s = share * size.gradient_bytes / rate.bus
        text += (
            f"; {size.stage}: {_bytes(size.gradient_bytes)} of gradients, {took_s:,.2f} s a step"
        )
    return Finding("all-reduce", "ok", text)


def model_finding(name: str, node: str, times: ModelTimes) -> Finding:
    """Only reported: nothing waits for a model but who starts."""
    text = (
        f"{name} on {node}: fetched anew in {times.fetch_s:.1f} s, {_bytes(times.num_bytes)} read "
        f"in {times.read_s:.1f} s"
    )
    return Finding("model time", "ok", text)


def _nodes(count: int) -> str:
    return f"{count} {'nodes' if count > 1 else 'node'}"


def _bytes(count: float) -> str:
    return f"{count / 1e9:,.2f} GB"


def _rate(per_s: float) -> str:
    return f"{per_s / 1e6:,.0f} MB/s"
