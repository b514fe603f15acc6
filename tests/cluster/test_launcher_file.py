"""Launcher files, checked offline by the functions that `ray up` itself calls first."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.util import prepare_config, validate_config

from codepmp_ray.cluster.placement import Need, matching, offers_of_node_types, require_fit
from codepmp_ray.config.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
CLOUDS = ("cluster.yaml", "deploy/launcher/gcp.yaml")
FILES = (*CLOUDS, "deploy/launcher/on-premises.yaml")
WITHOUT_GPU = {"cpu", "grader"}
ROLES = {"strong-synthesis", "weak-synthesis", "trainer", "server", "large-trainer", "large-server"}
ON_SPOT = {"strong-synthesis", "weak-synthesis", *WITHOUT_GPU}


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(name: str) -> None:
    config = prepare_config(copy.deepcopy(read(name)))
    validate_config(config)
    # The file's own commands, not those of Ray's defaults, which install another Ray.
    assert config["setup_commands"][0].endswith("scripts/setup.sh")
    assert "dev" not in config["setup_commands"][0].partition("CODEPMP_EXTRAS=")[2].split()[0]


@pytest.mark.parametrize("name", FILES)
def test_an_unknown_key_would_be_noticed(name: str) -> None:
    raw = read(name)
    raw["max_worker"] = 3
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(prepare_config(raw))


@pytest.mark.parametrize("name", CLOUDS)
def test_the_roles_start_empty_and_can_grow_to_the_total(name: str) -> None:
    raw = read(name)
    types = raw["available_node_types"]
    workers = {key: node for key, node in types.items() if key != raw["head_node_type"]}
    assert set(workers) == ROLES | WITHOUT_GPU
    assert all(node["min_workers"] == 0 < node["max_workers"] for node in workers.values())
    assert raw["max_workers"] == sum(node["max_workers"] for node in workers.values())
    # Ray Data's tasks ask for memory: a type that declares none is never started for them.
    assert all(node["resources"]["memory"] > 0 for node in types.values())
    assert {key for key, node in workers.items() if "GPU" not in node["resources"]} == WITHOUT_GPU
    # Tasks that ask for no label go to workers, not beside the control plane.
    assert types[raw["head_node_type"]]["resources"]["CPU"] == 0
    assert all(node["labels"] == {"codepmp-role": key} for key, node in workers.items())


def test_what_costs_shards_only_runs_on_spot_and_the_rest_does_not() -> None:
    aws, gcp = (read(name)["available_node_types"] for name in CLOUDS)
    on_spot = {name for name, node in aws.items() if "InstanceMarketOptions" in node["node_config"]}
    preemptible = {
        name
        for name, node in gcp.items()
        if {"preemptible": True} in node["node_config"].get("scheduling", [])
    }
    assert on_spot == preemptible == ON_SPOT


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize(
    ("recipe_name", "placement", "size"),
    [("qwen2-1.5b-math", "placement.args", ""), ("qwen2-72b-math", "placement-72b.args", "large-")],
)
def test_placement_finds_nodes_that_hold_the_recipe(
    name: str, recipe_name: str, placement: str, size: str
) -> None:
    overrides = (ROOT / "deploy" / placement).read_text(encoding="utf-8").split()
    recipe = load_recipe(recipe_name, overrides)
    engines, training, serving = recipe.engines, recipe.pretraining, recipe.serving
    asked = {
        "strong-synthesis": engines.strong.label_selector,
        "weak-synthesis": engines.weak.label_selector,
        f"{size}trainer": training.label_selector,
        f"{size}server": serving.label_selector,
    }
    assert recipe.finetuning.label_selector == training.label_selector
    offers = offers_of_node_types(read(name), name)
    for role, selector in asked.items():
        assert [offer.name for offer in matching(offers, selector)] == [role]
    gpus = float(serving.num_gpus or 1)
    require_fit(
        [
            Need(
                "strong", {"CPU": engines.strong.num_cpus, "GPU": 1}, 1, asked["strong-synthesis"]
            ),
            Need("pretraining", {"GPU": 1}, training.num_workers, asked[f"{size}trainer"]),
            Need("serving", {"CPU": serving.num_cpus, "GPU": gpus}, 1, asked[f"{size}server"]),
        ],
        offers,
    )


def test_on_aws_a_node_holds_its_own_role_in_one_zone_behind_our_own_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Ray's own bootstrap makes of the file: left alone it gives workers no role, the head one
    that may do anything to machines, and everybody ssh."""
    (tmp_path / ".ssh").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "mock")
    with mock_aws():
        ec2 = boto3.client("ec2", "us-west-2")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        zone = {"VpcId": vpc, "AvailabilityZone": "us-west-2a"}
        subnet = ec2.create_subnet(CidrBlock="10.0.1.0/24", **zone)["Subnet"]["SubnetId"]
        ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": True})
        group = ec2.create_security_group(GroupName="n", Description="d", VpcId=vpc)["GroupId"]
        text = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
        for name, value in {"subnet-": subnet, "sg-": group, "iam::": "iam::123456789012"}.items():
            text = text.replace(f"{name}REPLACE", value)
        config = prepare_config(yaml.safe_load(text.replace("ami-REPLACE", "ami-12c6146b")))
        made = bootstrap_aws({**config, "file_mounts": {}})["available_node_types"]
        groups = ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc]}])
    assert {found["GroupName"] for found in groups["SecurityGroups"]} == {"default", "n"}
    for name, node in made.items():
        asked = node["node_config"]
        role = "codepmp-head" if name == "head" else "codepmp-worker"
        assert asked["IamInstanceProfile"]["Arn"].endswith(f":instance-profile/{role}")
        assert (asked["SubnetIds"], asked["SecurityGroupIds"]) == ([subnet], [group])
        assert asked["MetadataOptions"]["HttpTokens"] == "required"
        assert ("Placement" in asked) == ("trainer" in name)


