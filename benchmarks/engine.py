"""The serving engine against one ``generate`` at a time and against padded batches: useful tokens a CPU second.

Requests are ragged, as those of a service are: prompts of 24-63 tokens, answers of 8-96. A padded batch
goes on until its longest answer is done, and what the others write meanwhile is of no use. One torch
thread; random Mistrals of several sizes, so that it is seen where batching pays and how much; the CPU
time of the whole process counts, event loop and all. Where ``rounds`` is two, every way is run twice by
turns and the quicker run counts.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerFast

from configs.serving import EngineSettings
from pipelines.generation.engine import Sampling, complete
from pipelines.generation.transformers_engine import TransformersEngine

LONGEST = 96
TEMPLATE = "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"


@dataclass(frozen=True)
class Size:
    """Shape of a random Mistral."""

    hidden: int
    layers: int
    vocabulary: int = 257
    sampled: bool = False
    """Temperature 0.7 and a nucleus of 0.95, as drafts are; else greedy."""
    sharpened: float = 1.0
    """What the logits are multiplied by. Random ones are nearly alike, and a nucleus would be most of the words; nine
    times as far apart they have a perplexity of about 35, as texts have for a small trained model."""
    requests: int = 48
    rounds: int = 1


SIZES = {
    "2M": Size(192, 4),
    "25M": Size(512, 8, rounds=2),
    "58M with 32,000 words, sampled": Size(512, 8, vocabulary=32_000, sampled=True, sharpened=9.0, requests=32),
}
WANTED = "25M"
"""The size whose figures stand first, at the most requests at once."""
AT_ONCE = (1, 4, 16)


@dataclass(frozen=True)
class Work:
    """The same requests for every way."""

    prompts: list[list[int]]
    lengths: list[int]
    at_once: int
    sampled: bool

    @classmethod
    def of(cls, requests: int, at_once: int, sampled: bool) -> "Work":
        """That many requests, ``at_once`` of them in progress."""
        lengths = [random.Random(i).randint(8, LONGEST) for i in range(requests)]
        return cls([list(range(10, 34 + i % 40)) for i in range(requests)], lengths, at_once, sampled)

    def options(self) -> dict[str, object]:
        """``generate``'s arguments for the sampling."""
        return {"do_sample": True, "temperature": 0.7, "top_p": 0.95, "top_k": 0} if self.sampled else {}

    def sampling(self, number: int) -> Sampling:
        """The engine's for one request."""
        return Sampling(self.lengths[number], temperature=0.7 if self.sampled else 0.0, top_p=0.95)


def run() -> dict[str, object]:
    """Useful tokens a CPU second of each way by size and requests at once, and the engine's ratios."""
    return report({name: measured(size) for name, size in SIZES.items()})


def report(rates: dict[str, dict[str, float]]) -> dict[str, object]:
    """The figures in the order of their weight."""
    rows = [row(name, found, at_once) for name, found in rates.items() for at_once in AT_ONCE]
    wanted = next(row for row in rows if row["model"] == WANTED and row["at once"] == AT_ONCE[-1])
    return {**wanted, "by size": rows}


def row(name: str, rates: dict[str, float], at_once: int) -> dict[str, object]:
    """One size with so many requests at once."""
    ways = {
        "one at a time": rates["one at a time"],
        "padded batches": rates.get(f"padded batches of {at_once}"),
        "engine": rates[f"engine with {at_once}"],
    }
    there = {way: rate for way, rate in ways.items() if rate is not None}
    against = {f"engine / {way}": round(there["engine"] / rate, 2) for way, rate in there.items() if way != "engine"}
    shown = {way: round(rate, 1) for way, rate in there.items()}
    return {"model": name, "at once": at_once, "useful_tokens_per_cpu_s": shown, **against}


