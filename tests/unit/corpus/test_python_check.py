"""What is taken for Python is what the compiler takes, and newer syntax that the grammar knows."""

import random
import sysconfig
import warnings
from pathlib import Path

import pytest

from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.corpus.languages import is_valid
from codepmp_ray.corpus.snippets import ParseError, extract_definitions

ALL = CorpusConfig(min_lines=1, max_lines=1_000, max_chars=100_000)

INVALID = {
    "no body": "def f(x):\n    for i in x:\n",
    "no body before code": "def f(x):\n    if x:\n    return 1\n",
    "only a comment": "def f(x):\n    # later\n",
    "indent": "def f(x):\n    a = 1\n      b = 2\n    return a\n",
    "dedent": "def f(x):\n        a = 1\n    return a\n",
    "try alone": "def f(x):\n    try:\n        x\n    return 1\n",
    "return outside": "return 1\n",
    "await outside": "def f():\n    await x\n",
    "break outside": "def f():\n    break\n",
    "arguments": "def f(a, a):\n    pass\n",
    "defaults": "def f(a=1, b):\n    pass\n",
    "positional": "f(a=1, 2)\n",
    "target": "f() = x\n",
    "f-string": "x = f'{}'\n",
    "prompt": ">>> f(1)\n",
    "prose": "Here is the code\n",
}
PYTHON_2 = {
    "print": "def f(x):\n    print x\n",
    "print to": "def f(x):\n    print >>x, 'a'\n    print\n    exec 'a'\n",
    "except": "def f():\n    try:\n        x\n    except A, e:\n        pass\n",
    "raise": "def f():\n    raise ValueError, 'x'\n",
    "backticks": "def f():\n    return `1`\n",
    "unequal": "def f():\n    return 1 <> 2\n",
    "octal": "def f():\n    return 0777\n",
    "long": "def f():\n    return 1L\n",
    "unpacking": "def f(a, (b, c)):\n    return 1\n",
    "tabs": "def f():\n\tx = 1\n        y = 2\n\treturn x\n",
}
NEWER = {
    "type": "type X[T] = list[T]\n",
    "generics": "def f[T: int](x: T) -> T:\n    return x\n\n\nclass A[T](B):\n    pass\n",
    "nested quotes": "def f(d):\n    return f'{d['a']} {f'{d['b']}'}'\n",
    "lines": "def f(d):\n    return f'{\n        d\n    }'\n",
    "except": "def f():\n    try:\n        x\n    except A, B.Error:\n        pass\n",
    "match": "match x:\n    case {'a': [1, *rest], **kw} if rest:\n        pass\n",
    "groups": "try:\n    x\nexcept* A:\n    pass\n",
}


@pytest.mark.parametrize("code", INVALID.values(), ids=INVALID)
def test_what_the_compiler_refuses_is_refused(code: str) -> None:
    assert not is_valid(code, "python")


@pytest.mark.parametrize("code", NEWER.values(), ids=NEWER)
def test_newer_syntax_that_the_grammar_knows_is_taken(code: str) -> None:
    assert is_valid(code, "python")
    assert not is_valid(code + "def g():\n    break\n", "python")  # and nothing else with it


@pytest.mark.parametrize("code", PYTHON_2.values(), ids=PYTHON_2)
def test_python_2_has_its_own_reason(code: str) -> None:
    text = "def fine():\n    x = 1\n    return x\n\n\n" + code
    with pytest.raises(ParseError, match=r"line \d+ is not valid python") as caught:
        extract_definitions(text, "python", ALL)
    assert caught.value.reason == "python_2"


def test_a_file_that_is_broken_somewhere_has_a_parse_error() -> None:
    for name, code in INVALID.items():
        with pytest.raises(ParseError) as caught:
            extract_definitions("def fine():\n    return 1\n\n\n" + code, "python", ALL)
        assert caught.value.reason == "parse_error", name


@pytest.mark.slow
def test_mutations_are_judged_as_the_compiler_does() -> None:
    rng, differs = random.Random(0), []
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    for file in rng.sample(files, 60):
        text = file.read_text(encoding="utf-8")
        found = extract_definitions(text, "python", ALL.model_copy(update={"max_lines": 60}))
        for definition in found[:6]:
            code = mutated(definition.code, rng)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    compile(code, "x", "exec")
                    compiles = True
                except (SyntaxError, ValueError):
                    compiles = False
            if is_valid(code, "python") != compiles:
                differs.append(code)
    assert len(differs) <= 1, differs[:3]  # what newer Pythons take


def mutated(code: str, rng: random.Random) -> str:
    lines = code.split("\n")
    i = rng.randrange(len(lines))
    kind = rng.choice(["delete", "cut", "indent", "character"])
    if kind == "delete":
        del lines[i]
    elif kind == "cut":
        lines = lines[: i + 1]
    elif kind == "indent":
        lines[i] = " " * rng.choice([1, 2, 4]) + lines[i]
    elif lines[i]:
        j = rng.randrange(len(lines[i]))
        lines[i] = lines[i][:j] + lines[i][j + 1 :]
    return "\n".join(lines)
