"""Macros, attributes and old style, where no grammar has a place for them."""

import contextlib

import pytest

from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.corpus.languages import is_valid
from codepmp_ray.corpus.snippets import ParseError, extract_definitions
from codepmp_ray.reject_reasons import RejectReason

ALL = CorpusConfig(min_lines=1)

BY_KIND = {
    "loop": [
        (
            "c",
            "void f(struct list *all)\n{\n"
            "    LIST_FOREACH(one, all, next) {\n        g(one);\n    }\n}",
        ),
        (
            "c",
            "void f(struct list *all)\n{\n"
            "    TAILQ_FOREACH(one, &all->x[0], next)\n        g(one);\n}",
        ),
        ("c", "void f(jv all) {\n  jv_array_foreach(all, i, x) { g(x); }\n}"),
        ("cpp", "void A::f() {\n  UNROLL_LOOP\n  for (int i = 0; i < n; ++i) { g(i); }\n}"),
    ],
    "specifier in small letters": [
        ("c", "local int f(int a)\n{\n    return a;\n}"),
        ("c", "local void f(thing *a)\n{\n    g(a);\n}"),
        ("c", "static my_inline my_int\nf(int a)\n{\n    return a;\n}"),
        ("cpp", "lib_really_inline uint64_t A::f(uint64_t a) {\n  return a;\n}"),
        ("c", "static __dead void\nf(int a)\n{\n    exit(a);\n}"),
    ],
    "specifier before a specialization": [
        ("cpp", "template <>\nLIB_INLINE float f<Kind::A>(float a)\n{\n  return a;\n}"),
        ("cpp", "struct A {\n  LIB_INLINE int& operator[](int i) {\n    return x[i];\n  }\n};"),
        (
            "cpp",
            "struct A {\n  LIB_CTOR(A)\n"
            "  LIB_HD LIB_INLINE const T operator() (const T& a) const {\n    return a;\n  }\n};",
        ),
    ],
    "word between type and name": [
        ("c", "int f(void)\n{\n    result ASSERT_ONLY err;\n    err = g();\n    return 0;\n}"),
        (
            "c",
            "int f(void *a)\n{\n"
            "    struct state FAR *b = (struct state FAR *)a;\n    return b->c;\n}",
        ),
        (
            "c",
            "struct table {\n    int (CALLING *first)(const char *, int);\n"
            "    z_const Byte *next;\n};",
        ),
        ("c", "int f(__unused struct a *b, int c_unused d)\n{\n    return 1;\n}"),
        ("c", "EXPORT_ATTR result EXPORT_CALL\nf(int a)\n{\n    return a;\n}"),
        ("cpp", "class A {\n  int n GUARDED_BY(lock);\n  int get() { return n; }\n};"),
        ("cpp", "class Base_API A: public B\n{\n  int get() { return n; }\n};"),
        ("cpp", "struct A {\n  LIB_HOST\n  A(int a)\n      : a_(a), b_(g(a)) {}\n  int a_;\n};"),
    ],
    "type as an argument": [
        ("c", "void f(P *p) {\n  p->x = make_vector(p->s, n, Proto *);\n}"),
        ("c", "void f(va_list a)\n{\n    g(va_arg(a, char *), cast(unsigned char, *b));\n}"),
        ("cpp", 'void f() {\n  CHECK_CAST("{}", bool, WRONG);\n  CHECK_KIND(long long);\n}'),
        ("cpp", "void f() {\n  CHECK_THROWS(j.dump(), lib::error&);\n}"),
        ("cpp", "struct A {\n  typedef LIB_REMOVE_CONST(T) Raw;\n  Raw x;\n};"),
    ],
    "format between strings": [
        ("cuda", 'void f(long a)\n{\n  printf("%" PRIu64 " of %" MY_FMT "\\n", a, b);\n}'),
        ("cpp", 'void f(long a)\n{\n  log(1, "%" PRIu64, a);\n}'),
    ],
    "comment in a macro": [
        (
            "c",
            "#define G(x) do { \\\n    a(x); /* why */ \\\n    b(x); \\\n} while (0)\n\n"
            "static int f(void)\n{\n    G(1);\n    return 0;\n}",
        ),
    ],
    "old style": [
        ("c", "THING *\ncopy(a)\nTHING\t*a;\n{\n\treturn a;\n}"),
        (
            "c",
            "char *\nfind (name, at)\n     const char *name; /* what */\n"
            "     unsigned long int at;\n{\n  return g (name, at);\n}",
        ),
        ("c", "EXPORTED\nchar *\nfind (name)\n     const char *name;\n{\n  return g (name);\n}"),
    ],
}
CASES = [(kind, *case) for kind, cases in BY_KIND.items() for case in cases]


