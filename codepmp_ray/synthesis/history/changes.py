"""A commit -> changed definitions, each with both versions, or the reason why it is of no use.

Files are read as the corpus reads them (opt-outs, licence, language, filters, limits), both
versions alike. Every commit ends in at least one row: of the commit, of a file or of a definition.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from codepmp_ray.config.corpus import CorpusConfig
from codepmp_ray.config.synthesis import CommitsConfig
from codepmp_ray.corpus.decontamination import load_evaluation_index
from codepmp_ray.corpus.documents import Document
from codepmp_ray.corpus.file_checks import FileRefusal, read_definitions
from codepmp_ray.corpus.filters import SNIPPET_FILTERS, CodeText, Filter, refusal
from codepmp_ray.corpus.filters.personal_data import PersonalDataFilter, redacted
from codepmp_ray.corpus.filters.secrets import SecretsFilter
from codepmp_ray.corpus.languages import find_language
from codepmp_ray.corpus.licenses import (
    folder_license,
    header_license,
    license_text,
)
from codepmp_ray.corpus.snippets import Definition
from codepmp_ray.corpus.sources import source_licenses, source_repo
from codepmp_ray.corpus.words import split_words
from codepmp_ray.records import stable_id, table_from_rows
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.synthesis.gates import Rejection, contaminated
from codepmp_ray.synthesis.history.repository import (
    Change,
    Commit,
    Repository,
    open_repository,
)
from codepmp_ray.synthesis.history.syntax import same_syntax
from codepmp_ray.synthesis.rows import Row

_SIDES = ("source_id", "blob_id", "repo", "code")
CHANGE = pa.schema(
    [
        pa.field(name, pa.string())
        for name in (
            *("row_id", "path", "language", "license", "name", "message", "reason", "detail"),
            *_SIDES,
            *(f"rejected_{name}" for name in _SIDES),
        )
    ]
)
_BOT = re.compile(
    r"\[bot\]|(?:^|[\W_])bot(?:$|[\W_])|dependabot|renovate|greenkeeper|pre-commit-ci"
    r"|github-actions|pyup|snyk",
    re.IGNORECASE,
)
_REVERT = re.compile(r"\s*(?:reverts?|back(?:s|ed)? out)\b|.*^this reverts ", re.I | re.M | re.S)
_MESSAGE_FILTERS: tuple[Filter, ...] = (SecretsFilter(), PersonalDataFilter())
# Lines for tools and about people, not about the change.
_TRAILER = re.compile(
    r"^(?:[A-Z][A-Za-z-]*-by|Change-Id|git-svn-id|Cc|PR-URL|Reviewers?|Differential Revision"
    r"|Link|Closes|Fixes|Refs|See-also) ?:.*\n?",
    re.MULTILINE | re.IGNORECASE,
)


@dataclass(frozen=True)
class History:
    """What is read, and how; pickled to the workers. `shards` are the ids of commits."""

    folder: str
    corpus: CorpusConfig
    settings: CommitsConfig
    purged: frozenset[str]
    shards: tuple[tuple[str, ...], ...]


def read_changes(history: History, shard_id: int) -> pa.Table:
    """The rows (CHANGE) of one shard's commits; those with a reason become no pair."""
    folder = Path(history.folder)
    with open_repository(folder) as repository:
        commits = repository.read_commits(list(history.shards[shard_id]))
        refused = {commit.oid: judge_commit(commit, history.settings) for commit in commits}
        changed = repository.changes(c for c in commits if not refused[c.oid])
        reader = _Reader(history, folder, repository, changed)
        rows = [row for commit in commits for row in reader.rows(commit, refused[commit.oid])]
    return table_from_rows(rows, CHANGE)


