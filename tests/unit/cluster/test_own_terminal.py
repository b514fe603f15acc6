"""What others write on the terminal goes to a file; what we say stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# A core written in C, a library whose handler was made before, a child process, a warning, and us.
SCRIPT = """
import logging, os, subprocess, sys, threading, warnings
logging.getLogger("library").addHandler(logging.StreamHandler())
from codepmp_ray.cluster.own_terminal import own_terminal
try:
    with own_terminal() as log:
        for word in sys.argv[1:]:
            os.write(2, f"core {word}\\n".encode())
        if "quiet" not in sys.argv:
            logging.getLogger("library").warning("library")
            subprocess.run([sys.executable, "-c", "import sys; print('child', file=sys.stderr)"])
            warnings.warn("warning")
            talk = threading.Thread(target=print, args=["thread"], name="ray_print_logs")
            talk.start()
            talk.join()
        print("ours", file=sys.stderr)
        print("result")
        if "fail" in sys.argv:
            raise KeyError("inside")
except KeyError:
    print("caught", file=sys.stderr)
print("after", file=sys.stderr)
print(log.read_text() if log.exists() else "no file", end="")
"""


def said(folder: Path, *words: str, script: str = SCRIPT) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr, done.stdout


def test_only_we_are_on_the_terminal_and_the_others_in_their_file(tmp_path: Path) -> None:
    errors, output = said(tmp_path, "one", "fail")
    assert errors == "ours\ncaught\nafter\n"
    assert output.startswith("result\n") and output.count("thread") == 1
    for line in (
        "core one\n",
        "core fail\n",
        "library\n",
        "child\n",
        "UserWarning: warning",
        "thread\n",
    ):
        assert line in output


def test_a_file_of_what_is_said_at_each_start_is_not_kept(tmp_path: Path) -> None:
    line = "[I 1 2] logging.cc:303: Set ray log level from environment variable X to 4"
    assert said(tmp_path, line, "quiet")[1].endswith("core quiet\n")  # something else is in it
    only = SCRIPT.replace('"quiet" not in sys.argv', "False")
    assert said(tmp_path, line, script=only) == ("ours\nafter\n", "result\nno file")
