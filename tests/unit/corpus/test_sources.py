"""Listing of sources: what belongs to them, in which order, and what a change looks like."""

import os
import platform
from pathlib import Path

import pytest

from codepmp_ray.config.corpus import CorpusConfig, SourceConfig
from codepmp_ray.corpus.sources import (
    check_corpus_config,
    list_files,
    listing_digest,
    source_repo,
    source_root,
)
from codepmp_ray.errors import ConfigError, InputError


def folder(path: Path, **settings: str) -> SourceConfig:
    return SourceConfig(kind="folder", path=str(path), **settings)


def write(path: Path, text: str = "x = 1\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_folder_is_listed_in_order_without_hidden_files_and_the_run_directory(
    tmp_path: Path,
) -> None:
    for name in ("b/z.py", "b/a b.py", "a.py", ".git/x", "c/.hidden.py", "__pycache__/x.pyc"):
        write(tmp_path / name)
    write(tmp_path / "runs/corpus-1/manifest.json")
    (tmp_path / "link").symlink_to(tmp_path / "b")
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere")
    files = list_files(folder(tmp_path), tmp_path / "runs")
    assert [file.name for file in files] == ["a.py", "b/a b.py", "b/z.py", "gone.py"]
    assert source_repo(folder(tmp_path), tmp_path) == tmp_path.name


def test_the_digest_tells_every_kind_of_change(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.py"), write(tmp_path / "b.py")

    def digest() -> str:
        return listing_digest(list_files(folder(tmp_path)))

    seen = [digest()]
    assert digest() == seen[0]
    first.write_text("x = 10\n")  # size
    seen.append(digest())
    info = first.stat()
    os.utime(first, ns=(info.st_atime_ns, info.st_mtime_ns + 1))
    seen.append(digest())
    second.rename(tmp_path / "c.py")
    seen.append(digest())
    write(tmp_path / "d.py")
    seen.append(digest())
    assert len(set(seen)) == len(seen)


def test_names_that_are_not_utf8_are_listed(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9.py"
    with open(odd, "wb") as handle:
        handle.write(b"x")
    (file,) = list_files(folder(tmp_path))
    assert os.fsencode(file.name) == b"caf\xe9.py"
    assert listing_digest([file])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: folder(p / "missing"), "does not exist"),
        (lambda p: folder(p), "holds no"),
        (lambda p: folder(write(p / "a.py")), "is a file"),
        (lambda p: SourceConfig(kind="parquet", path=str(p / "x.parquet")), "does not exist"),
        (lambda p: SourceConfig(kind="parquet", path=str(p)), "holds no file"),
        (lambda p: SourceConfig(kind="jsonl", path=str(p)), "holds no file"),
    ],
)
def test_a_missing_or_empty_source_is_named_with_a_remedy(tmp_path: Path, make, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        list_files(make(tmp_path))
    assert caught.value.remedy
    assert str(tmp_path) in caught.value.problem


def test_the_standard_library_is_this_interpreter_s_without_tests_and_packages() -> None:
    names = [file.name for file in list_files(SourceConfig())]
    assert "json/decoder.py" in names
    assert names == sorted(names)
    for part in ("site-packages", "test", "tests", "lib2to3", "__pycache__"):
        assert not [name for name in names if part in name.split("/")]
    assert (source_root(SourceConfig()) / "json/decoder.py").is_file()
    root = source_root(SourceConfig())
    assert platform.python_version() in (source_repo(SourceConfig(), root) or "")


@pytest.mark.parametrize(
    ("corpus", "words"),
    [
        (CorpusConfig(source=SourceConfig(kind="folder", path="x")), "licence is not known"),
        (
            CorpusConfig(source=SourceConfig(kind="folder", path="x", license="GPL-3.0-only")),
            "GPL-3.0-only not in",
        ),
        (CorpusConfig(allowed_licenses=("MIT",)), "PSF-2.0 not in"),
        (CorpusConfig(languages=("python", "cobol")), "cobol"),
    ],
)
def test_settings_that_would_reject_every_file_are_refused(
    corpus: CorpusConfig, words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        check_corpus_config(corpus)
    assert caught.value.remedy


def test_licences_per_row_need_none_for_the_source() -> None:
    check_corpus_config(CorpusConfig(source=SourceConfig(kind="jsonl", path="x")))
    check_corpus_config(CorpusConfig(source=SourceConfig(kind="folder", path="x", license="mit")))
