"""A tokenizer's control tokens: those of a template are tokens, those in somebody's text are text.

A tokenizer turns `<|im_end|>` into one id wherever it stands, so that a question about chat
templates would end its own turn. Texts of people are marked before a template takes them in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

# What models write inside an answer; some tokenizers have it among the special tokens.
_OF_ANSWERS = re.compile(r"</?(think|thinking|tool_call|tool_response|tools?|answer)>")
# U+2063 is an invisible separator that no template looks at. A marked token is its number in hex
# between two of them.
_MARK = "\u2063"
_MARKED = re.compile(f"{_MARK}c([0-9a-f]+){_MARK}")


class ControlTokens:
    """Finds control tokens in texts, and tokenises texts in which some are marked as text."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        special = {str(token) for token in tokenizer.all_special_tokens}
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        special |= {str(token.content) for token in added if token.special}
        # Longest first: of two that begin alike the longer one is meant, as tokenizers have it.
        self._tokens = sorted(
            (token for token in special if token and not _OF_ANSWERS.fullmatch(token)),
            key=lambda token: (-len(token), token),
        )
        # The separator itself is marked too, so that no text of somebody looks like a mark.
        self._marked = [*self._tokens, _MARK]
        self._numbers = {token: number for number, token in enumerate(self._marked)}
        self._splits: dict[str, bool] = {}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self._tokens)) or r"(?!)")

    @cached_property
    def _to_mark(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self._marked)))

    def mark(self, text: str) -> str:
        """`text` of somebody, with its control tokens marked."""
        return self._to_mark.sub(lambda found: self._mark(found[0]), text)

    def mark_all(self, value: Any) -> Any:
        """`mark` for every text inside lists and dicts."""
        if isinstance(value, str):
            return self.mark(value)
        if isinstance(value, dict):
            return {key: self.mark_all(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.mark_all(item) for item in value]
        return value

    def unmark(self, text: str) -> str:
        """What people read."""
        return _MARKED.sub(lambda found: self._marked[int(found[1], 16)], text)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of marked texts, each for itself; on all cores if the tokenizer can."""
        plain = [text for text in texts if not _MARKED.search(text)]
        found = iter(self._tokenizer(plain, add_special_tokens=False)["input_ids"] if plain else [])
        return [self._mixed(text) if _MARKED.search(text) else next(found) for text in texts]

    def split_head(self, text: str) -> tuple[str, str]:
        """(up to the last control token, what follows): their ids, one after the other, are those
        of `text`, and remain its beginning whatever is written behind it. ("", text) if there is
        no such place.
        """
        found = list(self._pattern.finditer(text))
        if not found or not self._is_boundary(found[-1][0]):
            return "", text
        end = found[-1].end()
        return text[:end], text[end:]

    def _is_boundary(self, token: str) -> bool:
        """Whether what follows `token` is tokenised as if it stood alone.

        Not where a tokenizer puts a space before a text's first word, or where the token takes the
        white space behind it away.
        """
        if token not in self._splits:
            texts = ["x", " x", "\nx", "\n\n    x", "  ", "X x\n", "\tx", "é", "1"]
            alone = self._tokenizer([token, *texts], add_special_tokens=False)["input_ids"]
            behind = self._tokenizer([token + t for t in texts], add_special_tokens=False)
            expected = [alone[0] + ids for ids in alone[1:]]
            self._splits[token] = behind["input_ids"] == expected
        return self._splits[token]

    def _mark(self, token: str) -> str:
        return f"{_MARK}c{self._numbers[token]:x}{_MARK}"

    def _mixed(self, text: str) -> list[int]:
        """Between two control tokens of the template all is text."""
        ids: list[int] = []
        start = 0
        for found in [*self._pattern.finditer(text), None]:
            part = text[start : found.start() if found else None]
            if part:
                ids += self._as_text(self.unmark(part))
            if found:
                ids += self._tokenizer(found[0], add_special_tokens=False)["input_ids"]
                start = found.end()
        return ids

    def _as_text(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
