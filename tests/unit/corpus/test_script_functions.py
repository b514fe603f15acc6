"""JavaScript and TypeScript: functions that have their name outside, and modules of functions."""

import textwrap
from itertools import pairwise

import pytest

from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.corpus.languages import is_valid
from codepmp_ray.corpus.snippets import ParseError, extract_definitions
from codepmp_ray.reject_reasons import RejectReason

ALL = CorpusConfig(min_lines=3, max_lines=12, max_chars=100_000)
BODY = "{\n  var y = x;\n  return y;\n}"
LONG = "{\n" + "  x += 1;\n" * 12 + "}"

NAMED = [
    (f"module.exports = function (x) {BODY};", "module.exports"),
    (f"module.exports = function own(x) {BODY};", "own"),
    (f"exports.a = function (x) {BODY};", "exports.a"),
    (f"exports = module.exports = (x) => {BODY};", "exports"),
    (f"Foo.prototype.bar = function bar(x) {BODY}", "Foo.prototype.bar"),
    (f"app['get'] = async function (x) {BODY};", "app['get']"),
    (f"export default function (x) {BODY}", "default"),
    (f"export default function own(x) {BODY}", "own"),
    (f"export default (x) => {BODY};", "default"),
    ("export default class {\n  m() {\n    return 1;\n  }\n}", "default"),
    ("export default class A extends B {\n  m() {\n    return 1;\n  }\n}", "A"),
    (f"const A = memo(function (x) {BODY});", "A"),
    (f"const useA = ok ? function (x) {BODY} : null;", "useA"),
    (f"var a = (function own(x) {BODY});", "a"),
    ("var o = {\n  a: function () { return 1; },\n  b() { return 2; },\n};", "o"),
    ("export default {\n  name: 'x',\n  methods: {\n    a() { return 1; },\n  },\n};", "default"),
    ("const Model = Base.extend({\n  a() {\n    f();\n    return 1;\n  },\n});", "Model"),
    (f"var uid = (function (x) {BODY})(1);", "uid"),
]


@pytest.mark.parametrize(("text", "name"), NAMED)
def test_what_is_assigned_is_a_definition(text: str, name: str) -> None:
    for language in ("javascript", "typescript"):
        (found,) = extract_definitions(f"'use strict';\nvar z = 1;\n{text}\n", language, ALL)
        assert (found.name, found.reason) == (name, None)
        assert found.code.rstrip(";") == text.rstrip(";") and is_valid(found.code, language)


INNER = [f"function inner(x) {BODY}", f"  ns.deep = function (x) {BODY};"]
WRAPPERS = [
    "(function () {{\n{}\n}})();",
    "(function () {{\n{}\n}}.call(this));",
    "!function (root) {{\n{}\n}}(this);",
    "(() => {{\n{}\n}})();",
    "define(['a'], function (a) {{\n{}\n  return a;\n}});",
    "(function (root, factory) {{\n  root.x = factory();\n}}(this, function () {{\n{}\n}}));",
    "if (typeof define === 'function') {{\n  define(function () {{\n{}\n}});\n}}",
    "var Long = (function () {{\n{}\n" + "  f();\n" * 12 + "}})();",
    "function Long() {{\n{}\n" + "  f();\n" * 12 + "}}",
    "$(document).ready(function () {{\n{}\n}});",
    "angular.module('x').controller('Y', ['$scope', function ($scope) {{\n{}\n}}]);",
    "for (const x of y) {{\n  switch (x) {{\n    case 1:\n{}\n  }}\n}}",
]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_modules_of_functions_are_looked_into(wrapper: str) -> None:
    text = wrapper.format("\n".join(INNER))
    found = [d for d in extract_definitions(text, "javascript", ALL) if d.reason is None]
    assert [d.name.split(".", 1)[-1] if "Long" in d.name else d.name for d in found] == [
        "inner",
        "ns.deep",
    ]
    assert all(is_valid(d.code, "javascript") for d in found)


