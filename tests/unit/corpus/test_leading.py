"""Where a snippet begins: attributes, documentation, and words that the parser does not see."""

import pytest

from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.corpus.snippets import extract_definitions

ALL = CorpusConfig(min_lines=1)

RUST = "fn a() -> u8 {\n    1\n}"
C = "int\na(int b)\n{\n    return b;\n}"
CUDA = "void a(float* b) {\n    b[0] = 1;\n}"
SCRIPT = "function a(b) {\n  return b;\n}"
WHOLE = [
    ("javascript", f"// Gives b.\n// Always.\n{SCRIPT}"),
    ("javascript", f"/* Gives b. */\nexport {SCRIPT}"),
    ("typescript", f"// Gives b.\nexport default {SCRIPT}"),
    ("rust", f"#[test]\n#[cfg_attr(miri, ignore)] // Too slow.\n{RUST}"),
    ("rust", f"/// Doc.\n// Why.\n#[repr(C)]\n{RUST}"),
    ("rust", f"#[inline] #[must_use]\npub {RUST}"),
    ("c", f"/* Gives b. */\n{C}"),
    ("c", f"// Gives b.\n// Always.\n{C}"),
    ("cpp", f"// Gives b.\ntemplate <typename T>\n{C}"),
    ("c", f"DLL_EXPORTED\n{C}"),
    ("c", f"/* Gives b. */\nDLL_EXPORTED static {C}"),
    ("cuda", f"// Gives one.\n__global__\n{CUDA}"),
    ("cuda", f"__global__ {CUDA}"),
    ("cuda", f'extern "C" __global__ {CUDA}'),
    ("cuda", f"__global__ __launch_bounds__(128)\n{CUDA}"),
    ("cpp", f'extern "C" {C}'),
]


@pytest.mark.parametrize(("language", "code"), WHOLE)
@pytest.mark.parametrize("before", ["", "int x;\n", "int x; // not its own\n"])
def test_what_stands_above_a_definition_belongs_to_it(
    language: str, code: str, before: str
) -> None:
    word = {"rust": "use", "javascript": "let", "typescript": "let"}.get(language, "int")
    before = before.replace("int", word)
    (found,) = extract_definitions(before + code + "\n", language, ALL)
    assert found.reason is None, found.detail
    assert found.code == code
    assert found.start_line == 1 + before.count("\n")


@pytest.mark.parametrize(
    ("language", "above", "code"),
    [
        ("c", "/* Copyright (c) Somebody */\n", C),
        ("c", "// SPDX-License-Identifier: MIT\n", C),
        ("c", "/* of something else */\n\n", C),
        ("javascript", "// Copyright Somebody\n", SCRIPT),
        ("typescript", "/* SPDX-License-Identifier: MIT */\n", SCRIPT),
        ("javascript", "// of something else\n\n", SCRIPT),
        ("rust", "// no documentation\n", RUST),
        ("rust", "#![no_std]\n", RUST),
        ("cpp", "class X : public Y {\n    Q_OBJECT\n", f"{CUDA}\n"),
    ],
)
def test_what_is_not_its_own_does_not(language: str, above: str, code: str) -> None:
    text = above + code + ("\n};\n" if "class" in above else "\n")
    limits = ALL.model_copy(update={"max_lines": 4}) if "class" in above else ALL
    found = extract_definitions(text, language, limits)[-1]
    assert found.code == code.strip()


def test_documentation_that_is_too_long_leaves_the_attributes() -> None:
    code = f"#[derive(Clone)]\n{RUST}"
    doc = "/// A line.\n" * 80
    assert [d.code for d in extract_definitions(doc + code, "rust", ALL)] == [code]


@pytest.mark.parametrize(
    "member",
    [
        "abstract int size(int of);",
        "native int size(int of);",
        "/** Documented\n     * at length. */\n    int size(int of);",
    ],
)
def test_a_method_without_a_body_is_no_snippet(member: str) -> None:
    text = f"class A {{\n    {member}\n    int one() {{ return 1; }}\n}}\n"
    limits = ALL.model_copy(update={"max_lines": 2})
    assert [d.name for d in extract_definitions(text, "java", limits)] == ["A", "A.one"]


def test_a_compact_constructor_is_a_member_of_its_own() -> None:
    text = "record P(int x) {\n    P {\n        check(x);\n    }\n    int y() { return x; }\n}\n"
    limits = ALL.model_copy(update={"max_lines": 3})
    found = extract_definitions(text, "java", limits)
    assert [(d.name, d.reason) for d in found[1:]] == [("P.P", None), ("P.y", None)]
    assert found[1].code == "P {\n    check(x);\n}"
