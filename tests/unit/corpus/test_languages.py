"""Every language: what is found in it, under which name, and that it stands alone."""

import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.corpus.language_specs import LANGUAGES
from codepmp_ray.corpus.languages import find_language, fixed_text_query, is_valid, parser_for
from codepmp_ray.corpus.snippets import ParseError, extract_definitions
from codepmp_ray.reject_reasons import RejectReason

ALL = CorpusConfig(min_lines=1, max_lines=1_000, max_chars=100_000)
# Classes go over this limit, so that their members are looked for.
SPLIT = CorpusConfig(min_lines=1, max_lines=4)

SAMPLES = {
    "javascript": (
        """\
        import x from "x";
        export default class A {
          m() {
            return `a
            b`;
          }
        }
        export const f = async (x) => {
          return 1;
        };
        const plain = 3, g = function () { return 2; };
        function* h() { yield 1; }
        if (x) { function inner() { return 0; } }
        """,
        ["A", "f", "g", "h", "inner"],
        ["A.m"],
    ),
    "typescript": (
        """\
        namespace N {
          export abstract class B {
            go(x: number): number {
              return x;
            }
          }
        }
        export interface I { x: number }
        export const f = (x: number): number => { return 1; };
        """,
        ["B", "I", "f"],
        ["B.go"],
    ),
    "tsx": (
        """\
        export class C {
          render(): any {
            return <div>
              text</div>;
          }
        }
        """,
        ["C"],
        ["C.render"],
    ),
    "java": (
        """\
        package a;
        @X
        public class A {
            A(int x) { }
            public int f() { return 1; }
            enum E { ONE; int v() { return 1; } }
        }
        """,
        ["A"],
        ["A.A", "A.f", "A.E"],
    ),
    "go": (
        """\
        package a
        type T struct { x int }
        type Name string
        type (
          U struct { x int }
          V interface { F() }
        )
        var g = func(x int) int { return x }
        var plain = 3
        func (t *T) F() string {
          return `a
          b`
        }
        """,
        ["T", "U", "V", "g", "F"],
        [],
    ),
    "c": (
        """\
        #ifdef X
        static char *f(int x) { return 0; }
        #endif
        int declared(int x);
        struct A { int x; };
        struct forward;
        typedef struct { int x; } B;
        typedef enum { ONE, TWO } C;
        typedef int plain;
        static struct D { int x; } d = { 1 };
        struct A other;
        """,
        ["f", "A", "B", "C", "d"],
        [],
    ),
    "cpp": (
        """\
        namespace n {
        template<class T> T A::f(T x) { return x; }
        class B {
        public:
            int g() {
                return 1;
            }
            B() { }
            B(int) = default;
        };
        }
        """,
        ["A::f", "B"],
        ["B.g", "B.B"],
    ),
    "rust": (
        """\
        pub struct A { x: i32 }
        impl D for A {
            fn f(&self) -> i32 {
                1
            }
        }
        mod m { fn g() {} }
        """,
        ["A", "A", "g"],
        ["A.f"],
    ),
}


@pytest.mark.parametrize("language", SAMPLES)
def test_definitions_and_members(language: str) -> None:
    text, names, members = SAMPLES[language]
    text = textwrap.dedent(text)
    found = extract_definitions(text, language, ALL)
    assert [d.name for d in found] == names
    assert {d.reason for d in found} == {None}
    split = extract_definitions(text, language, SPLIT)
    assert [d.name for d in split if "." in d.name] == members
    assert {d.reason for d in split} <= {None, RejectReason.TOO_LONG}


def test_a_struct_keeps_its_semicolon_and_a_template_its_head() -> None:
    (struct,) = extract_definitions("struct A { int x; };\n", "c", ALL)
    assert struct.code == "struct A { int x; };"
    (function,) = extract_definitions("template<class T>\nT f(T x) { return x; }\n", "cpp", ALL)
    assert function.code.startswith("template<class T>")


