"""The documents of `corpus_throughput`: the standard library, with planted near-duplicates."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.corpus.extraction import extract_unit
from codepmp_ray.corpus.planning import plan_corpus
from codepmp_ray.corpus.sources import list_files, source_root

NUM_PLANTED = 1_000
_FUNCTIONS_PER_FILE = 10
_NGRAM = 5
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Planted:
    """A function of the standard library and its changed copy; `jaccard` of their 5-grams."""

    original: str
    copy: str
    jaccard: float


def write_documents(path: Path, seed: int = 0) -> tuple[int, list[Planted]]:
    """Write JSON lines (content, path, repo, lang, license); returns their number and the planted.

    A planted copy has another function name and one to three other words; pairs with a similarity
    below 0.7 are no near-duplicates and not planted.
    """
    corpus = CorpusConfig()
    root, files = source_root(corpus.source), list_files(corpus.source)
    documents = [
        (file.name, text)
        for file in files
        if (text := (root / file.name).read_bytes().decode("utf-8", "ignore")).strip()
    ]
    planted = list(_plant(_snippets(corpus), random.Random(seed)))
    for start in range(0, len(planted), _FUNCTIONS_PER_FILE):
        group = planted[start : start + _FUNCTIONS_PER_FILE]
        text = "\n\n\n".join(pair.copy for pair in group) + "\n"
        documents.append((f"copies/{start:05d}.py", text))
    random.Random(seed).shuffle(documents)
    with open(path, "w", encoding="utf-8") as handle:
        for name, text in documents:
            row = {"content": text, "path": name, "repo": "b/b", "lang": "python", "license": "MIT"}
            handle.write(json.dumps(row) + "\n")
    return len(documents), planted


def _snippets(corpus: CorpusConfig) -> list[str]:
    """Functions that reach deduplication, each code once."""
    root = source_root(corpus.source)
    plan = plan_corpus(corpus, root, list_files(corpus.source))
    found: dict[str, None] = {}
    for unit in plan.units:
        for row in extract_unit(corpus, root, unit, plan.threshold).snippets.to_pylist():
            if row["kind"] == "function" and row["code"].startswith("def "):
                found[row["code"]] = None
    return list(found)


def _plant(codes: list[str], rng: random.Random) -> Iterator[Planted]:
    rng.shuffle(codes)
    num_planted = 0
    for code in codes:
        copy = _change(code, rng, num_planted)
        if copy is None or (jaccard := _jaccard(code, copy)) < 0.7:
            continue
        yield Planted(code, copy, jaccard)
        num_planted += 1
        if num_planted == NUM_PLANTED:
            return


def _change(code: str, rng: random.Random, number: int) -> str | None:
    name, *lines = code.split("\n", 1)
    renamed = re.sub(r"^def \w+", f"def copied_{number}", name)
    body = lines[0] if lines else ""
    # Names only: another keyword or number might not parse.
    places = list(re.finditer(r"\b[a-z_]{4,}\b(?=\s*[(.=,)])", body))
    if len(places) < 6:
        return None
    for match in sorted(rng.sample(places, rng.randint(1, 3)), key=lambda m: -m.start()):
        body = f"{body[: match.start()]}other_{match.group()}{body[match.end() :]}"
    try:
        compile(f"{renamed}\n{body}", "copy", "exec")
    except (SyntaxError, ValueError):
        return None
    return f"{renamed}\n{body}"


def _jaccard(left: str, right: str) -> float:
    sets = []
    for code in (left, right):
        words = _WORD.findall(code.lower())
        sets.append(set(zip(*(words[i:] for i in range(_NGRAM)), strict=False)))
    return len(sets[0] & sets[1]) / max(1, len(sets[0] | sets[1]))
