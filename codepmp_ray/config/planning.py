"""What the plan of a synthesis job is asked for. None of it changes what the job makes."""

from __future__ import annotations

from codepmp_ray.config.base import Section, operational


class PlanningConfig(Section):
    """The question that `jobs.plan` answers.

    Attributes:
        pilot_rows: snippets that every engine pool is measured on, spread over all shards; null
            takes four times as many as an engine has at once, so that most of them meet a full one.
        num_rows: snippets of the whole job; null for those of the corpus stage.
        num_gpus: GPUs to plan for; null for those of the cluster (or its CPUs when it has none).
        price_per_gpu_hour: in any currency; null leaves prices out.
    """

    pilot_rows: int | None = operational(None, ge=1)
    num_rows: int | None = operational(None, ge=1)
    num_gpus: int | None = operational(None, ge=1)
    price_per_gpu_hour: float | None = operational(None, ge=0)