def test_indentation_inside_literals_stays() -> None:
    text = "class A {\n    m() {\n        return `a\n        b`;\n    }\n}\n"
    *_, method = extract_definitions(text, "javascript", SPLIT)
    assert method.code == "m() {\n    return `a\n        b`;\n}"


MACROS = {
    "c": [
        "MY_EXPORT int\nf(int x)\n{\n  return x;\n}",
        "static MY_INLINE void *f(int x)\n{\n  return 0;\n}",
        "MY_API(const char *) f(int x)\n{\n  return 0;\n}",
        "MY_EXPORT FAST_CALL int f(int x) {\n  return x;\n}",
        "int f(int x) MY_NOEXCEPT {\n  return x;\n}",
        "int f(int x) {\n  Py_BEGIN_THREADS\n  x = 1;\n  Py_END_THREADS\n  return x;\n}",
        "struct MY_PACKED s {\n  int a;\n};",
        "XML_Parser XMLCALL\nf(const XML_Char *x)\n{\n  return 0;\n}\nGOOD_ONE(x)",
        "int f(int x) {\n  return MY_CHECK(x, bool) + MY_CAST(x, unsigned int *, 1);\n}",
        "int f(int x) {\n#if A\n  if (x)\n#else\n  if (!x)\n#endif\n    return 1;\n  return x;\n}",
    ],
    "cpp": [
        "class MY_API A : public B {\n public:\n  int f() { return 1; }\n};",
        "MY_API std::string f(int x) {\n  return std::string();\n}",
        "template <class T>\nMY_INLINE T f(T x) {\n  return x;\n}",
    ],
    "cuda": [
        "__global__ void f(float *x) {\n  x[threadIdx.x] = 1;\n}",
        "void f(float *x) {\n  kern<<<1, 2>>>(x);\n}",
        "template <typename T>\n__device__ __forceinline__ T f(T a) {\n  return a;\n}",
    ],
}


@pytest.mark.parametrize(
    ("language", "code"), [(language, code) for language in MACROS for code in MACROS[language]]
)
def test_macros_that_no_grammar_has_a_place_for(language: str, code: str) -> None:
    before, after = "int before(void) { return 0; }\n", "\nint after(void) { return 1; }\n"
    found = extract_definitions(f"{before}{code}{after}", language, ALL)
    assert [d.reason for d in found] == [None] * 3, [(d.name, d.detail) for d in found]
    assert found[1].name in ("f", "s", "A")
    assert found[1].code in code and is_valid(found[1].code, language)
    assert is_valid(code, language)


def test_errors_inside_conditions_cost_no_more_than_themselves() -> None:
    parts = [
        f"int f{i}(int x) {{\n#if A\n  return x;\n#endif\n  return {i};\n}}\n" for i in range(9)
    ]
    parts[4] = "int f4(int x) {\n#if A\n  return (x->*;\n#endif\n  return 4;\n}\n"
    code = "\n".join(parts)
    text = f"#ifndef A_H\n#define A_H\n#if B > 3 && \\\n  C\n{code}#endif // B\n#endif\n"
    for language in ("c", "cpp"):
        found = extract_definitions(text, language, ALL)
        good = [d.name for d in found if d.reason is None]
        assert good == [f"f{i}" for i in range(9) if i != 4]
        (bad,) = [d for d in found if d.reason is not None]
        assert bad.reason == RejectReason.PARSE_ERROR and (bad.start_line, bad.end_line) == (33, 38)


@pytest.mark.parametrize(
    "code",
    [
        "int f(int x) {\n  return x;\n#endif\n}",
        "int f(int x) {\n#else\n  return x;\n}",
        "int f(int x) {\n#if A\n  return x;\n}",
    ],
)
def test_half_a_condition_is_no_code(code: str) -> None:
    assert not is_valid(code, "c") and not is_valid(code, "cpp")


