"""A tiny model, and an adapter on it that changes what it writes."""

from pathlib import Path

import pytest

from tests.pipelines.generation.tiny import make


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Mistral with its tokenizer; asked greedily it writes as long as it may.

    Its heads are as wide as vLLM's kernels want them at least.
    """
    return make(tmp_path_factory.mktemp("tiny") / "model", heads=2, endless=True)


@pytest.fixture(scope="session")
def tiny_adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a LoRA adapter whose weights are not zero."""
    return adapter_on(tiny_model, tmp_path_factory.mktemp("tiny") / "adapter", seed=5)


@pytest.fixture(scope="session")
def other_adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of another adapter on the same model."""
    return adapter_on(tiny_model, tmp_path_factory.mktemp("tiny") / "other", seed=6)


def adapter_on(tiny_model: Path, folder: Path, seed: int) -> Path:
    """A random adapter, saved."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    torch.manual_seed(seed)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    adapted.save_pretrained(folder)
    return folder
