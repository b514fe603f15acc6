"""The chat template of an exported reward model: a conversation as the model was trained to see it.

A usual template ends an answer with its own marker and a line break. Programs that render whole
conversations (rewardbench, TRL, vLLM's chat routes) would read the reward there, at a token where
training put none.
"""

from __future__ import annotations

_LAST = "codepmp_answer"


def scored_conversation(chat_template: str, append_eos: bool) -> str:
    """`chat_template` for prompts, and for what the assistant has answered: prompt, answer, EOS.

    Its tokens are those that `preference.tokenization.Encoder` makes of prompt and response: an
    answer that brings its EOS gets no second one. (Control tokens elsewhere in a text are text for
    the encoder, and tokens for programs that tokenise what a template rendered.) Without an answer
    at its end a conversation is rendered as before.
    """
    if _LAST in chat_template:  # of a model that began as an export
        return chat_template
    answer = f"{_LAST}['content']"
    if append_eos:
        bare = f"{answer}.rstrip('\\n')"
        is_ended = f"{bare}.endswith(eos_token)"
        answer = f"({bare} if {is_ended} else {answer} + eos_token)"
    return (
        f"{{% set {_LAST} = messages[-1] if messages and messages[-1]['role'] == 'assistant'"
        " and not add_generation_prompt else none %}"
        f"{{% if {_LAST} is not none %}}"
        "{% set messages = messages[:-1] %}{% set add_generation_prompt = true %}{% endif %}"
        f"{chat_template}"
        f"{{% if {_LAST} is not none %}}{{{{ {answer} }}}}{{% endif %}}"
    )
