"""The small base that is made on the spot: its text, its tokenizer, its shape. Weights come from ``base.py``.

It has Mistral's architecture and chat template at a thousandth of the size, so that everything
that holds for the 7B - masks, adapters, merging, serving - is run for real on two CPU cores.
What it knows is the training split of one corpus; it is of no use outside of a demonstration.
"""

import random
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from configs.prompts import delimited, messages, whole_post
from configs.settings import PromptSettings
from configs.training import ScratchModelSettings
from pipelines.training.encode import Messages

UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"
TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('roles must alternate user/assistant/user/assistant/...') }}"
    "{%- endif %}"
    "{%- if message['role'] == 'user' %}{{- ' [INST] ' + message['content'] + ' [/INST]' }}"
    "{%- elif message['role'] == 'assistant' %}{{- ' ' + message['content'] + eos_token }}"
    "{%- else %}{{- raise_exception('only the roles user and assistant are known') }}{%- endif %}"
    "{%- endfor %}"
)
"""Chat template of Mistral-7B-Instruct-v0.2, without its optional system message."""
INITIALIZER_RANGE = 0.05
"""Standard deviation of initial weights: Mistral's 0.02 suits a width of 4096, a narrow model learns faster so."""
WHOLE_PROMPTS = 16
"""One reply in so many stands under GM's whole prompt, and one under IM's; the others only under the post."""


def conversations(threads: Path, split: str, prompts: PromptSettings, seed: int) -> Iterator[list[dict[str, str]]]:
    """Each reply of a split as a conversation: the post asks, the reply answers.

    Most stand under the post alone, since the instructions are the same in every row; a few
    stand under a whole prompt of GM or IM, so that its words and layout are not new to SFT.
    """
    draw = random.Random(seed)
    for file in sorted(threads.glob("*.parquet")):
        columns = ["title", "text", "split", "comments"]
        for batch in pq.ParquetFile(file).iter_batches(columns=columns):
            for thread in batch.to_pylist():
                if thread["split"] == split:
                    yield from of_thread(thread, prompts, draw)


def of_thread(thread: dict[str, Any], prompts: PromptSettings, draw: random.Random) -> Iterator[list[dict[str, str]]]:
    """The conversations of one thread."""
    post = whole_post(thread["title"], thread["text"])
    replies = [reply["text"] for reply in thread["comments"]]
    for at, reply in enumerate(replies):
        kind = draw.randrange(WHOLE_PROMPTS)
        if kind == 0:
            prompt = messages(prompts.gm, post)
        elif kind == 1 and len(replies) > 1:
            prompt = messages(prompts.im, post, replies[at - 1])
        else:
            prompt = [{"role": "user", "content": delimited(post)}]
        answer = delimited(reply)
        if answer:
            yield [*prompt, {"role": "assistant", "content": answer}]


def as_text(conversation: Messages) -> str:
    """A conversation much as the chat template renders it: what the tokenizer learns its pieces from."""
    question, answer = (turn["content"] for turn in conversation)
    return f" [INST] {question} [/INST] {answer}"


def train_tokenizer(texts: Iterable[str], vocabulary: int, max_positions: int) -> Any:
    """A byte-level BPE tokenizer with Mistral's special tokens and chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[UNKNOWN, BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token=UNKNOWN,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=END,
        model_max_length=max_positions,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def model_config(sizes: ScratchModelSettings, tokenizer: Any) -> Any:
    """Mistral's configuration in the asked-for sizes."""
    from transformers import MistralConfig

    return MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        head_dim=sizes.hidden_size // sizes.heads,
        max_position_embeddings=sizes.max_positions,
        sliding_window=None,
        initializer_range=INITIALIZER_RANGE,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        architectures=["MistralForCausalLM"],
    )


def rows_of(tokenizer: Any, conversations: Iterable[Messages], batch: int = 500) -> Iterator[list[int]]:
    """Token ids of each conversation, from its first token to its end-of-sequence token.

    One conversation a row, as in SFT later, and not blocks cut out of one long text: so a reply is
    always learned under its own post, and at the positions where it will be asked for.
    """
    texts = (tokenizer.apply_chat_template(list(turns), tokenize=False) for turns in conversations)
    while held := list(islice(texts, batch)):
        yield from tokenizer(held, add_special_tokens=False)["input_ids"]