@pytest.mark.parametrize(
    "code", ["class A { public: int x; };", "namespace a {\nint f(int x) { return x; }\n}"]
)
def test_c_plus_plus_is_no_c(code: str) -> None:
    assert is_valid(code, "cpp") and not is_valid(code, "c")
    names = [d.name for d in extract_definitions(f"int f(void) {{ return 1; }}\n{code}", "c", ALL)]
    assert "A" not in names and "a" not in names


def test_types_in_capitals_are_types() -> None:
    text = "DWORD WINAPI f(LPVOID p) {\n  return 0;\n}\nBOOL g(void)\n{\n  return 1;\n}\n"
    found = extract_definitions(text, "c", ALL)
    assert [d.name for d in found if d.reason is None] == ["f", "g"]


def test_macros_cost_the_definitions_that_they_are_in_and_no_other() -> None:
    text = "int good(int x) {\n    return x;\n}\nint bad(int x) {\n    FOREACH(x) return +;\n}\n"
    found = {d.name: d.reason for d in extract_definitions(text, "c", ALL)}
    assert found == {"good": None, "bad": RejectReason.PARSE_ERROR}
    with pytest.raises(ParseError, match="line 1 is not valid c"):
        extract_definitions("MACRO(x) )\n", "c", ALL)
    with pytest.raises(ParseError):
        extract_definitions("function f() { return 1; }\n)", "javascript", ALL)


CPP_HEADERS = [
    b"#include <stdint.h>\nint f(int &a);\n",
    b"void f(const Big &a, int b);\n",
    b"struct A {\n  int f() const { return x; }\n  int x;\n};\n",
    b"struct A {\n  int f() const;\n};\n",
    b"struct A : B {\n  int x;\n};\n",
    b"struct API A final { int x; };\n",
    b"struct A {\n  A(int x) = delete;\n};\n",
    b"struct A {\n  virtual ~A() {}\n};\n",
    b"enum class E { A, B };\n",
    b'extern "C" int f(void);\n',
    b"inline auto f(int a) -> int { return a; }\n",
]
C_HEADERS = [
    b'#ifndef __cplusplus\nextern int f(int);\n#else\nextern "C" int f(int) throw();\n#endif\n',
    b"struct a { int class, private, new; };\nint template(int public);\n",
    b"#if __cplusplus >= 201703L\nnamespace a {}\n#endif\nint f(void);\n",
    b"#if defined(__cplusplus) && X\n# define C constexpr\n#else\n# define C\n#endif\nint f();\n",
    b'#define S "std::vector<int>"\nstatic const char *t = "class Foo";\n',
    b"int f(int a, int b) {\n  if (a & b)\n    return g(a & b);\n  return a &\n    ~MASK(b);\n}\n",
    b"static int f(struct a *p) {\n  return g(p)->x;\n}\n",
    b"struct a {\n  unsigned b : 3;\n  enum c d : 2;\n};\n",
    b"/* a struct that\n * struct A : B {\n */\nint f(void);\n",
]


