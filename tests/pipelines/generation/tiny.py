"""A tiny random Mistral with a byte-level BPE tokenizer, made in a second: for tests of engines and serving."""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast, set_seed

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]"
    "{% else %} {{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
TEXT = [
    "I hear you, that sounds like a really hard week. What helped you the last time?",
    "Thank you for writing this down. You could start with one small thing, like a short walk.",
    "Ça va aller, café naïve — 你好 🙂 ünïcödé",
]


def make(
    folder: Path,
    *,
    hidden: int = 64,
    heads: int = 4,
    layers: int = 2,
    vocabulary: int = 600,
    positions: int = 512,
    endless: bool = False,
) -> Path:
    """A complete model folder: config, random weights, tokenizer, generation config.

    An ``endless`` one never ends an answer by itself where it is asked greedily.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<unk>", "<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    set_seed(3)
    model = MistralForCausalLM(
        MistralConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads // 2,
            max_position_embeddings=positions,
            sliding_window=None,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=3,
            initializer_range=0.3,
        )
    )
    if endless:
        model.lm_head.weight.data[2] = 0.0  # the likeliest of 600 random logits is above zero
    model.save_pretrained(folder)
    return folder
