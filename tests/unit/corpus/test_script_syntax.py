"""TypeScript that its grammar lacks: read all the same, and nothing around it is cut."""

import pytest

from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.corpus.languages import is_valid
from codepmp_ray.corpus.snippets import ParseError, extract_definitions

ALL = CorpusConfig(min_lines=3, max_lines=30)
LACKING = [
    'declare const a: import("./b").C<string> | undefined;',
    "let f: (x: import('b').C<number>[]) => typeof import(\"d\").e;",
    "export type * from './b';",
    "export type * as b from './b';",
    "declare module 'm' {\n  global {\n    var x: number;\n  }\n}",
    "const rows = sql<{ id: number; name: Array<string> }>`SELECT ${name}`;",
    "export default function (options: Options): Rule;",
    "export default function <T>(\n  options: T,\n): Rule;",
    "interface A {\n  (x: number): string\n  <T>(x: T): T\n}",
    "interface A {\n  f(x: number): B<string>\n\n  /** A. */\n  // b\n  <\n    T,\n  >(x: T): T\n}",
    "interface A<in T, out U> {}",
    "declare function f<\n  const T extends string,\n  in U,\n>(x: T): U;",
]
AROUND = [
    "const first = (x: number): number => {\n  const y = x;\n  return y;\n};",
    "export class Second {\n  m(): void {}\n  n(): void {}\n}",
    "export default function third(x: string) {\n  f(x);\n  return x;\n}",
]


@pytest.mark.parametrize("lacking", LACKING)
def test_what_the_grammar_lacks_costs_nothing_around_it(lacking: str) -> None:
    text = f"{AROUND[0]}\n{lacking}\n{AROUND[1]}\n{AROUND[2]}\n"
    found = [d for d in extract_definitions(text, "typescript", ALL) if d.name != "A"]
    assert [d.name for d in found] == ["first", "Second", "third"]
    assert [d.code for d in found] == AROUND
    assert is_valid(lacking, "typescript")


@pytest.mark.parametrize("lacking", LACKING)
def test_errors_beside_it_are_errors(lacking: str) -> None:
    broken = f"{lacking}\nconst x = = 1;\n{AROUND[1]}\n"
    with pytest.raises(ParseError):
        extract_definitions(broken, "typescript", ALL)
    assert not is_valid(broken, "typescript")
