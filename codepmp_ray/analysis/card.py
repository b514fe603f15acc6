"""The dataset card of the synthesis stage: README.md as the Hugging Face hub reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from codepmp_ray.analysis.lengths import LengthStats
from codepmp_ray.analysis.paper import MEAN_CHOSEN_TOKENS, MEAN_REJECTED_TOKENS
from codepmp_ray.analysis.tables import Counts, SynthesisData, load_synthesis
from codepmp_ray.analysis.text import (
    fenced,
    inline_code,
    interval,
    markdown_table,
    percent,
    shortened,
)
from codepmp_ray.config.recipe import Recipe
from codepmp_ray.ledger import ShardLedger
from codepmp_ray.runs import Stage, open_stage
from codepmp_ray.synthesis.constructions import all_hops

CARD_FILE = "README.md"
_MAX_LISTED_FILES = 100
_MAX_LISTED_SOURCES = 20
_MAX_TEXT_CHARS = 2_000
# SPDX ids that the hub knows; anything else is "other" with its name beside it.
_HUB_LICENSES = {
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense", "cc0-1.0", "mpl-2.0",
    "gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0", "agpl-3.0", "zlib", "bsl-1.0", "wtfpl", "ncsa",
}  # fmt: skip
_BY_MODELS = (
    ": a model described a piece of code, then two answers to that description were written."
)
_BY_PEOPLE = {
    "web_pairs": "People wrote both sides; the chosen one scored at least "
    "{synthesis.threads.min_score_gap:g} more.",
    "commits": "The prompt is the message of a commit, the chosen side a function or class after "
    "it, the rejected side the same before it.",
    "continuation": "The prompt is the beginning of a snippet, the chosen side its own rest, the "
    "rejected side the rest of a snippet of another file, which is the chosen side of another "
    "pair. `license` holds both files' licences.",
}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
          (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"))  # fmt: skip


def write_card(recipe: Recipe, prompts: Mapping[str, str] | None = None) -> str:
    """Write README.md into the synthesis stage's folder and return where it is.

    `prompts` maps the name of each prompt to its template text. Files of lost attempts are swept
    first, because the card may point at whole folders.
    """
    stage = open_stage(recipe, "synthesis")
    stage.ledger.sweep(["pairs", "rejected"])
    stage.store.put(CARD_FILE, dataset_card(stage, prompts or {}).encode())
    return stage.store.locate(CARD_FILE)


def dataset_card(stage: Stage, prompts: Mapping[str, str]) -> str:
    """The card's text, from the committed tables of `stage`."""
    data = load_synthesis(stage)
    header = yaml.safe_dump(_header(stage, data), sort_keys=False, allow_unicode=False)
    blocks = [
        f"---\n{header}---",
        "# Preference pairs from code",
        _warning(data),
        "Each row is `<prompt, chosen, rejected>` in TRL preference format"
        + (_BY_MODELS if all_hops(stage.recipe.synthesis) else "."),
        _counts_section(data),
        _making_section(stage.recipe, data, prompts),
        _decontamination_section(stage.recipe, data),
        _lengths_section(data) if data.num_pairs else "",
        "## Licences and sources\n\n"
        "The code that the prompts were made from. A model's answer is not a copy of it, but may "
        "resemble it.\n\n" + _count_table("licence", data.values["license"])
        + "\n\n" + _count_table("source", data.values["repo"], _MAX_LISTED_SOURCES),
        _examples_section(data),
    ]  # fmt: skip
    return "\n\n".join(block for block in blocks if block) + "\n"


def _header(stage: Stage, data: SynthesisData) -> dict[str, Any]:
    header: dict[str, Any] = {"pretty_name": f"CodePMP pairs {stage.fingerprint}"}
    header["language"] = ["en"]
    licenses = sorted(data.values["license"])
    known = [name.lower() for name in licenses if name.lower() in _HUB_LICENSES]
    other = [name for name in licenses if name.lower() not in _HUB_LICENSES]
    if licenses:
        header["license"] = known + (["other"] if other else [])
    if other:
        header["license_name"] = "-and-".join(name.lower().replace(" ", "-") for name in other)
    header["task_categories"] = ["text-generation"]
    header["tags"] = ["preference", "reward-model", "code", "synthetic", "trl"]
    header["size_categories"] = [
        next((label for limit, label in _SIZES if data.num_pairs < limit), "n>100M")
    ]
    configs = []
    for table in ("pairs", "rejected"):
        if files := _data_files(stage.ledger, table):
            config = {"config_name": table, "data_files": [{"split": "train", "path": files}]}
            configs.append({**config, "default": True} if table == "pairs" else config)
    if configs:
        header["configs"] = configs
    return header


def _data_files(ledger: ShardLedger, table: str) -> list[str]:
    files = [c.files[table] for c in ledger.commits() if c.num_rows.get(table)]
    return files if len(files) <= _MAX_LISTED_FILES else [f"{table}/*/*.parquet"]


