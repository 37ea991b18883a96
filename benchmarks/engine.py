"""The serving engine against one ``generate`` at a time and against padded batches.

Ragged answers (8 to 96 new tokens, 48 requests) from a random Mistral of 25 million
weights, one torch thread, 16 requests at once. Rates are useful tokens a CPU second.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from configs.serving import EngineSettings
from pipelines.generation.engine import Sampling, complete
from pipelines.generation.transformers_engine import TransformersEngine

REQUESTS, AT_ONCE, LONGEST = 48, 16, 96
TEMPLATE = "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"


def run() -> dict[str, object]:
    """Useful tokens a CPU second of each way, and the engine's ratios."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder))
        lengths = [random.Random(i).randint(8, LONGEST) for i in range(REQUESTS)]
        model = MistralForCausalLM.from_pretrained(folder).eval()
        prompts = [list(range(10, 10 + 24 + i % 40)) for i in range(REQUESTS)]
        rates = {
            "one at a time": rate(lambda: one_at_a_time(model, prompts, lengths), lengths),
            "padded batches": rate(lambda: padded(model, prompts, lengths), lengths),
            "engine": engine_rate(folder, prompts, lengths),
        }
    return {
        "useful_tokens_per_cpu_s": {name: round(value, 1) for name, value in rates.items()},
        "engine / one at a time": round(rates["engine"] / rates["one at a time"], 2),
        "engine / padded batches": round(rates["engine"] / rates["padded batches"], 2),
    }


def make_model(folder: Path) -> None:
    """A random model whose every token is one byte, and that never ends by itself."""
    torch.manual_seed(0)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"</s>": 0, **{letter: number for number, letter in enumerate(alphabet, 1)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    config = MistralConfig(
        vocab_size=len(vocabulary),
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        eos_token_id=0,
        bos_token_id=None,
    )
    model = MistralForCausalLM(config)
    with torch.no_grad():
        # A vanishing output row for the end token lets every answer run to its own length.
        model.lm_head.weight[0].zero_()
    model.save_pretrained(folder)


def rate(way: Callable[[], None], lengths: list[int]) -> float:
    """Useful tokens a CPU second of one way."""
    start = time.process_time()
    way()
    return sum(lengths) / (time.process_time() - start)


@torch.inference_mode()
def one_at_a_time(model: MistralForCausalLM, prompts: list[list[int]], lengths: list[int]) -> None:
    """A ``generate`` for each request."""
    for prompt, length in zip(prompts, lengths, strict=True):
        ids = torch.tensor([prompt])
        model.generate(ids, min_new_tokens=length, max_new_tokens=length, do_sample=False, pad_token_id=0)


@torch.inference_mode()
def padded(model: MistralForCausalLM, prompts: list[list[int]], lengths: list[int]) -> None:
    """Batches in order of arrival, each as long as its longest answer."""
    for start in range(0, len(prompts), AT_ONCE):
        batch, longest = prompts[start : start + AT_ONCE], max(lengths[start : start + AT_ONCE])
        width = max(map(len, batch))
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in batch])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch])
        model.generate(
            ids,
            attention_mask=mask,
            min_new_tokens=longest,
            max_new_tokens=longest,
            do_sample=False,
            pad_token_id=0,
        )


def engine_rate(folder: str, prompts: list[list[int]], lengths: list[int]) -> float:
    """The engine with ``AT_ONCE`` requests in progress; it counts what it really wrote."""

    async def drive() -> float:
        settings = EngineSettings(max_requests=AT_ONCE)
        engine = TransformersEngine(folder, None, settings)
        await engine.start()
        places = asyncio.Semaphore(AT_ONCE)
        written = 0

        async def one(number: int) -> None:
            nonlocal written
            async with places:
                prompt = [{"role": "user", "content": "x" * (len(prompts[number]) - 14)}]
                answer = await complete(engine, str(number), prompt, Sampling(lengths[number], temperature=0.0))
                written += answer.usage.new_tokens

        start = time.process_time()
        await asyncio.gather(*(one(number) for number in range(len(prompts))))
        seconds = time.process_time() - start
        await engine.stop()
        return written / seconds

    return asyncio.run(drive())
