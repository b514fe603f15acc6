"""What a command line asks of a cluster: a job, its settings, and what tells this work from other.

The recipe is resolved here, with names, overrides and @FILEs, and travels as text. What means
something on this machine only is refused before a cluster is asked.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codepmp_ray.command.registry import COMMANDS, Command, commands_of_jobs
from codepmp_ray.errors import CodePMPError, ConfigError

if TYPE_CHECKING:
    from codepmp_ray.config.base import Section

_COMMON = ("config", "overrides")
_MAX_LISTED = 10_000


@dataclass(frozen=True)
class Asked:
    """One command line, resolved.

    Attributes:
        line: what was typed, for people; without credentials of URLs.
        arguments: of the job on the cluster.
        env_vars: the recipe.
        identity: the resolved settings, options, and local files that they name.
        code: digest of what would run.
    """

    spec: Command
    line: str
    arguments: tuple[str, ...]
    env_vars: dict[str, str]
    identity: Any
    code: str
    settings: Any
    options: dict[str, Any]

    def is_done(self) -> bool:
        """Whether the run directory, as this machine sees it, holds all that the job makes."""
        from codepmp_ray.command.reusing import arms_of
        from codepmp_ray.other_settings import reusing
        from codepmp_ray.runs import open_stage

        makes = self.spec.makes
        if not makes or self.options.get("dry_run"):
            return False
        try:
            recipe, _ = reusing(self.settings, self.options.get("reuse") or [])
            arms = arms_of(recipe, makes, bool(self.options.get("compare")))
            return all(open_stage(own, name).is_complete for own, names in arms for name in names)
        except CodePMPError:  # not seen from here: the job says more
            return False


def resolve(words: list[str]) -> Asked:
    """The job that a line such as `pairs make -c laptop run_dir=/mnt/x` asks for.

    Raises ConfigError for what is no job, a bad recipe, and places that only this machine knows.
    """
    from codepmp_ray.command.app import leaf, settings_of
    from codepmp_ray.config.carried import NAME, VARIABLE, as_text
    from codepmp_ray.config.places import require_common_places
    from codepmp_ray.redaction import redacted
    from codepmp_ray.versions import code_digest

    spec, own = _command_of(words)
    given = leaf(spec).make_context(spec.path, list(own)).params
    settings, others = settings_of(spec, given)
    options = {name: value for name, value in given.items() if name not in _COMMON}
    _require_common_words(spec, options, others)
    arguments = [*_as_words(spec, options), *others]
    if spec.is_direct and others and not given["config"]:
        # No recipe: what is not set suits the model, and nothing is kept in a run directory.
        arguments += [word for word in given["overrides"] if word not in others]
        env_vars = {}
        require_common_places(settings, but=("run_dir",))
    else:
        require_common_places(settings)
        arguments += ["--config", NAME]
        env_vars = {VARIABLE: as_text(settings)}
    _say_what_others_can_read(settings)
    identity = [settings.model_dump(mode="json"), options, others, _files(settings)]
    line = redacted(shlex.join(["codepmp", *spec.path.split(), *own]))
    return Asked(spec, line, tuple(arguments), env_vars, identity, code_digest(), settings, options)


def _command_of(words: list[str]) -> tuple[Command, list[str]]:
    """The command of a line such as `synthesize a=b` or `pairs make a=b`, and its own arguments."""
    jobs = {name: spec for name, spec in commands_of_jobs().items() if name != "submit"}
    for num in (1, 2):
        name = " ".join(words[:num])
        spec = jobs.get(name) or COMMANDS.get(name)
        if spec is not None and spec.job in jobs:
            return spec, words[num:]
    from codepmp_ray.config.recipe import did_you_mean

    name = words[0] if words else ""
    raise ConfigError(
        f"{name!r} is not a job ({did_you_mean(name, jobs, 'jobs')}).",
        "Name a command that is a job too, such as `run` or `pairs make`.",
    )


def _as_words(spec: Command, options: dict[str, Any]) -> Iterator[str]:
    """Options as they are typed."""
    from codepmp_ray.command.app import leaf

    for parameter in leaf(spec).params:
        value = options.get(str(parameter.name))
        if parameter.param_type_name != "option" or value in (None, False, [], ()):
            continue
        name = parameter.opts[0]
        if value is True:
            yield name
        else:
            for item in value if isinstance(value, list | tuple) else [value]:
                yield from (name, str(item))


def _require_common_words(spec: Command, options: dict[str, Any], words: list[str]) -> None:
    """Raise ConfigError for files and models, beside the recipe's, that only this machine knows."""
    from codepmp_ray.command.app import leaf
    from codepmp_ray.config.places import Place, require_common

    is_file = {p.name: p.opts[-1] for p in leaf(spec).params if _names_a_file(p)}
    places = [Place(is_file[k], str(v)) for k, v in options.items() if k in is_file and v]
    for kind, word in zip(spec.words.split(), words, strict=False):
        if kind in ("MODEL", "FILE"):
            places.append(Place(kind, word, may_be_hub_name=kind == "MODEL"))
    require_common(places)


def _names_a_file(parameter: Any) -> bool:
    return parameter.param_type_name == "option" and parameter.metavar == "FILE"


def _files(settings: Section) -> dict[str, str]:
    """Digests of local files that settings name; of folders by names, sizes and times of their
    first _MAX_LISTED files, since a source may hold billions.

    What lies at URIs is told apart by the stages' own fingerprints.
    """
    from codepmp_ray.config.places import places_of
    from codepmp_ray.content_digests import content_digest
    from codepmp_ray.storage.uris import is_uri, strip_file_scheme

    found = {}
    for place in places_of(settings):
        path = Path(strip_file_scheme(place.value))
        if place.key in ("run_dir", "data_dir") or is_uri(place.value):
            continue
        if path.is_file():
            found[place.key] = content_digest(place.value)
        elif path.is_dir():
            found[place.key] = _listing_digest(path)
    return found


def _listing_digest(folder: Path) -> str:
    import hashlib

    digest = hashlib.sha256()
    for file in islice(_files_below(folder), _MAX_LISTED):
        facts = file.stat(follow_symlinks=False)
        name = file.relative_to(folder)
        digest.update(
            f"{name}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode("utf-8", "surrogateescape")
        )
    return digest.hexdigest()


def _files_below(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(root, name) for name in sorted(names))


def _say_what_others_can_read(settings: Section) -> None:
    from codepmp_ray.redaction import with_credentials

    if names := list(with_credentials(settings.model_dump(mode="json"))):
        print(
            f"{', '.join(names)}: whoever may read the jobs API of the cluster can read the "
            "credentials in it. The nodes' own (a role, a mounted secret) are shown to nobody.",
            file=sys.stderr,
        )
