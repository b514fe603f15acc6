"""Train a policy by GRPO (TRL) with the best-of-N service as its reward, then measure it.

The judge is CodePMP's reward model of the study seed004_grpo, whose options say the rest. The
service runs while the job runs. Needs the extra `rl`.
"""

from __future__ import annotations

from codepmp_ray.config.studies import StudiesConfig, load_studies
from jobs._cli import run_job
from jobs.study import DEFAULT_STUDIES

NAME = "seed004_grpo"


def body(config: StudiesConfig) -> None:
    from codepmp_ray.cluster.laboratory import connected
    from codepmp_ray.cluster.study_run import run_study
    from codepmp_ray.studies.bench import Bench
    from codepmp_ray.studies.catalogue import STUDIES
    from codepmp_ray.studies.report import print_study, write_reports

    bench = Bench(config)
    with connected(bench):
        record = run_study(STUDIES[NAME], bench, alone=True, prepare=train_policy)
    print_study(record)
    print(f"Report: {write_reports(bench, [record], NAME)}")


def train_policy(bench) -> None:
    """Train the judge and, against it, the policy, if they are not there yet."""
    from codepmp_ray.client import RewardClient
    from codepmp_ray.client.rewards import trl_reward_function
    from codepmp_ray.cluster.laboratory import Laboratory
    from codepmp_ray.config.evaluation import ServingConfig
    from codepmp_ray.config.recipe import Recipe
    from codepmp_ray.studies.catalogue import grpo
    from codepmp_ray.studies.catalogue.policies import base_weights
    from codepmp_ray.studies.grpo import require_trl, train_grpo
    from codepmp_ray.studies.study import Context

    require_trl()
    context = Context(NAME, bench, bench.config.options(NAME))
    folder = bench.run_dir / grpo.folder_name(context)
    if folder.exists():
        return
    (arm,) = grpo.arms(context)
    judge = Laboratory(bench).train(arm.by_seed[0])
    folder.parent.mkdir(parents=True, exist_ok=True)
    from codepmp_ray.serve.launch import running_service

    scoring = bench.config.scoring
    serving = ServingConfig(engine=scoring.engine, max_model_len=scoring.max_model_len)
    recipe = Recipe(name=NAME, run_dir=str(bench.run_dir), serving=serving)
    with (
        running_service(recipe, judge.folder) as service,
        RewardClient(service.url, service.api_key) as client,
    ):
        train_grpo(
            base_weights(context),
            grpo.training_prompts(context),
            trl_reward_function(client),
            folder,
            grpo.settings_of(context),
        )


if __name__ == "__main__":
    run_job(__doc__, body, load=load_studies, default=DEFAULT_STUDIES)