@pytest.mark.parametrize(
    ("declared", "path", "head", "language"),
    [
        ("Python", "x.go", b"", "python"),
        ("COBOL", "x.py", b"", None),
        ("C++", "", b"", "cpp"),
        ("TSX", "", b"", "tsx"),
        ("Jupyter Notebook", "", b"", "notebook"),
        (None, "a/B.TSX", b"", "tsx"),
        (None, "a.ipynb", b"", "notebook"),
        (None, "tool", b"#!/usr/bin/env -S python3 -u\n", "python"),
        (None, "tool", b"#! /usr/local/bin/python3.11\n", "python"),
        (None, "tool", b"#!/usr/bin/env node", "javascript"),
        (None, "tool.go", b"#!/usr/bin/python", "go"),
        (None, "tool", b"#!/bin/sh\n", None),
        (None, "tool", b"print(1)\n", None),
        # Data sets throw dialects together; the extension tells them apart.
        ("TypeScript", "a.tsx", b"", "tsx"),
        ("TypeScript", "a.ts", b"", "typescript"),
        ("C++", "a.cu", b"", "cuda"),
        ("Cuda", "", b"", "cuda"),
        (None, "a.cuh", b"", "cuda"),
        # A header's content decides.
        (None, "a.h", b"int f(int x);\n", "c"),
        ("C", "a.h", b"namespace a {\nint f();\n}\n", "cpp"),
        ("C++", "a.h", b"int f(int x);\n", "cpp"),
        (None, "a.h", b"#include <vector>\n", "cpp"),
        (None, "a.h", b"struct A { A() = default; };\nstd::string s;\n", "cpp"),
        (None, "a.h", b"template <class T> T f(T x);\n", "cpp"),
        (None, "a.h", b"inline constexpr int x = 1;\n", "cpp"),
        (None, "a.h", b'#ifdef __cplusplus\nextern "C" {\n#endif\nint f();\n', "c"),
        (None, "a.h", b"#ifdef __cplusplus\nnamespace a {\n#endif\nint f();\n", "c"),
        (None, "a.h", b"/* a class that\nclass does */\nint f(); // std::sort\n", "c"),
        (None, "a.h", b"#import <Foundation/Foundation.h>\n@interface A : NSObject\n@end\n", None),
        (None, "a.c", b"namespace a {}\n", "c"),
        (None, "a.C", b"namespace a {}\n", "cpp"),
        (None, "a.C", b"int f(int a) { return a; }\n", "c"),
        *((None, "a.h", head, "cpp") for head in CPP_HEADERS),
        *((None, "a.h", head, "c") for head in C_HEADERS),
        (None, "a.h", b"typedef NS_ENUM(NSInteger, A) {\n  B,\n};\n", None),
        (None, "a.h", b"template <class T>\n__global__ void k(T *a);\n", "cuda"),
        (None, "a.hpp", b"static __global__ void k(int *a);\n", "cuda"),
        ("C++", "a.cpp", b"__global__ void k(int *a) {}\n", "cuda"),
        (
            None,
            "a.hpp",
            b"#define K __global__ void\n  // a __global__ x\n * __global__ v\n",
            "cpp",
        ),
        (None, "a.ts", b'\xef\xbb\xbf<?xml version="1.0"?>\n<!DOCTYPE TS>\n', None),
        (None, "a.rs", b"// of x\n#pragma version(1)\n#pragma rs java_package_name(x)\n", None),
        (None, "a.rs", b"fn f() {}\n", "rust"),
        (None, "tool", b"#!/usr/bin/env -S uv run --script\n", "python"),
        # What a data set calls a notebook, once it is one.
        ("JSON", "a.ipynb", b'\n{"cells": []}', "notebook"),
        ("Python", "a.ipynb", b'{"cells": []}', "notebook"),
        ("Python", "a.ipynb", b"x = 1\n", "python"),
    ],
)
def test_where_the_language_comes_from(declared, path, head, language) -> None:
    assert find_language(declared, path, head) == language


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_tables_name_nodes_that_the_grammar_has(language: str) -> None:
    spec, grammar = LANGUAGES[language], parser_for(language).language
    assert grammar is not None
    named = {*spec.definitions, *spec.wrappers, *spec.required, *spec.containers}
    named |= {*spec.values, *spec.named_values, *spec.carriers, *spec.objects}
    named |= {*spec.leading, *spec.prefixes}
    assert sorted(name for name in named if not grammar.id_for_node_kind(name, True)) == []
    assert fixed_text_query(language)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    st.sampled_from(sorted(LANGUAGES)),
    st.text("classfnvoid (){}[];:=<>`'\"#/*\n\t", max_size=80),
)
def test_any_text_is_parsed_or_refused(language: str, text: str) -> None:
    try:
        found = extract_definitions(text, language, ALL)
    except ParseError:
        return
    for definition in found:
        start, stop = definition.span
        assert text.encode()[start:stop].strip()
