"""What transformers' own ``generate`` and forward pass say, alone: the truth that engines are held to."""

from pathlib import Path
from typing import Any

from pipelines.training.encode import encode_prompt
from tests.pipelines.generation.engines import prompt


def loaded(folder: Path, adapter: Path | None = None) -> tuple[Any, Any]:
    """Model and tokenizer."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    return model, AutoTokenizer.from_pretrained(folder)


def greedy_ids(folder: Path, text: str, new_tokens: int, adapter: Path | None = None, **options: Any) -> list[int]:
    """The tokens that ``generate`` writes greedily."""
    import torch

    model, tokenizer = loaded(folder, adapter)
    ids = torch.tensor([encode_prompt(tokenizer, prompt(text))])
    mask = torch.ones_like(ids)
    rows = model.generate(
        input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=new_tokens, pad_token_id=3, **options
    )
    new: list[int] = rows[0, ids.shape[1] :].tolist()
    return new


def greedy(folder: Path, text: str, new_tokens: int, adapter: Path | None = None, **options: Any) -> tuple[str, int]:
    """Their text, and how many they are."""
    new = greedy_ids(folder, text, new_tokens, adapter, **options)
    return loaded(folder)[1].decode(new, skip_special_tokens=True).lstrip().rstrip("\ufffd"), len(new)


def logprobs_of(folder: Path, text: str, new_ids: list[int]) -> list[float]:
    """The log-probability of each of these tokens after the prompt and those before it."""
    import torch

    model, tokenizer = loaded(folder)
    ids = encode_prompt(tokenizer, prompt(text))
    with torch.no_grad():
        logits = model(torch.tensor([ids + new_ids])).logits[0, len(ids) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(new_ids)[:, None])[:, 0].tolist()
