"""A submission as KubeRay's RayJob: a string for three shells, and names that Kubernetes takes."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from codepmp_ray.cluster.submit import Submission
from codepmp_ray.errors import ConfigError

# KubeRay's: of a longer name it makes another. As Kubernetes wants names of services.
_RAYJOB_NAME = re.compile(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?")
# In double quotes, where KubeRay puts the environment, a shell leaves these as they are.
_UNCHANGED = re.compile(r"[ -#%-_a-~]*")


def rayjob_manifest(
    submission: Submission,
    template: str,
    name: str | None = None,
    images: Mapping[str, str] | None = None,
) -> str:
    """`template`, a RayJob in YAML, filled in for KubeRay; the image has the code on its path.

    `images` are by the names that the template has for them. The RayJob's own name follows from the
    work unless given: applied again, it is the same one.
    Raises ConfigError for what would not arrive as it is: KubeRay pastes the entrypoint into a
    script of the submitter's shell, whose words Ray joins again for the shell of the head, and the
    environment in double quotes.
    """
    for word in submission.arguments:
        if shlex.quote(word) != word:
            raise ConfigError(
                f"{word!r} holds characters that shells read, and a RayJob passes through three.",
                "Put it into the recipe, or submit through the jobs API, without --rayjob.",
            )
    for variable, value in submission.env_vars.items():
        if not _UNCHANGED.fullmatch(value):
            raise ConfigError(
                f"--env {variable}: its value holds $, a backquote or what is not printable "
                "ASCII, which does not pass through a RayJob.",
                "Put it into a secret that the cluster's pods read (codepmp-credentials).",
            )
    name = name or submission.base_id.replace("_", "-")
    if not _RAYJOB_NAME.fullmatch(name):
        raise ConfigError(
            f"--id {name} is no name of a RayJob.",
            "Give at most 47 letters a-z, digits and -, beginning with a letter.",
        )
    job: Any = yaml.safe_load(template)
    job["metadata"]["name"] = name
    job["metadata"]["annotations"] = {"codepmp/command": submission.line or submission.entrypoint}
    job["spec"]["entrypoint"] = submission.entrypoint
    for container in job["spec"]["submitterPodTemplate"]["spec"]["containers"]:
        container["image"] = (images or {}).get(container["image"], container["image"])
    env_vars = {**yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"], **submission.env_vars}
    # JSON is YAML whose texts are texts for every reader: elsewhere 0o7 or 1_0 is a number.
    job["spec"]["runtimeEnvYAML"] = json.dumps({"env_vars": env_vars})
    return yaml.safe_dump(job, sort_keys=False, width=math.inf)
