"""Train a small decoder on the text corpus: a target whose text repeats itself as a large model's does, on a CPU.

    python -m benchmarks.pools.train_text --corpus CORPUS --output MODEL --minutes 35

A byte-level BPE tokenizer of 8,000 tokens and a Llama of 5 million parameters are trained from scratch on
train.jsonl of text_corpus.py, for a time and not for a number of steps. MODEL is a checkpoint in Hugging
Face format, replaced every few minutes, so that an early one can be used while training goes on. The prompt is
`<s>` and the entry's prompt; the model then writes the text and `</s>`.

What such a model shows: that the loop is right, how many calls a pool saves on text of this kind, and what retrieval
and verification cost. What it does not show: how predictable the text of a 7 B model is, or what a call of one costs.
"""

import math
import random
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.pools.text_corpus import Entry
from specbeam.catalog.files import whole_directory

SPECIAL = ("<pad>", "<s>", "</s>")
PAD, START, END = range(3)
VOCABULARY = 8_000
CONTEXT = 1_024
MIXTURE = {"profile": 0.5, "facts": 0.25, "description": 0.25}  # of texts in a batch
BATCH_TOKENS = 1_280
LEARNING_RATE, WARM_UP = 1.5e-3, 0.03  # the peak; the part of the time until it
SORTED = 256  # texts that are sorted by length together, so that padding costs little
SAVE_SECONDS = 300.0
STEP = 32  # lengths of batches are multiples: every new shape costs memory that is kept

Sample = tuple[NDArray[np.int64], int]  # token ids of prompt and text, and where the text begins


def read_entries(path: Path) -> list[Entry]:
    """A file of the corpus."""
    return [msgspec.json.decode(line, type=Entry) for line in path.read_bytes().splitlines()]


def train_tokenizer(entries: Sequence[Entry]) -> PreTrainedTokenizerFast:
    """A byte-level BPE; it puts <s> before what it encodes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator((entry.prompt + entry.text for entry in entries), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", START)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def encode(tokenizer: PreTrainedTokenizerFast, entries: Sequence[Entry]) -> list[Sample]:
    """Prompts end with a line, so that prompt and text are the same tokens apart and together."""
    samples: list[Sample] = []
    for begin in range(0, len(entries), 1_000):  # what the tokenizer returns beside the ids takes gigabytes for all
        some = entries[begin : begin + 1_000]
        prompts = tokenizer([entry.prompt for entry in some]).input_ids
        texts = tokenizer([entry.text for entry in some], add_special_tokens=False).input_ids
        for prompt, text in zip(prompts, texts, strict=True):
            samples.append((np.array([*prompt, *text, END][:CONTEXT]), len(prompt)))
    return samples


def cycle(samples: Sequence[Sample], order: random.Random) -> Iterator[Sample]:
    """All samples in a new order, again and again."""
    while True:
        yield from order.sample(samples, len(samples))


def batches(kinds: dict[str, list[Sample]], seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Token ids and labels [B, T], padded at the right; labels of prompts and padding are -100."""
    order = random.Random(seed)
    streams = {kind: cycle(samples, order) for kind, samples in kinds.items()}
    weights = [MIXTURE[kind] for kind in streams]
    while True:
        chosen = [next(streams[kind]) for kind in order.choices(list(streams), weights, k=SORTED)]
        chosen.sort(key=lambda sample: len(sample[0]))
        groups: list[list[Sample]] = [[]]
        for sample in chosen:
            if groups[-1] and len(sample[0]) * (len(groups[-1]) + 1) > BATCH_TOKENS:
                groups.append([])
            groups[-1].append(sample)
        order.shuffle(groups)
        yield from map(padded, groups)


