"""How far models are from giving the answers that are wanted: in capitals, as JSON.

The loss of a model is the negative logarithm of the probability that it gives to the wanted answers after the
questions (cross-entropy, natural logarithm), per token, each answer's end included. The questions are in two files
beside this one, neither of which the models were fine-tuned on: tune.jsonl, to choose by, and held-out.jsonl, to
report.
"""

import argparse
import json
import pathlib
from collections.abc import Iterator

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

HERE = pathlib.Path(__file__).parent
BATCH = 8
SPOKEN = 40  # tokens at most of an answer that is shown
logging.disable_progress_bar()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What Judge and table take from the command line."""
    parser.add_argument("--questions", type=pathlib.Path, default=HERE, metavar="DIR",
                        help="of your own tune.jsonl and held-out.jsonl, of questions and wanted answers")
    parser.add_argument("--limit", type=int, help="use so many questions of each file")
    parser.add_argument("--beside", action="append", default=[], type=pathlib.Path, metavar="DIR",
                        help="another model to report")


def _questions(path: pathlib.Path, limit: int | None) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()[:limit]]


class Judge:
    """Loads a model directory at a time; folder: one of them, whose tokenizer is taken for all."""

    def __init__(self, folder, args: argparse.Namespace):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.beside = {other.name: other for other in args.beside}
        self.splits = {name: _questions(args.questions / f"{name}.jsonl", args.limit) for name in ("tune", "held-out")}

    def loss(self, folder) -> float:
        """On what is tuned on."""
        return self._loss(_load(folder), "tune")

    def report(self, folder) -> tuple[float, float, str]:
        """The loss on what is tuned on and on what is held out, and what the model says to the first of the latter."""
        model = _load(folder)
        return *(self._loss(model, name) for name in self.splits), self._says(model, self.splits["held-out"][0])

    def _loss(self, model, split: str) -> float:
        total = tokens = 0
        for ids, mask, labels in self._batches(self.splits[split]):
            with torch.no_grad():
                logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
            targets = labels[:, 1:]
            total += torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
            tokens += int((targets != -100).sum())
        return total / tokens

    def _batches(self, items: list[dict]) -> Iterator[tuple[torch.Tensor, ...]]:
        rows = sorted((self._row(item) for item in items), key=lambda row: sum(map(len, row)))
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            width = max(len(head) + len(tail) for head, tail in batch)
            spare = [width - len(head) - len(tail) for head, tail in batch]
            yield (
                torch.tensor([head + tail + [0] * n for (head, tail), n in zip(batch, spare)]),
                torch.tensor([[1] * (width - n) + [0] * n for n in spare]),
                torch.tensor([[-100] * len(head) + tail + [-100] * n for (head, tail), n in zip(batch, spare)]),
            )

    def _row(self, item: dict) -> tuple[list[int], list[int]]:
        """The tokens of the question, and those of the answer to it that is wanted."""
        return self._tokens(self._prompt(item)), self._tokens(item["wanted"] + self.tokenizer.eos_token)

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _prompt(self, item: dict) -> str:
        turns = [{"role": "user", "content": item["question"]}]
        return self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    def _says(self, model, item: dict) -> str:
        ids = torch.tensor([self._tokens(self._prompt(item))])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=SPOKEN, do_sample=False,
                             temperature=None, top_p=None)  # fmt: skip
        return self.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def _load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def table(judge: Judge, folders: dict[str, pathlib.Path]) -> None:
    """Prints how the models beside and these do."""
    folders = judge.beside | folders
    held_out = judge.splits["held-out"]
    print(f"\nLoss in nats per token of the wanted answers, and what each says to\n{held_out[0]['question']!r}, where "
          f"{held_out[0]['wanted']} is wanted:\n")  # fmt: skip
    width = max(map(len, folders))
    print(f"  {'':{width}}  tuned on  held out")
    print(f"  {'questions':{width}}  {len(judge.splits['tune']):8d}  {len(held_out):8d}")
    for name, folder in folders.items():
        tuned, held, says = judge.report(folder)
        print(f"  {name:{width}}  {tuned:8.4f}  {held:8.4f}  {says}", flush=True)
