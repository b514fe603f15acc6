"""Which definitions become snippets, and that every snippet stands alone."""

import ast
import textwrap
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.corpus.snippets import ParseError, extract_definitions
from codepmp_ray.reject_reasons import RejectReason

ALL = CorpusConfig(min_lines=1, max_lines=1_000, max_chars=100_000)


def extract(text: str, limits: CorpusConfig = ALL) -> list:
    return extract_definitions(textwrap.dedent(text), "python", limits)


def test_functions_and_classes_are_found_with_their_decorators_and_lines() -> None:
    found = extract(
        """\
        import functools

        @functools.cache
        def first(x):
            def inner():
                return x
            return inner

        class Second:
            def method(self):
                return 1

        if True:
            async def third():
                return 3
        """
    )
    assert [(d.kind, d.name, d.start_line, d.end_line) for d in found] == [
        ("function", "first", 3, 7),
        ("class", "Second", 9, 11),
        ("function", "third", 14, 15),
    ]
    assert found[0].code.startswith("@functools.cache\ndef first(x):\n    def inner():")
    assert found[2].code == "async def third():\n    return 3"


def test_a_class_over_the_limit_gives_its_methods_instead() -> None:
    found = extract(
        """\
        class Long:
            limit = 3

            @property
            def value(self):
                return self.limit

            class Inner:
                def deep(self):
                    return 0
        """,
        CorpusConfig(min_lines=2, max_lines=5),
    )
    assert [(d.name, d.kind, d.reason) for d in found] == [
        ("Long", "class", RejectReason.TOO_LONG),
        ("Long.value", "function", None),
        ("Long.Inner", "class", None),
    ]
    assert found[1].code == "@property\ndef value(self):\n    return self.limit"


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (CorpusConfig(min_lines=4), RejectReason.TOO_SHORT),
        (CorpusConfig(min_lines=1, max_lines=2), RejectReason.TOO_LONG),
        (CorpusConfig(min_lines=1, max_chars=10), RejectReason.TOO_LONG),
        (CorpusConfig(min_lines=3, max_lines=3), None),
    ],
)
def test_limits(limits: CorpusConfig, reason: RejectReason | None) -> None:
    (found,) = extract("def f():\n    x = 1\n    return x\n", limits)
    assert found.reason is reason
    assert bool(found.detail) is (reason is not None)


def test_dedent_moves_the_documentation_but_no_other_string() -> None:
    (_, method) = extract(
        '''\
        class Long:
            def text(self):
                """Say it.

                Twice.
                """
                return """
            kept
                kept too
        """
        ''',
        CorpusConfig(min_lines=1, max_lines=8, max_chars=1_000),
    )
    assert method.code == (
        'def text(self):\n    """Say it.\n\n    Twice.\n    """\n'
        '    return """\n    kept\n        kept too\n"""'
    )


@pytest.mark.parametrize("opening", ["def f(", "async def f(", "@overload\ndef f("])
@pytest.mark.parametrize(
    ("body", "is_defined"),
    [
        (" ...", False),
        ("\n    ...  # nothing", False),
        ('\n    """What it gives."""\n    ...', False),
        ('\n    """What it gives."""', True),
        ("\n    pass", True),
        ("\n    return ...", True),
        ("\n    x = 1\n    ...", True),
    ],
)
def test_a_function_without_a_body_is_none(opening: str, body: str, is_defined: bool) -> None:
    function = f"{opening}\n    x,\n    y,\n):{body}\n"
    limits = ALL.model_copy(update={"min_lines": 1})
    names = [d.name for d in extract_definitions(function, "python", limits)]
    assert names == ["f"] * is_defined
    method = "class A(Protocol):\n" + "".join(f"    {line}\n" for line in function.splitlines())
    assert [d.name for d in extract_definitions(method, "python", limits)] == ["A"]


def test_text_that_does_not_parse_is_refused_with_its_line() -> None:
    with pytest.raises(ParseError, match="line 3 is not valid python"):
        extract("x = 1\n\ndef broken(:\n    pass\n")


