"""Where code comes from and which snippets are kept."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from codepmp_ray.config.base import LabelSelector, Section, operational

# Names of the columns as the data sets' cards give them, where they differ from the plain ones.
_COLUMN_PRESETS = {
    "stack_v1": {
        "path_column": "max_stars_repo_path",
        "repo_column": "max_stars_repo_name",
        "license_column": "max_stars_repo_licenses",
        "blob_id_column": "hexsha",
    },
    "stack_v2": {
        "repo_column": "repo_name",
        "language_column": "language",
        "license_column": "detected_licenses",
        "encoding_column": "src_encoding",
    },
}


class SourceConfig(Section):
    """One source of code files.

    `stdlib` is the standard library of the running interpreter (licence PSF-2.0) and needs no path.
    `folder` walks a directory; `parquet` and `jsonl` take a file or a folder of files whose columns
    are named below (`file.text` is the field `text` of the column `file`). `path` may be a URI (s3,
    gs, abfs, hf, https) or a pattern on one; `huggingface` takes a data set of the hub
    ("owner/name"), or a folder that `save_to_disk` wrote.
    `columns` fills in the names of The Stack v1 (bigcode/the-stack) or v2 (bigcode/the-stack-v2)
    wherever they are not set.

    Attributes:
        subset / split / revision: of `huggingface`. The revision is resolved to a commit when the
            corpus is begun, and that commit is read to the end.
        content_uri: where contents lie that are stored apart, one object (gzip or plain) for each
            row, for example `s3://softwareheritage/content/{blob_id}` for The Stack v2; the
            placeholder is filled from `blob_id_column`.
        encoding_column: names the encoding of such a content.
        kind: where code lies, see above.
        path: file, folder, URI or data set of the hub; `stdlib` has none.
        license: an SPDX expression, of every file that does not state its own. null: of a folder
            the files' SPDX headers and the nearest LICENSE hold, and rows without a licence are
            refused.
        repo: name of the repository, of every row or file that does not name its own.
        columns: `plain` takes the names below; `stack_v1` and `stack_v2` those of The Stack.
        content_column / path_column / repo_column / language_column / license_column: columns of
            the text, the file's path, its repository, its language and its licences.
        blob_id_column: column of the name under which `content_uri` has a content.
    """

    kind: Literal["stdlib", "folder", "parquet", "jsonl", "huggingface"] = "stdlib"
    path: str | None = None
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    content_uri: str | None = None
    license: str | None = None
    repo: str | None = None
    columns: Literal["plain", "stack_v1", "stack_v2"] = "plain"
    content_column: str = "content"
    path_column: str = "path"
    repo_column: str = "repo"
    language_column: str = "lang"
    license_column: str = "license"
    blob_id_column: str = "blob_id"
    encoding_column: str = "encoding"

    @model_validator(mode="before")
    @classmethod
    def _columns_of_the_preset(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {**_COLUMN_PRESETS.get(data.get("columns", "plain"), {}), **data}

    @model_validator(mode="after")
    def _path_where_needed(self) -> SourceConfig:
        if self.kind != "stdlib" and not self.path:
            raise ValueError(f"source.kind={self.kind} needs source.path (a file or folder)")
        if self.content_uri is not None and "{blob_id}" not in self.content_uri:
            raise ValueError("source.content_uri needs the placeholder {blob_id}")
        return self


class FilterConfig(Section):
    """Which files and snippets leave although they can be read; see `corpus.filters`.

    null switches a bound off.

    Attributes:
        generated / vendored: refuse files that a program wrote, and copies of other projects' code.
        max_mean_line_chars / max_line_chars: characters of a file's lines: their mean, and the
            longest.
        min_alphabet_ratio: share of characters of a file that are letters.
        min_comment_ratio / max_comment_ratio: share of a file's lines that are comments.
        secrets: refuse snippets that hold keys, tokens or passwords.
        personal_data: what becomes of snippets with e-mail addresses and public IP addresses.
        opt_out_path: a file with one repository, path or content per line that must not be used;
            the same file is what `codepmp pairs purge` takes.
    """

    generated: bool = True
    vendored: bool = True
    max_mean_line_chars: int | None = Field(default=100, ge=1)
    max_line_chars: int | None = Field(default=1_000, ge=1)
    min_alphabet_ratio: float = Field(default=0.25, ge=0, le=1)
    min_comment_ratio: float = Field(default=0.0, ge=0, le=1)
    max_comment_ratio: float = Field(default=0.8, ge=0, le=1)
    secrets: bool = True
    personal_data: Literal["keep", "reject", "redact"] = "keep"
    opt_out_path: str | None = None


class NearDuplicateConfig(Section):
    """MinHash near-duplicates; see `corpus.minhash` for what the numbers mean.

    Attributes:
        enabled: off finds exact duplicates only.
        ngram: words of one n-gram.
        num_bands / rows_per_band: MinHash values in bands; two snippets are compared if one whole
            band of theirs is equal.
        min_similarity: Jaccard similarity of two sets of n-grams from which the later snippet
            leaves.
        seed: of the hash functions.
        earlier: folders of complete corpus stages: what they kept counts as already there.
    """

    enabled: bool = True
    ngram: int = Field(default=5, ge=1)
    num_bands: int = Field(default=16, ge=1, le=999)
    rows_per_band: int = Field(default=7, ge=1)
    min_similarity: float = Field(default=0.7, ge=0, le=1)
    seed: int = Field(default=1, ge=0)
    earlier: tuple[str, ...] = ()


# Sets that an installed package carries, by the names that candidates.task has for them.
PACKAGED_SETS = ("humaneval",)


class DeduplicationConfig(Section):
    """How the search for duplicates is run; see `corpus.deduplication`. No number changes what is
    found.

    Attributes:
        max_rows_in_process: up to so many snippets (200 bytes each) the job's own process decides;
            more are partitioned by key over the cluster.
        rows_per_chunk: snippets that one task reads (about 830 bytes of memory each).
        rows_per_partition: snippets that one task compares (about 550 bytes of memory each).
    """

    max_rows_in_process: int = operational(2_000_000, ge=0)
    rows_per_chunk: int = operational(500_000, ge=1)
    rows_per_partition: int = operational(5_000_000, ge=1)


class EvaluationSetConfig(Section):
    """Problems that must not be trained on.

    `humaneval` without a path is read from the installed package. Others are a JSON lines file
    (.gz and .zst too) or a Parquet file: `columns` hold the text of problem and solution;
    `function_column` the name of the function to write, or Python that defines it.

    Attributes:
        name: what reject reasons call it.
        path: a JSON lines or Parquet file; null reads `humaneval` from its package.
        columns: that hold the text of problem and solution.
        function_column: the name of the function to write, or Python that defines it.
    """

    name: str = Field(pattern=r"^[\w.-]+$")
    path: str | None = None
    columns: tuple[str, ...] = ()
    function_column: str | None = None

    @model_validator(mode="after")
    def _has_a_source(self) -> EvaluationSetConfig:
        if self.path is None and self.name not in PACKAGED_SETS:
            known = ", ".join(PACKAGED_SETS)
            raise ValueError(f"the evaluation set {self.name!r} needs a path; known: {known}")
        if self.path is not None and not self.columns:
            raise ValueError(f"the evaluation set {self.name!r} needs columns that hold its text")
        return self


class DecontaminationConfig(Section):
    """Which evaluation sets snippets and pairs are held against; see `corpus.decontamination`.

    Attributes:
        sets: the sets by name.
        own_tasks: also the sets that this recipe's own candidates answer, where a package has them.
        ngram: words that have to follow each other in both texts.
        min_ngram_words: so many of them must be different words of three letters or more; `for i in
            range len x for j in range` proves nothing.
        max_ngram_problems: an n-gram of more problems of one set is that set's phrase.
        function_names: whether the name of the function to write accuses, too.
        min_function_name_chars: of a name that does; it also has to be made of two words or more:
            `add`, `encode`, `solution` prove nothing.
        enabled: off compares with no evaluation set.
    """

    enabled: bool = True
    sets: tuple[EvaluationSetConfig, ...] = (EvaluationSetConfig(name="humaneval"),)
    own_tasks: bool = True
    ngram: int = Field(default=10, ge=2)
    min_ngram_words: int = Field(default=4, ge=0)
    max_ngram_problems: int = Field(default=2, ge=1)
    function_names: bool = True
    min_function_name_chars: int = Field(default=7, ge=1)

    def with_tasks(self, tasks: tuple[str, ...]) -> DecontaminationConfig:
        """These settings with the sets of the recipe's own `tasks`, where `own_tasks` asks."""
        named = {item.name for item in self.sets}
        missing = [task for task in tasks if task in PACKAGED_SETS and task not in named]
        if not self.own_tasks or not missing:
            return self
        more = tuple(EvaluationSetConfig(name=task) for task in missing)
        return self.model_copy(update={"sets": (*self.sets, *more)})