def test_members_of_what_is_too_long_stand_alone() -> None:
    text = textwrap.dedent(
        """\
        module.exports = {
          a: function (x) {
            return x;
          },
          async b(x) {
            return x;
          },
          nested: {
            get c() {
              return 1;
            },
          },
        };
        class K {
          handle = (x) => {
            return x;
          };
          m(x) {
            return super.m(x);
          }
          other() {
            return [
              1, 2, 3,
              4,
            ];
          }
        }
        """
    )
    found = extract_definitions(text, "javascript", ALL.model_copy(update={"max_lines": 6}))
    kept = {d.name: d.code for d in found if d.reason is None}
    assert list(kept) == [
        "module.exports.a",
        "module.exports.b",
        "module.exports.nested",
        "K.handle",
        "K.m",
        "K.other",
    ]
    assert kept["module.exports.a"] == "a: function (x) {\n  return x;\n}"
    assert all(is_valid(code, "javascript") for code in kept.values())


def test_functions_that_only_a_call_holds_are_counted() -> None:
    text = "describe('x', function () {\n  it('y', function () {\n    f();\n    g();\n  });\n});\n"
    (found,) = extract_definitions(text, "javascript", ALL)
    assert found.reason is RejectReason.ANONYMOUS and found.start_line == 2
    assert extract_definitions("list.map(x => x + 1);\nvar y = 3;\n", "javascript", ALL) == []


CALLBACK = f"(x) => {BODY}"
VALUES = [
    f"const a = list.map({CALLBACK});",
    f"const a = list.filter(Boolean).map({CALLBACK}).join('');",
    f"this.a = fetch(url).then({CALLBACK});",
    f"const a = await run({CALLBACK});",
    f"const a = new Promise({CALLBACK});",
    f"const a = await Promise.all(list.map({CALLBACK}));",
    f"const [a, b] = ({CALLBACK})();",
    f"const {{ a, b }} = make({CALLBACK});",
    f"f({{ a: list.map({CALLBACK}) }});",
    f"const o = {{ a: {{ a: list.map({CALLBACK}) }} }};",
]


@pytest.mark.parametrize("language", ["javascript", "typescript", "tsx"])
@pytest.mark.parametrize("text", VALUES)
def test_what_is_made_by_a_function_is_none_and_the_function_is_counted(
    text: str, language: str
) -> None:
    (found,) = extract_definitions(text, language, ALL)
    assert found.reason is RejectReason.ANONYMOUS
    inner = text.replace("var y = x;", f"function own(z) {BODY}")
    assert [d.name for d in extract_definitions(inner, language, ALL)] == ["own"]


def test_comments_are_no_part_of_a_name() -> None:
    text = f"this./** Says\n * it. */ say = function (x) {BODY};"
    (found,) = extract_definitions(text, "javascript", ALL)
    assert found.name == "this.say"


@pytest.mark.parametrize("sign", ["// @flow", "/**\n * @flow strict-local\n */", "/* @flow */"])
def test_flow_is_told_from_broken_javascript(sign: str) -> None:
    typed = f"function f(x: number): ?string {BODY}\n"
    for head, reason in [
        (sign, RejectReason.UNKNOWN_LANGUAGE),
        ("// as in @flow", RejectReason.PARSE_ERROR),
    ]:
        with pytest.raises(ParseError) as error:
            extract_definitions(f"{head}\n{typed}", "javascript", ALL)
        assert error.value.reason is reason
    (found,) = extract_definitions(f"{sign}\nfunction f(x) {BODY}\n", "javascript", ALL)
    assert found.reason is None


def test_nothing_is_in_two_snippets() -> None:
    text = "\n".join(wrapper.format("\n".join(INNER)) for wrapper in WRAPPERS)
    text += "\n" + "\n".join(source for source, _ in NAMED if "export default" not in source)
    found = [d for d in extract_definitions(text, "javascript", ALL) if d.reason is None]
    spans = sorted(d.span for d in found)
    assert all(left[1] <= right[0] for left, right in pairwise(spans))
    assert len(found) == 2 * len(WRAPPERS) + len(NAMED) - 6


def test_declarations_of_typescript() -> None:
    text = textwrap.dedent(
        """\
        export declare function f(x: number): string;
        export type U = {
          a: number;
          b: string;
        };
        declare global {
          interface Window {
            x: number;
            y: number;
          }
        }
        declare module "m" {
          export class C {
            a: number;
            m(): void;
          }
        }
        @Injectable()
        export abstract class D {
          @Input()
          m(): void {}
        }
        """
    )
    found = extract_definitions(text, "typescript", ALL)
    assert [(d.name, d.kind, d.reason) for d in found] == [
        ("U", "class", None),
        ("Window", "class", None),
        ("C", "class", None),
        ("D", "class", None),
    ]
    assert found[-1].code.startswith("@Injectable()\nexport abstract class D")
