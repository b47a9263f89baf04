"""`osler generate` on prompts that take several prefill passes, judged by transformers' generate."""
import pytest
import torch
from test_slow_generate_basics import ask, common, generate, greedy, load, prompts, save


@pytest.mark.parametrize("window", [8, 700])
def test_prompts_longer_than_a_pass(tmp_path, window):
    # 2,048 tokens are a pass: these take two and three, the last one token long.
    config = common.tiny_config(sliding_window=window, max_position_embeddings=8192)
    save(tmp_path / "m", config=config)
    asked = [prompts(1, n, n, seed=n)[0] for n in (4097, 30, 2500)]
    lines = generate(tmp_path, tmp_path / "m", ask(asked), "--max-new-tokens", 12, "--precision", "fp64")
    reference = load(tmp_path / "m", torch.float64)
    assert [line["output_ids"] for line in lines] == [greedy(reference, ids, 12) for ids in asked]
