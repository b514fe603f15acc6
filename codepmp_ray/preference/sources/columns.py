"""Which columns of a set are used: mapped to the kind's names, the rest named, no prompt guessed.

A set may call its prompt anything. Where none of its columns is `prompt`, what both sides begin
with would be taken for it: of plain text that always succeeds, on fragments of the answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.errors import InputError
from codepmp_ray.io.nested import nested_row
from codepmp_ray.preference.messages import MEDIA_FIELDS, SHOWN_FIELDS
from codepmp_ray.preference.sources.rows import Numbered, Reject, Row

# Parts of a name that say what a column is. A column that is neither is looked at.
_PROMPT_WORDS = """
ask context conversation conversations dialog dialogue history input inputs instruction instructions
message messages post problem prompt prompts query question questions request system task text title
user utterance
"""
_METADATA_WORDS = """
annotator author category chosen class count created dataset date digest domain evol file
generator hash id ids idx index judge kind label labels lang language length level license margin
meta metadata model models name num origin path rank rating rationale reason rejected repo
score scores sha source split subset tag tags time timestamp tokens type url version weight
"""
_PROMPT = frozenset(_PROMPT_WORDS.split())
_METADATA = frozenset(_METADATA_WORDS.split())
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_LONG = 4  # words of a text that is more than a label
_MAX_LISTED = 20


class ColumnUse:
    """Reads the rows of one set with the names that its kind knows, and keeps account of the rest.

    Args:
        template: of the training that reads the set; None where it is not known.

    Attributes:
        unused: columns with a value in some row, and fields of messages, that nothing read.
        num_shared: rows of plain text whose prompt is what both sides begin with.
    """

    def __init__(
        self,
        source: DataSourceConfig,
        required: tuple[set[str], ...],
        template: str | None = None,
    ) -> None:
        self.source = source
        self.required = required
        self.template = template
        self.unused: dict[str, None] = {}
        self.num_shared = 0
        self._mapped = {name: col for name, col in source.columns.items() if col is not None}
        self._unseen = dict.fromkeys(self._mapped.values())
        self._read = set(source.columns_read)
        # Of a column inside another one, that one is read too, if not the whole of it.
        self._read |= {column.partition(".")[0] for column in self._unseen if "." in column}
        self._num_rows = 0
        self._has_prompt = False

    def rows(self, rows: Iterable[Numbered]) -> Iterator[Numbered]:
        """`rows` under the kind's names.

        Raises InputError where columns are missing, and at a row whose prompt would be a guess.
        """
        for item in rows:
            if isinstance(item, Reject):
                yield item
                continue
            index, given = item
            given = nested_row(given, self._mapped.values())
            for column in list(self._unseen):
                if column in given:
                    del self._unseen[column]
            if not self._num_rows:
                self._check_first(given)
            self._num_rows += 1
            row = self._renamed(given)
            self._note_unused(row)
            if self.source.kind == "preference":
                row = self._with_prompt(index, row)
            yield index, row
        self.finish()

    def finish(self) -> None:
        """Called after the last row. Raises InputError for a mapped name that no row has."""
        if self._num_rows and self._unseen:
            raise self._no_such_column(next(iter(self._unseen)), "")

    def line(self) -> str | None:
        """One line about what was not used, if anything was not."""
        parts: list[str] = []
        if self.unused:
            parts.append(f"columns not used: {listed(self.unused)}")
        if self.num_shared:
            parts.append(f"{self.num_shared} prompts are what both texts begin with")
        return f"{self.source.label}: {'; '.join(parts)}" if parts else None

    def _check_first(self, row: Row) -> None:
        wanted = {name for columns in self.required for name in columns} | {"prompt"}
        for name, column in self._mapped.items():
            if name in wanted and column not in row:
                raise self._no_such_column(column, listed(row))
        found = set(self._renamed(row))
        if not any(columns <= found for columns in self.required):
            forms = " or ".join(", ".join(sorted(columns)) for columns in self.required)
            raise InputError(
                f"The training source {self.source.label!r} (kind={self.source.kind}) needs the "
                f"columns {forms}; it has {listed(sorted(row)) or 'none'}.",
                "Name another kind, or map its names, for example columns: "
                f"{{{sorted(self.required[0] - found or self.required[0])[0]}: COLUMN}}.",
            )
        self._has_prompt = "prompt" in found

    def _no_such_column(self, column: str, found: str) -> InputError:
        found = found or f"in {self._num_rows} rows only {listed(self.unused)} beside those used"
        return InputError(
            f"The training source {self.source.label!r} has columns={self.source.columns}, but no "
            f"column {column!r}; it has {found}.",
            "Name a column that exists.",
        )

    def _renamed(self, row: Row) -> Row:
        if not self.source.columns:
            return row
        taken = set(self._mapped.values())
        # A column with the kind's own name, whose place another one takes, is not used: it keeps
        # a name that nothing reads, to be listed.
        kept = {
            f"{name} (not the mapped one)" if name in self.source.columns else name: value
            for name, value in row.items()
            if name not in taken
        }
        return kept | {name: row.get(column) for name, column in self._mapped.items()}

    def _note_unused(self, row: Row) -> None:
        for name, value in row.items():
            if value is None:
                continue
            if name not in self._read:
                self.unused[name] = None
            elif isinstance(value, list) and name in ("prompt", "chosen", "rejected"):
                for message in value:
                    if isinstance(message, dict):
                        extra = message.keys() - {"role", "content"} - SHOWN_FIELDS - MEDIA_FIELDS
                        for field in sorted(map(str, extra)):
                            self.unused[f"{name}[].{field}"] = None

    def _with_prompt(self, index: int, row: Row) -> Row:
        """The row, unless its prompt would be a guess. Raises InputError."""
        if "prompt" in row:
            return row
        if self._has_prompt:
            # A hole in the column: the row is rejected for it, and never read in another form.
            return {**row, "prompt": None}
        chosen, rejected = row.get("chosen"), row.get("rejected")
        is_text = isinstance(chosen, str) and isinstance(rejected, str)
        # Messages that both sides begin with are a prompt that nobody has to guess.
        has_no_head = (
            isinstance(chosen, list) and isinstance(rejected, list) and chosen[:1] != rejected[:1]
        )
        if not is_text and not has_no_head:
            return row
        if "prompt" not in self.source.columns and (found := _suspects(row, self._read)):
            remedy = f"Set data[].columns: {{prompt: {found[0]}}} if that is the prompt"
            if is_text and self.template != "chat":
                remedy += ", or {prompt: null} if no column is and both sides begin with it"
            if rest := [name for name in found[1:] if name not in self._read]:
                remedy += (
                    f"; {listed(rest)} would not be in it, so join them where they belong to it"
                )
            raise InputError(
                f"The training source {self.source.label!r} has no column prompt, and row {index} "
                f"has {listed(found)} beside chosen and rejected: its prompt would be a guess.",
                f"{remedy}.",
            )
        if is_text and self.template == "chat":
            raise InputError(
                f"The training source {self.source.label!r} has no column prompt, and row {index} "
                "has plain text: under template=chat the words that both sides happen to begin "
                "with would be the user's turn.",
                "Set data[].columns: {prompt: COLUMN}, kind: hh_rlhf for 'Human:' and 'Assistant:' "
                f"transcripts, or template=plain; it has {listed(row)}.",
            )
        self.num_shared += is_text
        return row


def listed(names: Iterable[str]) -> str:
    """The first names, and how many follow."""
    all_names = list(names)
    more = len(all_names) - _MAX_LISTED
    return ", ".join(all_names[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "")


def _suspects(row: Row, read: set[str]) -> list[str]:
    """Columns that may hold the prompt, those whose names say so first; `system` comes last."""
    by_name: list[str] = []
    by_value: list[str] = []
    for name, value in row.items():
        words = {word.lower() for word in _WORD.findall(name)}
        if (name in read and name != "system") or words & _METADATA:
            continue
        if words & _PROMPT and value and isinstance(value, str | list | dict):
            by_name.append(name)
        elif _is_long_text(value):
            by_value.append(name)
    return sorted(by_name, key=_is_context) + by_value


def _is_context(name: str) -> bool:
    """Whether the name is of what stands around a question, and not of the question."""
    words = {word.lower() for word in _WORD.findall(name)}
    return bool(words & {"system", "context", "history", "input", "inputs", "title"})


def _is_long_text(value: Any) -> bool:
    if isinstance(value, str):
        return len(value.split()) >= _LONG
    # Messages, as OpenAI's or ShareGPT's.
    is_list = isinstance(value, list) and bool(value) and isinstance(value[0], dict)
    return is_list and bool({"content", "value"} & value[0].keys())
