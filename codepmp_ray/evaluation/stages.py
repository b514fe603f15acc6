"""What candidates have to come through before a reward chooses among them.

extract: the answer states a final answer or holds code; with tests, code. parse: its code is valid
Python; with tests, and defines the function. run: the program passes the tests, in the sandbox.

Source: Ouyang et al. 2026, "CodeScaler" (arXiv 2602.17684), which extracts and parses before it
scores.
"""

from __future__ import annotations

import ast
import os
import re
import textwrap
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from codepmp_ray.config.evaluation import SandboxConfig
from codepmp_ray.errors import InputError
from codepmp_ray.evaluation.code_extraction import (
    MAX_CHARS,
    build_program,
    defines,
    extract_function,
    in_one_file,
)
from codepmp_ray.evaluation.graders.final_answer import own_turn, stated_answers
from codepmp_ray.evaluation.sandbox import Sandbox, TestJob
from codepmp_ray.evaluation.tasks.code import CodeProblem
from codepmp_ray.scoring.stages import AnswerTests, Stage, StagesAsked, Survivors
from codepmp_ray.synthesis.markdown import fences
from codepmp_ray.synthesis.python_syntax import parse_python

_PYTHON = ("python", "py", "python3")


class Screen:
    """Asks candidates stage after stage. Programs run in threads that all calls share.

    Args:
        sandbox: limits of a program.
    """

    def __init__(self, sandbox: SandboxConfig) -> None:
        self._config = sandbox
        num = sandbox.num_parallel or os.cpu_count() or 1
        self._running = ThreadPoolExecutor(num, thread_name_prefix="executing")

    def survivors(
        self, candidates: Sequence[str], asked: StagesAsked, check: Callable[[], None]
    ) -> Survivors:
        """Equal texts share a fate. `check` is called before each step and raises to end it.

        Raises InputError for tests that are none, SandboxUnavailable where nothing can be executed.
        """
        looks = _Looks(asked.tests)
        left = list(dict.fromkeys(candidates))
        fell_at: dict[str, Stage] = {}
        for stage in asked.names:
            if stage == "run":
                passing = self._passing(left, looks, check)
            else:
                look = looks.holds_answer if stage == "extract" else looks.parses
                passing = {text for text in left if check() is None and look(text)}
            fell_at |= {text: stage for text in left if text not in passing}
            if not passing:
                return Survivors([fell_at[text] for text in candidates], stage)
            left = [text for text in left if text in passing]
        return Survivors([fell_at.get(text) for text in candidates])

    def _passing(self, texts: list[str], looks: _Looks, check: Callable[[], None]) -> set[str]:
        tests = looks.tests
        if tests is None:
            raise InputError("The stage run has no tests.", "Send tests: entry_point and test.")
        executor = Sandbox.detect(self._config)
        programs: dict[str, list[str]] = {}
        for text in texts:
            if (program := looks.program(text)) is not None:
                programs.setdefault(program, []).append(text)

        def passes(program: str) -> bool:
            check()
            job = TestJob(program, tests.entry_point, tests.setup, tests.test)
            return executor.run(job).outcome == "passed"

        verdicts = list(self._running.map(passes, programs))
        return {
            text
            for texts, passed in zip(programs.values(), verdicts, strict=True)
            for text in texts
            if passed
        }


class _Looks:
    """What one call's answers are looked at for. Raises InputError for tests that are none."""

    def __init__(self, tests: AnswerTests | None) -> None:
        self.tests = tests
        self.program = lru_cache(maxsize=None)(self._program)
        if tests is None:
            return
        if not tests.entry_point.isidentifier():
            raise InputError(f"tests.entry_point {tests.entry_point[:80]!r} is no name in Python.")
        if not defines(tests.test, "check"):
            raise InputError(
                "tests.test is not Python that defines check.",
                "Send `def check(candidate):` with assertions about the function.",
            )
        setup = parse_python(tests.setup)
        if setup is None:
            raise InputError("tests.setup is not Python.")
        self._has_stub = any(
            isinstance(node, ast.FunctionDef) and node.name == tests.entry_point
            for node in setup.body
        )

    def holds_answer(self, text: str) -> bool:
        said = own_turn(text[:MAX_CHARS])
        if self.tests is None:
            return bool(fences(said)) or bool(stated_answers(text))
        is_named = re.search(rf"\b{re.escape(self.tests.entry_point)}\b", said) is not None
        return bool(fences(said)) or is_named or self.program(text) is not None

    def parses(self, text: str) -> bool:
        """Without tests: one block of Python does, or there is none. What has no tag is Python
        where the answer states no other final answer.
        """
        if self.tests is not None:
            return self.program(text) is not None
        tags = _PYTHON if stated_answers(text) else (*_PYTHON, "")
        blocks = [
            textwrap.dedent(fence.content)
            for fence in fences(own_turn(text[:MAX_CHARS]))
            if (fence.info.split() or [""])[0].lower() in tags
        ]
        return not blocks or any(parse_python(block) is not None for block in blocks)

    def _program(self, text: str) -> str | None:
        """Source that defines the function that is tested."""
        assert self.tests is not None
        name, setup = self.tests.entry_point, self.tests.setup
        if self._has_stub:
            return build_program(CodeProblem("tests", setup, "", self.tests.test, name), text)
        code = extract_function(own_turn(text[:MAX_CHARS]), name, setup)
        return None if code is None else in_one_file(setup, code)