def measured(size: Size) -> dict[str, float]:
    """The best rate of each way with one model."""
    torch.set_num_threads(1)
    with made(size) as folder:
        model = MistralForCausalLM.from_pretrained(folder).eval()
        works = {at_once: Work.of(size.requests, at_once, size.sampled) for at_once in AT_ONCE}
        ways: dict[str, Callable[[], float]] = {"one at a time": partial(rate, one_at_a_time, model, works[1])}
        for at_once, work in works.items():
            if at_once > 1:
                ways[f"padded batches of {at_once}"] = partial(rate, padded, model, work)
            ways[f"engine with {at_once}"] = partial(engine_rate, folder, work)
        rounds = [{name: way() for name, way in ways.items()} for _ in range(size.rounds)]
    return {name: max(found[name] for found in rounds) for name in ways}


@contextmanager
def made(size: Size) -> Iterator[Path]:
    """Folder of a random model whose prompts are a byte a token, and that never ends by itself."""
    torch.manual_seed(0)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"<{number}>" for number in range(size.vocabulary - 1 - len(letters)))]
    tokenizer = Tokenizer(models.BPE(vocab={"</s>": 0} | {word: i for i, word in enumerate(words, 1)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>")
    fast.chat_template = TEMPLATE
    config = MistralConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=3 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.hidden // 64,
        num_key_value_heads=max(1, size.hidden // 128),
        max_position_embeddings=1024,
        sliding_window=None,
        eos_token_id=0,
        bos_token_id=None,
    )
    model = MistralForCausalLM(config)
    with torch.no_grad():
        # The end token's logit is 0 and some other's above it; sampled, it comes once in thousands of tokens.
        model.lm_head.weight[0].zero_()
        model.lm_head.weight.mul_(size.sharpened)
    with tempfile.TemporaryDirectory() as folder:
        fast.save_pretrained(folder)
        model.save_pretrained(folder)
        yield Path(folder)


def rate(way: Callable[[MistralForCausalLM, Work], None], model: MistralForCausalLM, work: Work) -> float:
    """Useful tokens a CPU second of one way."""
    start = time.process_time()
    way(model, work)
    return sum(work.lengths) / (time.process_time() - start)


@torch.inference_mode()
def one_at_a_time(model: MistralForCausalLM, work: Work) -> None:
    """A ``generate`` for each request."""
    for prompt, length in zip(work.prompts, work.lengths, strict=True):
        ids = torch.tensor([prompt])
        model.generate(ids, min_new_tokens=length, max_new_tokens=length, pad_token_id=0, **work.options())


@torch.inference_mode()
def padded(model: MistralForCausalLM, work: Work) -> None:
    """Batches in order of arrival, each as long as its longest answer."""
    for start in range(0, len(work.prompts), work.at_once):
        batch = work.prompts[start : start + work.at_once]
        longest = max(work.lengths[start : start + work.at_once])
        width = max(map(len, batch))
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in batch])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch])
        model.generate(
            ids,
            attention_mask=mask,
            min_new_tokens=longest,
            max_new_tokens=longest,
            pad_token_id=0,
            **work.options(),
        )


def engine_rate(folder: Path, work: Work) -> float:
    """The engine with ``at_once`` requests in progress; it counts what it really wrote."""
    return asyncio.run(driven(folder, work))


async def driven(folder: Path, work: Work) -> float:
    """See ``engine_rate``."""
    engine = TransformersEngine(str(folder), None, EngineSettings(max_requests=work.at_once))
    await engine.start()
    places = asyncio.Semaphore(work.at_once)

    async def one(number: int) -> int:
        async with places:
            prompt = [{"role": "user", "content": "x" * (len(work.prompts[number]) - 14)}]
            return (await complete(engine, str(number), prompt, work.sampling(number))).usage.new_tokens

    start = time.process_time()
    written = sum(await asyncio.gather(*(one(number) for number in range(len(work.prompts)))))
    seconds = time.process_time() - start
    await engine.stop()
    return written / seconds
