"""Git repositories for tests, written by git itself."""

import os
import subprocess
from pathlib import Path

PERSON = "A Person <person@example.com>"


def git(folder: Path, *arguments: str, author: str = PERSON) -> str:
    name, _, address = author.rstrip(">").partition(" <")
    who = {f"GIT_{role}_NAME": name for role in ("AUTHOR", "COMMITTER")}
    who |= {f"GIT_{role}_EMAIL": address for role in ("AUTHOR", "COMMITTER")}
    plain = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=os.environ | who | plain,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def new_repository(folder: Path) -> Path:
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    return folder


def commit(
    folder: Path, message: str, files: dict[str, str | bytes | None], author: str = PERSON
) -> str:
    """Write (None: remove) files and commit them; the commit's id."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", message, author=author)
    return git(folder, "rev-parse", "HEAD")
