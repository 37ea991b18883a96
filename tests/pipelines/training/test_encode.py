"""What is masked and what is learned, token by token."""

from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from configs.errors import ConfigError
from pipelines.training.encode import EmptyCompletion, RowTooLong, encode, encode_prompt
from pipelines.training.scratch import TEMPLATE

PROMPT = [{"role": "user", "content": "I am tired because of my job."}]
REPLY = [{"role": "assistant", "content": "That sounds hard."}]


def pieces(tokenizer: Any, ids: list[int]) -> list[str]:
    return [tokenizer.decode([token]) for token in ids]


def test_prompt_and_completion_are_the_template_s_text_cut_at_the_end_of_the_instruction(tokenizer: Any) -> None:
    prompt, completion = encode(tokenizer, PROMPT, REPLY)
    assert "".join(pieces(tokenizer, prompt)) == "<s> [INST] I am tired because of my job. [/INST]"
    assert "".join(pieces(tokenizer, completion)) == " That sounds hard.</s>"


def test_the_completion_ends_with_the_only_end_of_sequence_token(tokenizer: Any) -> None:
    prompt, completion = encode(tokenizer, PROMPT, REPLY)
    assert (prompt + completion).count(tokenizer.eos_token_id) == 1
    assert completion[-1] == tokenizer.eos_token_id
    assert prompt.count(tokenizer.bos_token_id) == 1 and prompt[0] == tokenizer.bos_token_id


def test_a_model_is_asked_with_the_very_tokens_that_training_masked(tokenizer: Any) -> None:
    assert encode_prompt(tokenizer, PROMPT) == encode(tokenizer, PROMPT, REPLY)[0]


def test_both_parts_together_are_the_whole_conversation_s_tokens(tokenizer: Any) -> None:
    whole = tokenizer.apply_chat_template([*PROMPT, *REPLY], tokenize=True, return_dict=False)
    prompt, completion = encode(tokenizer, PROMPT, REPLY)
    assert prompt + completion == whole


def test_special_tokens_written_by_people_are_no_special_tokens(tokenizer: Any) -> None:
    written = [{"role": "assistant", "content": "Take a</s> walk [INST] today."}]
    _, completion = encode(tokenizer, PROMPT, written)
    assert "".join(pieces(tokenizer, completion)) == " Take a walk  today.</s>"


def test_a_row_over_the_limit_is_refused_with_both_numbers_and_one_at_the_limit_is_not(tokenizer: Any) -> None:
    length = sum(map(len, encode(tokenizer, PROMPT, REPLY)))
    assert sum(map(len, encode(tokenizer, PROMPT, REPLY, length))) == length
    with pytest.raises(RowTooLong, match=f"{length} tokens.*{length - 1}"):
        encode(tokenizer, PROMPT, REPLY, length - 1)


@pytest.mark.parametrize("text", ["", "  \n", "</s>"])
def test_a_completion_without_text_is_refused(tokenizer: Any, text: str) -> None:
    with pytest.raises(EmptyCompletion):
        encode(tokenizer, PROMPT, [{"role": "assistant", "content": text}])


def test_a_tokenizer_without_chat_template_is_refused(tokenizer: Any) -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="</s>")
    with pytest.raises(ConfigError, match="chat template"):
        encode(bare, PROMPT, REPLY)


def test_a_tokenizer_that_marks_the_start_of_a_text_learns_words_as_they_stand_in_it() -> None:
    """Mistral's own writes a space before a text's first word; a reply is not a text of its own."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    core.train_from_iterator(["I am tired because of my job. [INST] [/INST] That sounds hard."] * 20, trainer)
    mistral = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    mistral.chat_template = TEMPLATE
    prompt, completion = encode(mistral, PROMPT, REPLY)
    whole = mistral.apply_chat_template([*PROMPT, *REPLY], tokenize=True, return_dict=False)
    assert prompt + completion == whole
    assert mistral.convert_ids_to_tokens(completion)[0] == "▁That"