def padded(samples: Sequence[Sample]) -> tuple[torch.Tensor, torch.Tensor]:
    """One batch."""
    length = max(len(tokens) for tokens, _ in samples)
    ids = torch.full((len(samples), -(-length // STEP) * STEP), PAD)
    labels = torch.full_like(ids, -100)
    for row, (tokens, begin) in enumerate(samples):
        ids[row, : len(tokens)] = torch.from_numpy(tokens)
        labels[row, begin : len(tokens)] = ids[row, begin : len(tokens)]
    return ids, labels


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(mean loss, part of tokens that are the argmax) over the texts; the head is computed there alone.

    Padding is at the right, where no text sees it, so that attention needs no mask but the causal one.
    """
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:] != -100
    logits, expected = model.lm_head(hidden[wanted]).float(), labels[:, 1:][wanted]
    return torch.nn.functional.cross_entropy(logits, expected), (logits.argmax(-1) == expected).float().mean()


def fresh_model(layers: int, hidden: int) -> LlamaForCausalLM:
    """A decoder with tied embeddings."""
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=hidden // 64,
        intermediate_size=hidden * 8 // 3 // 16 * 16, max_position_embeddings=CONTEXT, tie_word_embeddings=True,
        pad_token_id=PAD, bos_token_id=START, eos_token_id=END,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def learning_rate(part: float) -> float:
    """Warm-up, then a cosine to a hundredth; `part` of the time is over."""
    if part < WARM_UP:
        return LEARNING_RATE * max(part, 1e-3) / WARM_UP
    return LEARNING_RATE * (0.01 + 0.99 * (1 + math.cos(math.pi * min(1.0, (part - WARM_UP) / (1 - WARM_UP)))) / 2)


@torch.no_grad()
def validate(model: LlamaForCausalLM, kinds: dict[str, list[Sample]]) -> str:
    """Loss and accuracy a token on held-out texts, by kind."""
    model.eval()
    found = {kind: [loss_of(model, *padded(samples[i : i + 8])) for i in range(0, len(samples), 8)]
             for kind, samples in kinds.items()}  # fmt: skip
    model.train()
    means = {kind: torch.tensor(values).mean(0).tolist() for kind, values in found.items()}
    return ", ".join(f"{kind} {loss:.3f} ({accuracy:.1%} right)" for kind, (loss, accuracy) in means.items())


def by_kind(tokenizer: PreTrainedTokenizerFast, entries: Sequence[Entry], at_most: int) -> dict[str, list[Sample]]:
    """Samples of every kind that there is."""
    found = {kind: [e for e in entries if e.kind == kind][:at_most] for kind in MIXTURE}
    return {kind: encode(tokenizer, chosen) for kind, chosen in found.items() if chosen}


def fit(
    model: LlamaForCausalLM, kinds: dict[str, list[Sample]], seconds: float, seed: int, half: bool
) -> Iterator[str]:
    """Train for so long; stop now and then, saying how it goes, so that the caller can save."""
    groups = [{"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.05},
              {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0}]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98), fused=True)
    start, saved, tokens, recent = perf_counter(), perf_counter(), 0, 0.0
    model.train()
    for step, (ids, labels) in enumerate(batches(kinds, seed), 1):
        over = perf_counter() - start
        if over >= seconds:
            return
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(over / seconds)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss, _ = loss_of(model, ids, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        tokens, recent = tokens + ids.numel(), 0.98 * recent + 0.02 * loss.item()
        if perf_counter() - saved > SAVE_SECONDS:
            mean = recent / (1 - 0.98**step)
            yield f"{over / 60:.0f} minutes, {step} steps, {tokens / over:.0f} tokens/s, loss {mean:.3f}"
            saved = perf_counter()


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder of benchmarks/pools/text_corpus.py")
    parser.add_argument("--output", type=Path, required=True, help="checkpoint to write, and to replace")
    parser.add_argument("--start", type=Path, help="a checkpoint of this benchmark to go on from")
    parser.add_argument("--minutes", type=float, default=35.0)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=256, help="a multiple of 64")
    parser.add_argument("--bfloat16", action="store_true", help="multiply in bfloat16; weights stay in float32")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    entries = read_entries(options.corpus / "train.jsonl")
    tokenizer = (
        PreTrainedTokenizerFast.from_pretrained(options.start) if options.start else train_tokenizer(entries[:30_000])
    )
    kinds = by_kind(tokenizer, entries, at_most=len(entries))
    held_out = by_kind(tokenizer, read_entries(options.corpus / "test.jsonl"), at_most=64)
    model = (
        LlamaForCausalLM.from_pretrained(options.start)
        if options.start
        else fresh_model(options.layers, options.hidden)
    )
    print(f"{model.num_parameters():,} parameters; {sum(map(len, kinds.values())):,} texts", flush=True)

    def save(news: str) -> None:
        print(f"{news}; held out: {validate(model, held_out)}", flush=True)
        with whole_directory(options.output, kind="config.json", replace=True) as part:
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)

    for news in fit(model, kinds, options.minutes * 60, options.seed, options.bfloat16):
        save(news)
    save(f"{options.minutes:g} minutes, the end")


if __name__ == "__main__":
    main()
