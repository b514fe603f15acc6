"""ReClor and LogiQA 2.0 as pairs: the correct option of a question against each wrong one.

Section 4.1.2 derives ReClor-pair and LogiQA2.0-pair without saying how; rewards are later compared
over the four options (section 4.1.3), so an option is a response, and passage and question are the
prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

from codepmp_ray.config.data import DataSourceConfig
from codepmp_ray.preference.sources.rows import (
    Builder,
    Row,
    Unusable,
    checked_text,
    make_pair,
    row_by_row,
    text_cell,
)
from codepmp_ray.records import stable_id
from codepmp_ray.reject_reasons import RejectReason


@dataclass(frozen=True)
class Columns:
    """Names of a set's columns."""

    passage: str
    question: str
    options: str
    answer: str

    @property
    def required(self) -> set[str]:
        return {self.passage, self.question, self.options, self.answer}


RECLOR = Columns("context", "question", "answers", "label")
LOGIQA2 = Columns("text", "question", "options", "answer")


@dataclass(frozen=True)
class Question:
    """One row, checked. `answer` is the index of the right option."""

    passage: str
    question: str
    options: list[str]
    answer: int

    def prompt(self, show_options: bool = False) -> str:
        """What a response to this question is given."""
        text = f"Passage: {self.passage}\nQuestion: {self.question}"
        if not show_options:
            return text
        listed = (f"{chr(65 + i)}. {option}" for i, option in enumerate(self.options))
        return text + "\nOptions:\n" + "\n".join(listed)


def read_question(row: Row, columns: Columns) -> Question:
    """A row as a question. Raises Unusable."""
    options = _options(row, columns)
    answer = row.get(columns.answer)
    if isinstance(answer, bool) or not isinstance(answer, int):
        raise Unusable(RejectReason.BAD_LABEL, f"{columns.answer} is {answer!r}, not an index")
    if not 0 <= answer < len(options):
        raise Unusable(
            RejectReason.BAD_LABEL, f"{columns.answer}={answer} with {len(options)} options"
        )
    passage, question = text_cell(row, columns.passage), text_cell(row, columns.question)
    if not question.strip():
        raise Unusable(RejectReason.PROMPT_EMPTY, f"{columns.question} is missing or blank")
    return Question(passage.strip(), question.strip(), options, answer)


def builder(columns: Columns) -> Builder:
    """Pairs of one question: (right, wrong) in the order of the wrong options."""

    def build_row(row: Row, config: DataSourceConfig) -> list[Row]:
        question = read_question(row, columns)
        right = question.options[question.answer]
        wrong = list(dict.fromkeys(option for option in question.options if option != right))
        if not wrong:
            raise Unusable(RejectReason.NO_CONTRAST, "no option differs from the correct one")
        prompt = question.prompt(config.show_options)
        # Several questions may be asked about one passage: they are held out together.
        origin = stable_id(question.passage or question.question)
        return [
            make_pair(prompt, right, option, config, problem_id=origin)
            for option in wrong[: config.max_pairs_per_problem]
        ]

    return row_by_row(build_row)


def _options(row: Row, columns: Columns) -> list[str]:
    value = row.get(columns.options)
    if not isinstance(value, list):
        raise Unusable(
            RejectReason.NOT_TEXT, f"{columns.options} is {type(value).__name__}, not a list"
        )
    return [checked_text(option, columns.options).strip() for option in value]