def test_deep_nesting_is_walked_to_its_end() -> None:
    depth = 98  # Python itself goes no deeper
    text = "".join(" " * i + "if x:\n" for i in range(depth))
    text += " " * depth + "def f():\n" + " " * (depth + 1) + "pass\n"
    (found,) = extract_definitions(text, "python", ALL)
    assert found.code == "def f():\n pass"


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.text(alphabet="abc():\n \t'\"#@=,[]{}\\é\f", max_size=80))
def test_any_text_gives_disjoint_snippets_or_a_parse_error(text: str) -> None:
    for source in (text, f"class A:\n    def f(self):\n        {text}\n"):
        check_disjoint(source, CorpusConfig(min_lines=1, max_lines=2))


def check_disjoint(source: str, limits: CorpusConfig) -> None:
    try:
        found = [d for d in extract_definitions(source, "python", limits) if d.reason is None]
    except ParseError:
        return
    num_lines = source.count("\n") + 1
    last = 0
    for definition in found:
        assert last < definition.start_line <= definition.end_line <= num_lines
        last = definition.end_line
        assert definition.code.strip()


names = st.sampled_from(["alpha", "beta", "gamma"])
literals = st.sampled_from(["'''a\n  b\n'''", '"x"', "f'''\n{1}\n    '''", "(1,\n2)", "[\n]", "1"])
statements = st.one_of(
    st.builds("x = {}".format, literals),
    st.builds("'''note\n\n  more'''".format),
    st.just("# remark"),
    st.just("pass"),
)


@st.composite
def definitions(draw: st.DrawFn, depth: int = 0) -> str:
    header = draw(st.sampled_from(["def {}(self):", "class {}:", "async def {}(self):"]))
    decorator = draw(st.sampled_from(["", "@wrap\n", "@wrap(\n1)\n"]))
    inner = st.one_of(statements, definitions(depth + 1)) if depth < 2 else statements
    body = [*draw(st.lists(inner, max_size=4)), "pass"]
    pad = draw(st.sampled_from(["    ", "  ", "\t"]))
    # Only first lines are indented: what continues a literal keeps its column.
    lines = "\n".join(indent(part, pad) for part in body)
    return f"{decorator}{header.format(draw(names))}\n{lines}"


def indent(part: str, pad: str) -> str:
    """`part` one level deeper, by the rules of Python: literals that go on stay as they are."""
    fixed = continued_lines(part)
    lines = part.split("\n")
    return "\n".join(line if i in fixed or not line else pad + line for i, line in enumerate(lines))


def continued_lines(part: str) -> set[int]:
    nodes = [n for n in ast.walk(ast.parse(part)) if isinstance(n, ast.Constant | ast.JoinedStr)]
    return {row for node in nodes for row in range(node.lineno, node.end_lineno or node.lineno)}


def without_docs(tree: ast.AST) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant("text")
    return ast.dump(tree)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.lists(definitions(), min_size=1, max_size=3))
def test_each_snippet_is_the_same_program_as_in_its_file(parts: list[str]) -> None:
    source = "\n".join(parts) + "\n"
    originals = {
        min([node.lineno, *(d.lineno for d in node.decorator_list)]): node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    limits = CorpusConfig(min_lines=1, max_lines=6, max_chars=10_000)
    for definition in extract_definitions(source, "python", limits):
        if definition.reason is None:
            (statement,) = ast.parse(definition.code).body
            assert without_docs(statement) == without_docs(originals[definition.start_line])
        else:
            assert definition.reason is RejectReason.TOO_LONG


@pytest.mark.parametrize(("language", "opening"), [("java", "class A{\n"), ("rust", "impl A{\n")])
def test_endless_nesting_ends(language: str, opening: str) -> None:
    start_s = time.monotonic()
    found = extract_definitions(opening * 50_000 + "}\n" * 50_000, language, CorpusConfig())
    assert [definition.reason for definition in found] == ["too_long"] * 21
    assert found[-1].name.split(".") == ["A"] * 21
    assert time.monotonic() - start_s < 60