class CorpusConfig(Section):
    """Snippet extraction and its limits.

    Attributes:
        label_selector: nodes that its tasks run on; where nodes may come, so are they.
        languages: that are cut into snippets; docs/synthesis.md lists them.
        allowed_licenses: SPDX identifiers; an expression is allowed if one of its alternatives is.
        max_files / max_snippets: a deterministic sample of so many; null takes all.
        max_file_bytes: larger files are refused.
        min_lines / max_lines / max_chars: of a snippet.
        sample_seed: which files and snippets `max_files` and `max_snippets` take.
        rows_per_shard: snippets of one shard, the unit of resuming.
        files_per_task: files that one task reads.
    """

    source: SourceConfig = SourceConfig()
    languages: tuple[str, ...] = ("python",)
    allowed_licenses: tuple[str, ...] = (
        "PSF-2.0",
        "MIT",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "Unlicense",
        "CC0-1.0",
        "Apache-2.0 WITH LLVM-exception",
    )
    filters: FilterConfig = FilterConfig()
    near_duplicates: NearDuplicateConfig = NearDuplicateConfig()
    deduplication: DeduplicationConfig = DeduplicationConfig()
    decontamination: DecontaminationConfig = DecontaminationConfig()
    max_files: int | None = Field(default=None, ge=1)
    max_snippets: int | None = Field(default=None, ge=1)
    max_file_bytes: int = Field(default=1_000_000, ge=1)
    min_lines: int = Field(default=4, ge=1)
    max_lines: int = Field(default=80, ge=1)
    max_chars: int = Field(default=4_000, ge=1)
    sample_seed: int = 0
    rows_per_shard: int = Field(default=1_000, ge=1)
    files_per_task: int = operational(64, ge=1)
    label_selector: LabelSelector = operational({})

    @model_validator(mode="after")
    def _line_bounds(self) -> CorpusConfig:
        if self.min_lines > self.max_lines:
            raise ValueError(f"min_lines={self.min_lines} exceeds max_lines={self.max_lines}")
        return self
