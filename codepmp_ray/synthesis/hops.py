"""One row on its way through the hops of its construction.

A row in flight is a dict with the snippet's columns, what the hops added, and `reject_reason` once
a hop gave up on it; later hops then leave it alone. Nothing here raises because of a row.
"""

from __future__ import annotations

import json
import logging

import pyarrow as pa

from codepmp_ray.config.corpus import DecontaminationConfig
from codepmp_ray.config.synthesis import SynthesisConfig
from codepmp_ray.corpus.decontamination import EvaluationIndex, load_evaluation_index
from codepmp_ray.errors import EngineError
from codepmp_ray.records import SNIPPET
from codepmp_ray.reject_reasons import RejectReason
from codepmp_ray.synthesis.constructions import Hop, make_construction
from codepmp_ray.synthesis.engine import Completion, ContextOverflow, TextEngine
from codepmp_ray.synthesis.gates import clean, contaminated, judge_text
from codepmp_ray.synthesis.gates.verdict import of_field
from codepmp_ray.synthesis.prompts import parse_description, parse_label
from codepmp_ray.synthesis.rows import Row, refuse
from codepmp_ray.synthesis.thoughts import split_thought

logger = logging.getLogger(__name__)

_TEXTS = ("description", "tests", "weak_tests", "reference", "chosen", "rejected")
# Schema of a block between two pools: the snippet and everything that hops may add.
IN_FLIGHT = pa.schema(
    [
        *SNIPPET,
        *[pa.field(name, pa.string()) for name in _TEXTS],
        *[pa.field(f"{name}_finish_reason", pa.string()) for name in _TEXTS],
        *[pa.field(f"{name}_num_tokens", pa.int64()) for name in _TEXTS],
        pa.field("domain", pa.string()),
        pa.field("domain_confidence", pa.float64()),
        pa.field("reject_reason", pa.string()),
        pa.field("reject_detail", pa.string()),
    ]
)


class RowProcessor:
    """Takes one row through the hops of one pool.

    `decontamination` says which evaluation sets texts are held against; None screens nothing.
    """

    def __init__(
        self,
        config: SynthesisConfig,
        hops: tuple[Hop, ...],
        decontamination: DecontaminationConfig | None = None,
    ) -> None:
        self.config = config
        self.hops = hops
        self._index = load_evaluation_index(decontamination) if decontamination else None
        self._construction = make_construction(config)

    async def __call__(self, row: Row, engine: TextEngine) -> Row:
        if "describe" in self.hops:  # the first hop of all
            row = self._construction.prepare(row)
        for hop in self.hops:
            if row.get("reject_reason"):
                break
            row = await (self._label if hop == "label" else self._hop)(hop, row, engine)
        return row

    def give_up(self, row: Row, detail: str) -> Row:
        return refuse(row, RejectReason.ENGINE_CRASH, detail)

    async def _hop(self, hop: Hop, row: Row, engine: TextEngine) -> Row:
        field = "description" if hop == "describe" else hop
        message, sampling = self._construction.question(hop, row), self.config.sampling(hop)
        try:
            answer = await engine.generate(message, sampling)
        except ContextOverflow as error:
            reason = (
                RejectReason.SNIPPET_OVER_CONTEXT
                if hop == "describe"
                else RejectReason.DESCRIPTION_OVER_CONTEXT
            )
            return refuse(row, reason, str(error))
        except EngineError as error:
            logger.warning("engine refused %s: %s", row["snippet_id"], error)
            return refuse(row, RejectReason.ENGINE_ERROR, str(error))
        return _record(row, field, answer, self.config, self._index, message)

    async def _label(self, hop: Hop, row: Row, engine: TextEngine) -> Row:
        """A label is an extra: without one the row stays what it is."""
        message = self._construction.question(hop, row)
        try:
            answer = await engine.generate(message, self.config.label)
            found = parse_label(split_thought(answer.text)[0])
        except (ContextOverflow, EngineError) as error:
            logger.warning("no label for %s: %s", row["snippet_id"], error)
            found = None
        domain, confidence = found or (None, None)
        return {**row, "domain": domain, "domain_confidence": confidence}


def _record(
    row: Row,
    field: str,
    answer: Completion,
    config: SynthesisConfig,
    index: EvaluationIndex | None,
    asked: str,
) -> Row:
    plain, is_thought = split_thought(answer.text)
    text = parse_description(plain) if field == "description" else plain.strip()
    num_tokens, finish_reason = answer.num_tokens, answer.finish_reason
    if plain != answer.text:  # of the answer alone, by its share of the characters
        num_tokens = round(num_tokens * len(plain) / len(answer.text))
    row = {
        **row,
        field: clean(text),
        f"{field}_finish_reason": finish_reason,
        f"{field}_num_tokens": num_tokens,
    }
    # A row that cannot become a pair any more costs no further tokens.
    if is_thought or answer.is_thought:
        return refuse(row, *of_field(field, "unclosed_thought", f"{num_tokens} tokens"))
    snippet = row["code"] or ""
    if refused := judge_text(
        *(field, text, finish_reason, num_tokens, row["language"], config.gates),
        snippet=snippet,
        asked=asked,
    ):
        return refuse(row, *refused)
    # Tests are not trained on.
    if (
        index
        and field not in ("tests", "weak_tests")
        and (refused := contaminated(field, text, index))
    ):
        return refuse(row, *refused)
    return row


def reject_payload(row: Row) -> str:
    """JSON of what the hops had made of a rejected row."""
    made = {name: row.get(name) for name in _TEXTS if row.get(name) is not None}
    return json.dumps(made, ensure_ascii=False)