def _warning(data: SynthesisData) -> str:
    if not data.is_demonstration:
        return ""
    return (
        "> **Demonstration pairs.** One model wrote both sides, so the chosen side is better only "
        "as far as it saw more of the task. This shows the format and the tools; it is not a "
        "dataset to train on."
    )


def _counts_section(data: SynthesisData) -> str:
    table = markdown_table(
        ["what", "rows"],
        [["snippets in", data.num_snippets], ["pairs", data.num_pairs],
         ["rejected", data.num_rejected]],
    )  # fmt: skip
    if not data.num_pairs:
        table += "\n\nNo snippet passed the gates: there are no pairs."
    if data.reasons:
        table += "\n\nRejected rows by reason (config `rejected`, column `reason`):\n\n"
        table += _count_table("reason", data.reasons)
    return "## Rows\n\n" + table


def _making_section(recipe: Recipe, data: SynthesisData, prompts: Mapping[str, str]) -> str:
    synthesis, engines = recipe.synthesis, recipe.engines
    clip = (
        f" (the weak side saw the description without its last {100 * synthesis.clip_fraction:g} % "
        "of words)"
        if synthesis.construction == "description_clip"
        else ""
    )
    rows = []
    for hop, role in all_hops(synthesis).items():
        sampling = synthesis.sampling(hop)
        name = "description" if hop == "describe" else hop
        model = inline_code(getattr(engines, role).model_name_or_path)
        rows.append([name, model, sampling.temperature, sampling.top_p, sampling.max_tokens])
    text = f"## How it was made\n\nConstruction: `{synthesis.construction}`{clip}.\n\n"
    if rows:
        text += markdown_table(["text", "model", "temperature", "top-p", "at most tokens"], rows)
    else:
        text += _BY_PEOPLE[synthesis.construction].format(synthesis=synthesis)
    if versions := data.values["prompt_template"]:
        text += f"\n\nPrompt templates: {', '.join(map(inline_code, versions))}."
    for name, prompt in prompts.items():
        text += f"\n\nPrompt {inline_code(name)}:\n\n{fenced(prompt, 'text')}"
    return text


def _decontamination_section(recipe: Recipe, data: SynthesisData) -> str:
    settings = recipe.corpus_in_use.decontamination
    if not data.contaminated:
        return "## Evaluation sets\n\nThe pairs were not held against any evaluation set."
    sides = ("description", "chosen", "rejected")
    if recipe.synthesis.construction == "same_policy":
        sides = ("description", "reference", "chosen", "rejected")
    rows = [
        [inline_code(name), *(hits.get(side, 0) for side in sides)]
        for name, hits in data.contaminated.items()
    ]
    names = ", or a function of a problem's name" if settings.function_names else ""
    return (
        "## Evaluation sets\n\nSnippets, descriptions and answers with "
        f"{settings.ngram} words in a row of one of these sets{names}, were left out. Rows that "
        "left after their snippet had passed, by the text that was found:\n\n"
        + markdown_table(["set", *sides], rows)
    )


def _lengths_section(data: SynthesisData) -> str:
    def row(name: str, stats: LengthStats) -> list[object]:
        return [name, f"{stats.mean:.1f}", f"{stats.median:.1f}", f"{stats.p95:.0f}", stats.max]

    lengths, bias = data.lengths, data.lengths.bias
    rows = [row("description", lengths.description), row("chosen", lengths.chosen),
            row("rejected", lengths.rejected)]  # fmt: skip
    return (
        f"## Lengths in {data.unit}\n\n"
        + markdown_table(["text", "mean", "median", "95th percentile", "longest"], rows)
        + f'\n\nHow far length alone tells the label: the rule "the longer answer is the chosen '
        f'one" is right in {percent(bias.longer_rule)} of pairs, ties as half (95 % interval '
        f"{interval(bias.low, bias.high)}; 50 % is no hint). Chosen is longer in "
        f"{percent(bias.chosen_longer)} of pairs, both are equally long in {percent(bias.equal)}; "
        f"the AUC of length across pairs is {bias.auc:.3f}. "
        f"The paper's own dataset has means of {MEAN_CHOSEN_TOKENS} and {MEAN_REJECTED_TOKENS} "
        "(Table 11, other models and data)."
    )


def _examples_section(data: SynthesisData) -> str:
    if not data.examples:
        return ""
    parts = ["## Examples"]
    for number, pair in enumerate(data.examples, start=1):
        path, license_name = (inline_code(pair[name] or "unknown") for name in ("path", "license"))
        parts.append(f"### Pair {number}\n\nFrom {path}, licence {license_name}.")
        for column in ("prompt", "chosen", "rejected"):
            body = fenced(shortened(pair[column] or "", _MAX_TEXT_CHARS), "text")
            parts.append(f"{column.capitalize()}:\n\n{body}")
    return "\n\n".join(parts)


def _count_table(heading: str, counts: Counts, limit: int = 1_000) -> str:
    rows: list[list[object]] = [[inline_code(v), n] for v, n in list(counts.items())[:limit]]
    if rest := list(counts.values())[limit:]:
        rows.append([f"{len(rest):,} more", sum(rest)])
    return markdown_table([heading, "rows"], rows)
