"""The engine's environment: libraries survive odd paths, threads are bound only to all cores."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from codepmp_ray.cluster import space_free, vllm_env, vllm_process
from codepmp_ray.errors import ResourceError


def fake_site_packages(root: Path) -> Path:
    """A folder that looks like an installation; the library is a real shared object."""
    site = root / "site-packages"
    (site / "torch" / "lib").mkdir(parents=True)
    (site / "vllm" / "libs").mkdir(parents=True)
    maps = Path("/proc/self/maps").read_text().split()
    library = next(path for path in maps if "/libm." in path or "/libm-" in path)
    shutil.copy(library, site / "torch" / "lib" / "libgomp.so.1")
    shutil.copy(library, site / "vllm" / "libs" / "libtcmalloc_minimal.so.4")
    return site


def mapped_libraries(preload: str) -> str:
    """What the dynamic linker really mapped into a process started with `preload`."""
    done = subprocess.run(
        ["/bin/cat", "/proc/self/maps"],
        env={"LD_PRELOAD": preload, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot be preloaded" not in done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_free.tempfile, "gettempdir", lambda: str(tmp_path))


@pytest.mark.parametrize("name", ["plain", "with a space", "with:colon"])
def test_libraries_are_really_preloaded_from_any_path(tmp_path: Path, name: str) -> None:
    site = fake_site_packages(tmp_path / name)
    preload = vllm_env.preload_environment("", site)["LD_PRELOAD"]
    assert " " not in preload
    maps = mapped_libraries(preload)
    assert str(site / "torch" / "lib" / "libgomp.so.1") in maps
    assert str(site / "vllm" / "libs" / "libtcmalloc_minimal.so.4") in maps
    # Stable: a second engine gets the same links.
    assert vllm_env.preload_environment("", site)["LD_PRELOAD"] == preload


def test_entries_of_the_user_stay_and_are_not_doubled(tmp_path: Path) -> None:
    site = fake_site_packages(tmp_path)
    preload = vllm_env.preload_environment("/opt/libiomp5.so", site)["LD_PRELOAD"]
    assert preload.endswith(":/opt/libiomp5.so")
    assert "libgomp" not in preload  # two OpenMP runtimes in one process would clash
    assert vllm_env.preload_environment("/opt/libomp.so:/opt/libtcmalloc.so", site) == {}


def test_folder_open_to_others_is_not_used(tmp_path: Path) -> None:
    hostile = tmp_path / f"codepmp-preload-{os.getuid()}"
    hostile.mkdir()
    hostile.chmod(0o777)
    assert space_free._private_folder() != hostile
    hostile.chmod(0o700)
    assert space_free._private_folder() == hostile


def test_error_when_no_folder_can_hold_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ResourceError, match="TMPDIR"):
        space_free._private_folder()


def test_all_cores_are_bound_and_fewer_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5})
    env = vllm_env.cpu_engine_environment(None, 0.5)
    assert env["OMP_NUM_THREADS"] == "4"
    assert env["VLLM_CPU_OMP_THREADS_BIND"] == "0-2,5"
    assert env["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert env["VLLM_NO_USAGE_STATS"] == "1"
    few = vllm_env.cpu_engine_environment(2, 3.0)
    assert (few["OMP_NUM_THREADS"], few["VLLM_CPU_OMP_THREADS_BIND"]) == ("2", "nobind")
    assert few["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert vllm_env.cpu_engine_environment(64, 1.0)["OMP_NUM_THREADS"] == "4"


def test_logging_level_of_the_user_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_LOGGING_LEVEL", raising=False)
    assert vllm_env.quiet_environment()["VLLM_LOGGING_LEVEL"] == "WARNING"
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    assert vllm_env.quiet_environment()["VLLM_LOGGING_LEVEL"] == "DEBUG"


def test_compilation_is_off_below_a_path_with_a_space_only(tmp_path: Path) -> None:
    spaced, plain = fake_site_packages(tmp_path / "a b"), fake_site_packages(tmp_path / "ab")
    assert vllm_env.compilation_environment(spaced) == {"TORCHDYNAMO_DISABLE": "1"}
    assert vllm_env.compilation_environment(plain) == {}


def test_an_interpreter_below_a_space_is_started_through_a_link(tmp_path: Path) -> None:
    """The environment seen through the link is whole: same packages, space-free prefix."""
    venv = tmp_path / "with space" / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from codepmp_ray.cluster.space_free import use_space_free_interpreter\n"
        "use_space_free_interpreter(); print(sys.executable)"
    )
    done = subprocess.run(
        [venv / "bin" / "python", "-c", program, os.getcwd()],
        capture_output=True,
        text=True,
        check=True,
    )
    executable = done.stdout.strip()
    assert " " not in executable
    prefix = subprocess.run(
        [executable, "-c", "import sys; print(sys.prefix, sys.prefix != sys.base_prefix)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert prefix == f"{Path(executable).parents[1]} True\n"


def test_a_small_machine_has_no_worker_process_and_a_large_one_keeps_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("VLLM_ENABLE_V1_MULTIPROCESSING", raising=False)
    name, asked = "distributed_executor_backend", {"dtype": "float32"}
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(9))
    assert vllm_process._without_worker_process(asked) == asked
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8))
    for own in ({name: "mp"}, {"tensor_parallel_size": 2}):
        assert vllm_process._without_worker_process(own) == own
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in os.environ
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    assert vllm_process._without_worker_process(asked) == {**asked, name: "uni"}
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert asked == {"dtype": "float32"}