class _Template(yaml.SafeLoader):
    """YAML of CloudFormation: what its own tags hold, as it is."""


_Template.add_multi_constructor("!", lambda loader, tag, node: loader.construct_scalar(node))


def test_roles_of_aws_allow_what_nodes_do_and_no_more() -> None:
    text = (ROOT / "deploy/launcher/aws.cfn.yaml").read_text(encoding="utf-8")
    resources = yaml.load(text, Loader=_Template)["Resources"]
    bucket = resources["BucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    worker, head = (resources[f"{name}Role"]["Properties"] for name in ("Worker", "Head"))
    assert "Policies" not in worker and worker["ManagedPolicyArns"] == ["BucketPolicy"]
    (policy,) = head["Policies"]
    statements = [*bucket, *policy["PolicyDocument"]["Statement"]]
    assert not any("*" in action for item in statements for action in item["Action"])
    for item in statements:  # what changes machines is bound to the cluster's tag
        if {"ec2:RunInstances", "ec2:TerminateInstances", "ec2:CreateTags"} & {*item["Action"]}:
            assert item["Condition"]
    names = {key: value["Properties"] for key, value in resources.items()}
    profiles = {names[f"{n}Profile"]["InstanceProfileName"] for n in ("Worker", "Head")}
    assert profiles == {"codepmp-worker", "codepmp-head"}
    launcher = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
    for name in (*profiles, names["Trainers"]["GroupName"]):
        assert name in launcher


def test_workers_of_google_have_an_account() -> None:
    types = read("deploy/launcher/gcp.yaml")["available_node_types"]
    accounts = [node["node_config"].get("serviceAccounts") for key, node in types.items()]
    assert accounts[0] is None and all(account for account in accounts[1:])


@pytest.mark.parametrize("name", FILES)
def test_no_data_and_no_results_go_to_the_nodes(name: str) -> None:
    assert {"/data/", "/runs/", ".venv/", ".git/"} <= set(read(name)["rsync_exclude"])
    ignored = (ROOT / ".rayignore").read_text(encoding="utf-8").splitlines()
    assert {"/data/", "runs/", ".venv/", ".git/"} <= set(ignored)


def test_the_clouds_differ_in_machines_only() -> None:
    aws, gcp = (read(name) for name in CLOUDS)
    for key in ("file_mounts", "head_start_ray_commands", "rsync_exclude"):
        assert aws[key] == gcp[key]
    # Each has the client of its own store.
    own = [command.replace("demo,s3 ", "demo,gcs ") for command in aws["setup_commands"]]
    assert own == gcp["setup_commands"]
    assert aws["worker_start_ray_commands"] == gcp["worker_start_ray_commands"]


@pytest.mark.parametrize("name", FILES)
def test_nodes_authenticate_and_jobs_get_time_to_stop(name: str) -> None:
    raw = read(name)
    assert "~/.ray/auth_token" in raw["file_mounts"]
    head, worker = raw["head_start_ray_commands"][-1], raw["worker_start_ray_commands"][-1]
    assert all("RAY_AUTH_MODE=token" in command for command in (head, worker))
    assert "--dashboard-host=127.0.0.1" in head
    wait_s = re.search(r"RAY_JOB_STOP_WAIT_TIME_S=(\d+)", head)
    recipe = load_recipe(ROOT / "jobs/recipes/laptop.yaml")
    promised_s = max(recipe.pretraining.stop_timeout_s, recipe.serving.drain_timeout_s)
    assert wait_s and int(wait_s[1]) > promised_s


@pytest.mark.parametrize("name", CLOUDS)
def test_the_head_knows_which_nodes_may_come(name: str) -> None:
    command = read(name)["head_start_ray_commands"][-1]
    # `ray up` puts the whole file there, for the autoscaler; the preflight reads it too.
    assert "CODEPMP_NODE_TYPES=$HOME/ray_bootstrap_config.yaml" in command
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in command


def test_hosts_that_are_there_already_take_their_label_from_a_file() -> None:
    command = read(FILES[2])["worker_start_ray_commands"][-1]
    assert '--labels="$(cat ~/codepmp-labels 2>/dev/null)"' in command
