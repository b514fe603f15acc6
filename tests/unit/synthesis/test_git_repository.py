"""Reading git repositories of others: every form of them, and nothing of theirs is run."""

import json
import subprocess
from pathlib import Path

import pytest

from codepmp_ray.errors import InputError
from codepmp_ray.synthesis.history.repository import Change, open_repository
from tests.unit.synthesis.git_repositories import PERSON, commit, git, new_repository


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = new_repository(tmp_path / "a repository")
    commit(folder, "one", {"a.py": "x = 1\n", "b/ü.py": "y = 1\n"})
    commit(folder, "two\n\nmore", {"a.py": "x = 2\n", "b/ü.py": None, "new": "z"})
    return folder


def history(folder: Path, revision: str = "HEAD") -> list[str]:
    with open_repository(folder) as repository:
        return repository.commits(repository.resolve(revision), None)


def test_commits_and_changes_are_those_that_git_tells(folder: Path) -> None:
    oids = git(folder, "rev-list", "HEAD").split()
    with open_repository(folder) as repository:
        assert repository.commits(oids[0], None) == oids
        assert repository.commits(oids[0], 1) == oids[:1]
        last, first = repository.read_commits(oids)
        assert (first.parents, last.parents) == ((), (first.oid,))
        assert (last.author, last.message) == (PERSON, "two\n\nmore\n")
        blobs = [git(folder, "rev-parse", f"{oid}:a.py") for oid in (oids[1], oids[0])]
        assert repository.changes([last]) == {last.oid: [Change("a.py", *blobs)]}
        assert dict(repository.read(blobs)) == {blobs[0]: b"x = 1\n", blobs[1]: b"x = 2\n"}
        assert repository.sizes([*blobs, "0" * 40]) == dict.fromkeys(blobs, 6)
        with pytest.raises(InputError, match="no object"):
            list(repository.read(["0" * 40]))


def test_odd_names_modes_and_encodings(folder: Path) -> None:
    names = ["with space.py", "new\nline.py", ":colon.py", "é.py"]
    commit(folder, "names", {**dict.fromkeys(names, "x = 1\n"), "run.py": "x = 1\n"})
    (folder / "link.py").symlink_to("a.py")
    git(folder, "add", "-A")
    git(folder, "update-index", "--chmod=+x", "run.py")
    git(folder, "commit", "-q", "-m", "mode alone")
    (folder / "link.py").unlink()
    (folder / "link.py").symlink_to("new")
    git(folder, "-c", "i18n.commitEncoding=latin-1", "commit", "-q", "-am", "for the next one")
    files = dict.fromkeys(names, "x = 2\n")
    oid = commit(folder, "change", files)
    with open_repository(folder) as repository:
        oids = repository.commits(oid, 3)
        commits = repository.read_commits(oids)
        changed = repository.changes(commits)
        assert {change.path for change in changed.pop(oid)} == {*names}
        assert changed == {}  # neither a mode nor where a link leads is code


@pytest.mark.parametrize("form", ["bare", "worktree", "packed", "detached", "tag", "shallow"])
def test_every_form_of_a_repository_is_read(folder: Path, tmp_path: Path, form: str) -> None:
    wanted, revision, place = git(folder, "rev-list", "HEAD").split(), "HEAD", folder
    if form == "bare":
        place = tmp_path / "bare.git"
        git(tmp_path, "clone", "-q", "--bare", str(folder), str(place))
    elif form == "worktree":
        place = tmp_path / "tree"
        git(folder, "worktree", "add", "-q", "-b", "side", str(place), wanted[1])
        wanted = wanted[1:]
    elif form == "packed":
        git(folder, "gc", "-q")
        git(folder, "pack-refs", "--all")
        revision = "main"
    elif form == "detached":
        git(folder, "checkout", "-q", wanted[1])
        wanted = wanted[1:]
    elif form == "tag":
        git(folder, "tag", "-a", "-m", "of note", "v1/x", wanted[1])
        wanted, revision = wanted[1:], "v1/x"
    else:
        place = tmp_path / "shallow"
        git(tmp_path, "clone", "-q", "--depth=1", f"file://{folder}", str(place))
        wanted = wanted[:1]
    assert history(place, revision) == wanted
    assert history(place, wanted[-1]) == wanted[-1:] or form == "shallow"


@pytest.mark.parametrize(
    "revision", ["nowhere", "../../etc/passwd", "--output=x", "main~1", "", "HEAD\nHEAD", "f" * 40]
)
def test_a_name_that_means_no_commit_is_refused(folder: Path, revision: str) -> None:
    with pytest.raises(InputError):
        history(folder, revision)


def test_what_is_no_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no git repository"):
        history(tmp_path)
    (tmp_path / ".git").write_text("gitdir: nowhere")
    with pytest.raises(InputError, match="is no git repository"):
        history(tmp_path)


def test_nothing_of_a_strange_repository_is_run(folder: Path, tmp_path: Path) -> None:
    """Its configuration names programs for all that git would do here; missing blobs are a bait."""
    proof, program = tmp_path / "was run", tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho $0 $* >> {json.dumps(str(proof))}\nexit 1\n")
    program.chmod(0o755)
    (folder / ".gitattributes").write_text("*.py diff=evil filter=evil\n")
    commit(folder, "attributes", {"a.py": "x = 3\n"})
    oid = commit(folder, "last", {"a.py": "x = 4\n"})
    blobs = [git(folder, "rev-parse", f"{name}:a.py") for name in ("HEAD~1", "HEAD")]
    missing = folder / ".git" / "objects" / blobs[0][:2] / blobs[0][2:]
    missing.unlink()
    settings = {
        "core.fsmonitor": program, "core.pager": program, "core.sshCommand": program,
        "core.hooksPath": tmp_path, "core.alternateRefsCommand": program, "core.editor": program,
        "diff.external": program, "diff.evil.textconv": program, "diff.evil.command": program,
        "filter.evil.smudge": program, "filter.evil.clean": program, "pager.rev-list": program,
        "alias.rev-list": f"!{program}", "alias.cat-file": f"!{program}",
        "remote.origin.url": f"ext::{program}", "remote.origin.promisor": "true",
        "remote.origin.partialclonefilter": "blob:none", "extensions.partialClone": "origin",
        "protocol.ext.allow": "always", "uploadpack.packObjectsHook": program,
    }  # fmt: skip
    lines = []
    for key, value in settings.items():
        section, name = key.rsplit(".", 1)
        head, _, sub = section.partition(".")
        lines.append(f"[{head} {json.dumps(sub)}]" if sub else f"[{head}]")
        lines.append(f"\t{name} = {json.dumps(str(value))}")
    with open(folder / ".git" / "config", "a") as file:
        file.write("\n".join(lines) + "\n")
    for hook in ("post-checkout", "reference-transaction", "pre-auto-gc"):
        (folder / ".git" / "hooks").mkdir(exist_ok=True)
        (folder / ".git" / "hooks" / hook).symlink_to(program)
    with open_repository(folder) as repository:
        commits = repository.read_commits(repository.commits(repository.resolve("HEAD"), None))
        assert repository.changes(commits[:1]) == {oid: [Change("a.py", *blobs)]}
        assert [*repository.sizes(blobs)] == blobs[1:]
        assert dict(repository.read(blobs[1:])) == {blobs[1]: b"x = 4\n"}
    assert not proof.exists()
    # The bait is one: git itself, in that folder, runs the program for the missing blob.
    command = ["git", "cat-file", "blob", blobs[0]]
    subprocess.run(command, cwd=folder, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    assert proof.exists()