def judge_commit(commit: Commit, settings: CommitsConfig) -> Rejection | None:
    """Why a commit is of no use, by what it says of itself."""
    if len(commit.parents) > 1:
        return Rejection(RejectReason.MERGE_COMMIT, f"{len(commit.parents)} parents")
    if not commit.parents:
        return Rejection(RejectReason.NO_CHANGED_CODE, "the first commit has nothing before it")
    if _BOT.search(commit.author):
        return Rejection(RejectReason.BOT_COMMIT, "by its author's name")
    if _REVERT.match(commit.message):
        return Rejection(RejectReason.REVERT_COMMIT, "by its message")
    least, words = settings.min_message_words, split_words(plain_message(commit.message))
    if len(words) < least:
        limit = f"min_message_words={least}"
        return Rejection(RejectReason.MESSAGE_TOO_SHORT, f"{len(words)} words, {limit}")
    return None


def plain_message(message: str) -> str:
    """What a message says of the change, without trailers and NUL."""
    return re.sub(r"\n{3,}", "\n\n", _TRAILER.sub("", message.replace("\0", ""))).strip()


@dataclass(frozen=True)
class _Reader:
    history: History
    folder: Path
    repository: Repository
    changed: dict[str, list[Change]]

    def rows(self, commit: Commit, refused: Rejection | None) -> Iterator[Row]:
        base = {"repo": self._named(commit.oid), "message": plain_message(commit.message)}
        base |= {"row_id": stable_id("commit", base["repo"])}
        found = refused or self._code_changes(commit)
        if isinstance(found, Rejection):
            yield _refused(base, found)
            return
        made: list[Row] = []
        num_changed = 0
        for before, after in self._documents(commit, found):
            place = base | {"path": _storable(after.path), "blob_id": after.best_blob_id}
            place |= {"row_id": stable_id("commit", base["repo"], after.path)}
            try:
                rows, num = self._changed_definitions(place, before, after, commit)
            except FileRefusal as error:
                rows, num = [_refused(place, Rejection(error.reason, error.detail))], 0
            made += rows
            num_changed += num
        most = self.history.settings.max_definitions
        if num_changed > most:
            detail = f"{num_changed} definitions, max_definitions={most}"
            yield _refused(base, Rejection(RejectReason.TOO_MANY_CHANGES, detail))
            return
        yield from made

    def _named(self, oid: str) -> str:
        return f"{source_repo(self.history.corpus.source, self.folder)}@{oid}"

    def _code_changes(self, commit: Commit) -> list[Change] | Rejection:
        languages = self.history.corpus.languages
        found = [
            change
            for change in self.changed.get(commit.oid, [])
            if find_language(None, change.path) in languages
        ]
        if not found:
            detail = f"no file in {', '.join(languages)} is changed in place"
            return Rejection(RejectReason.NO_CHANGED_CODE, detail)
        most = self.history.settings.max_definitions
        if len(found) > most:  # each of them has at least one, as far as the commit is of use
            detail = f"{len(found)} files, max_definitions={most}"
            return Rejection(RejectReason.TOO_MANY_CHANGES, detail)
        return found

    def _documents(
        self, commit: Commit, changes: list[Change]
    ) -> Iterator[tuple[Document, Document]]:
        limit = self.history.corpus.max_file_bytes
        oids = [oid for change in changes for oid in (change.before, change.after)]
        sizes = self.repository.sizes(oids)
        small = [oid for oid in dict.fromkeys(oids) if sizes.get(oid, limit + 1) <= limit]
        data = dict(self.repository.read(small))
        for change in changes:
            names = (commit.parents[0], change.before), (commit.oid, change.after)
            before, after = (
                self._document(oid, blob, change.path, data.get(blob), sizes.get(blob))
                for oid, blob in names
            )
            yield before, after

    def _document(
        self, oid: str, blob: str, path: str, data: bytes | None, size: int | None
    ) -> Document:
        document = Document(path, path, repo=self._named(oid), blob_id=blob, data=data)
        if size is None:
            return replace(document, reason=RejectReason.UNREADABLE, detail="git has no such blob")
        if data is None:
            limit = f"max_file_bytes={self.history.corpus.max_file_bytes}"
            return replace(document, reason=RejectReason.TOO_LARGE, detail=f"{size} bytes, {limit}")
        licenses = header_license(data) or source_licenses(self.history.corpus.source)
        return replace(document, licenses=licenses or folder_license(self.folder, path))

    def _changed_definitions(
        self, place: Row, before: Document, after: Document, commit: Commit
    ) -> tuple[list[Row], int]:
        """Rows of a file, and how many of its definitions came, went or changed."""
        read = [read_definitions(d, self.history.corpus, self.history.purged)
                for d in (before, after)]  # fmt: skip
        (old_id, _, old), (new_id, language, new) = read
        place |= {
            "source_id": new_id,
            "language": language,
            "license": license_text(tuple(dict.fromkeys((*after.licenses, *before.licenses)))),
            "rejected_source_id": old_id,
            "rejected_blob_id": before.best_blob_id,
            "rejected_repo": before.repo,
        }
        olds, news = _by_name(old), _by_name(new)
        both = [name for name in news if name in olds and _codes(olds[name]) != _codes(news[name])]
        one_sided = {*olds} ^ {*news}
        if not both:
            detail = "no definition is there before and after and differs"
            return [_refused(place, Rejection(RejectReason.NO_CHANGED_CODE, detail))], 0
        rows = [self._change(place, name, olds[name], news[name], commit) for name in both]
        useful = [row for row in rows if row.get("reason") not in _OF_LIMITS]
        usable = sum(any(d.reason is None for d in (olds | news)[name]) for name in one_sided)
        # A class that is too long is no change beside the one of its method.
        return useful or rows[:1], len(useful) + usable

    def _change(
        self, place: Row, name: str, olds: list[Definition], news: list[Definition], commit: Commit
    ) -> Row:
        row = place | {"name": name}
        row["row_id"] = stable_id("commit", place["repo"], place["path"], name)
        if len(olds) != 1 or len(news) != 1:
            detail = f"{name} is defined more than once"
            return _refused(row, Rejection(RejectReason.NO_CHANGED_CODE, detail))
        for definition in (*news, *olds):
            if definition.reason is not None:
                return _refused(row, Rejection(definition.reason, definition.detail))
        row |= {"code": news[0].code, "rejected_code": olds[0].code}
        if refused := self._judge(row):
            return _refused(row, refused)
        if self.history.corpus.filters.personal_data == "redact":
            row |= {key: redacted(row[key]) for key in ("code", "rejected_code", "message")}
        return row

    def _judge(self, row: Row) -> Rejection | None:
        corpus, language = self.history.corpus, row["language"]
        if same_syntax(row["code"], row["rejected_code"], language):
            return Rejection(RejectReason.FORMATTING_ONLY, "both versions have one syntax tree")
        for key in ("code", "rejected_code", "message"):
            text = CodeText(row[key], row["path"], language)
            filters = SNIPPET_FILTERS if key != "message" else _MESSAGE_FILTERS
            if found := refusal(filters, text, corpus.filters):
                return Rejection(found[0], f"{key}: {found[1]}")
        index = load_evaluation_index(corpus.decontamination)
        fields = {"description": "message", "chosen": "code", "rejected": "rejected_code"}
        found = (contaminated(field, row[key], index) for field, key in fields.items())
        return next(filter(None, found), None)


# Why a definition that contains another one may leave.
_OF_LIMITS = (str(RejectReason.TOO_LONG),)


def _by_name(definitions: list[Definition]) -> dict[str, list[Definition]]:
    found: dict[str, list[Definition]] = {}
    for definition in definitions:
        found.setdefault(definition.name, []).append(definition)
    return found


def _codes(definitions: list[Definition]) -> Counter[str]:
    return Counter(definition.code for definition in definitions)


def _refused(row: Row, why: Rejection) -> Row:
    texts = ("code", "rejected_code", "message")
    kept = {name: value for name, value in row.items() if name not in texts}
    return kept | {"reason": str(why.reason), "detail": why.detail}


def _storable(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")