@pytest.mark.parametrize(("kind", "language", "code"), CASES)
@pytest.mark.parametrize("other", ["", "int\nother(void)\n{\n    return 1;\n}\n\n"])
def test_a_definition_is_whole_with_its_macros(
    kind: str, language: str, code: str, other: str
) -> None:
    found = extract_definitions(f"{other}{code}\n", language, ALL)
    assert [(d.reason, d.detail) for d in found] == [(None, "")] * len(found), kind
    assert found[-1].code == code.rpartition("while (0)\n\n")[2], kind


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("c", "int f(void)\n{\n    return 1\n}"),
        ("c", "int f(void)\n{\n    g(1)\n    h(2);\n}"),
        ("c", "int f(int a {\n    return a;\n}"),
        ("c", "int f(void)\n{\n    x = (a * ;\n}"),
        ("c", 'int f(void)\n{\n    return g("a" "b);\n}'),
        ("cpp", "class A : {\n  int x;\n};"),
        ("cpp", "int f() { for (int i = 0 i < 1; ++i) {} }"),
        ("cuda", "__global__ void f(float* a) { a[0] = ; }"),
    ],
)
def test_what_is_broken_stays_refused(language: str, code: str) -> None:
    assert not is_valid(code, language)
    try:
        found = extract_definitions(f"{code}\n", language, ALL)
    except ParseError:
        return
    assert all(definition.reason is not None for definition in found)


def test_a_head_that_cannot_be_read_is_not_cut_off() -> None:
    code = "static what ever is\nint f(int a)\n{\n    return a;\n}\n"
    found = extract_definitions(f"int x;\n{code}int g(int a)\n{{\n    return a;\n}}\n", "c", ALL)
    assert [d.code for d in found if d.reason is None][-1].startswith("int g(")
    assert not any(d.reason is None and d.name == "f" for d in found)


@pytest.mark.parametrize("text", ["A " * 10_000, "a(" * 5_000, "A_B(x) " * 5_000, '" a' * 9_000])
def test_no_text_takes_for_ever(text: str) -> None:
    with contextlib.suppress(ParseError):
        extract_definitions(text, "cpp", ALL)


@pytest.mark.parametrize("around", ["cfg_rt! {{\n{}\n}}", "a! {{\n    b! {{\n{}\n    }}\n}}"])
@pytest.mark.parametrize(
    "item",
    [
        "    /// Doc.\n    #[inline]\n    pub(crate) async fn f(x: &str) -> u8 {\n        1\n    }",
        '    fn f() -> &\'static str {\n        "a\nb"\n    }',
        "    impl A {\n        fn f() -> u8 {\n            1\n        }\n    }",
        "    #[derive(Clone)]\n    pub struct A {\n        #[pin]\n        x: u8,\n    }",
    ],
)
def test_definitions_inside_of_a_macros_braces_are_definitions(around: str, item: str) -> None:
    (found,) = extract_definitions(around.format(item) + "\n", "rust", ALL)
    assert found.reason is None, found.detail
    unindented = (line.removeprefix("    ") for line in item.split("\n"))
    assert found.code == "\n".join(unindented)


@pytest.mark.parametrize(
    ("language", "code", "num_rows"),
    [
        ("rust", "proptest! {\n    #[test]\n    fn f(x in 0..9) {\n        g(x);\n    }\n}", 1),
        ("rust", "flags! {\n    pub struct F: u32 {\n        const A = 1;\n    }\n}", 1),
        ("rust", 'println!(\n    "{}",\n    a,\n);', 0),
        ("rust", "lazy! {\n    static ref A: u8 = 1;\n}", 0),
        ("cpp", 'TEST_CASE("a", "[b]")\n{\n    f();\n    g();\n}', 1),
        ("cpp", 'namespace a {\nTEST_CASE("a") {\n    f();\n    g();\n}\n}', 1),
    ],
)
def test_what_a_macro_makes_of_definitions_is_counted(
    language: str, code: str, num_rows: int
) -> None:
    after = "struct B {\n    x: u8,\n}" if language == "rust" else "struct B {\n    int x;\n};"
    found = extract_definitions(f"{code}\n{after}\n", language, ALL)
    reasons = [definition.reason for definition in found]
    assert reasons == [RejectReason.PARSE_ERROR] * num_rows + [None]


def test_nested_macros_end() -> None:
    code = "a! {\n" * 2_000 + "fn f() {}\n" + "}\n" * 2_000
    assert extract_definitions(code, "rust", ALL) == []


def test_a_namespace_behind_a_macro_is_no_function() -> None:
    text = "LIB_PREFIX\n\nnamespace lib {\nint f() {\n    return 1;\n}\n}\n"
    assert [d.name for d in extract_definitions(text, "cpp", ALL)] == ["f"]


@pytest.mark.parametrize(
    ("member", "name"),
    [
        ("int operator()(int a) const { return a; }", "operator()"),
        ("operator bool() const { return true; }", "operator bool"),
        ("A operator*() { return *this; }", "operator*"),
        ("A& operator[](int i) { return x[i]; }", "operator[]"),
    ],
)
def test_operators_have_their_names(member: str, name: str) -> None:
    limits = ALL.model_copy(update={"max_lines": 3})
    found = extract_definitions(f"struct A {{\n  {member}\n\n}};\n", "cpp", limits)
    assert [d.name for d in found] == ["A", f"A.{name}"]
