"""Small tokenizers with the chat templates of well-known models, to check masks with."""

import json
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pipelines.training.scratch import TEMPLATE

V3 = (
    "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}{%- set turns = messages[1:] %}"
    "{%- else %}{%- set turns = messages %}{%- endif %}"
    "{{- bos_token }}"
    "{%- for message in turns %}"
    "{%- if message['role'] == 'user' %}"
    "{%- if loop.last and system is defined %}{{- '[INST] ' + system + '\\n\\n' + message['content'] + '[/INST]' }}"
    "{%- else %}{{- '[INST] ' + message['content'] + '[/INST]' }}{%- endif %}"
    "{%- else %}{{- ' ' + message['content'] | trim + eos_token }}{%- endif %}"
    "{%- endfor %}"
)
"""Spacing of Mistral-7B-Instruct-v0.3, whose system message goes into the last user turn."""
V3_SYSTEM = V3.replace("loop.last and system", "loop.first and system")
"""The same, with the system message in the first user turn as v0.1 has it."""
CHATML = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""ChatML, as Qwen has it: the end of a turn is the end of a sequence, and also stands in the prompt."""
LLAMA = (
    "{%- for message in messages %}"
    "{%- if loop.first %}{{- bos_token }}{%- endif %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{- message['content'] | trim + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
"""Llama 3."""
TEXT = [
    "user assistant system You are kind. I am tired because of my job and do not know what to do. [INST] [/INST]",
    "<post> Hello I am worried about my exams. </post> That sounds hard, being tired makes sense.",
    "Write only the comment.",
] * 20


def byte_level(template: str, specials: list[str], end: str, begin: str | None = None) -> Any:
    """A byte-level BPE, as Llama 3 and Qwen have."""
    core = Tokenizer(models.BPE(unk_token=None))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(TEXT, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=end, bos_token=begin, pad_token=specials[0])
    made.chat_template = template
    return made


def metaspace(template: str, letters: bool = True) -> Any:
    """Pieces that begin with a mark for the space before them, and one before a text's first: as Mistral has.

    Without ``letters``, characters that it never saw are unknown to it; Mistral spells them in bytes.
    """
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    core.train_from_iterator(TEXT, trainer)
    if letters:
        learned = json.loads(core.to_str())["model"]
        vocabulary = learned["vocab"] | {f"<0x{byte:02X}>": len(learned["vocab"]) + byte for byte in range(256)}
        merges = [tuple(merge) for merge in learned["merges"]]
        core.model = models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True)
        fuse = [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")]
        core.decoder = decoders.Sequence(fuse)
    else:
        core.decoder = decoders.Metaspace(prepend_scheme="first")
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )
    made.chat_template = template
    return made


def tokenizers() -> dict[str, Any]:
    """By name: a tokenizer, its template set."""
    llama = ["<|pad|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    return {
        "mistral-v0.2": metaspace(TEMPLATE),
        "mistral-v0.2-without-bytes": metaspace(TEMPLATE, letters=False),
        "mistral-v0.3": metaspace(V3),
        "mistral-system-first": metaspace(V3_SYSTEM),
        "chatml": byte_level(CHATML, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "<|im_end|>"),
        "llama-3": byte_level(LLAMA, llama, "<|eot_id|>", "<|begin_of_text|>"),
    }
