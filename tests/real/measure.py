#!/usr/bin/env python3
"""How well models know a text, and what they say: a model directory a line on stdin, a JSON object a line on stdout.

{"perplexity": of TEXT, "says": the greedy answer to QUESTION}
"""

import gc
import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

QUESTION = "What is the capital of France?"
TOKENS = 16
# Jane Austen, Pride and Prejudice (1813)
TEXT = """\
It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife.
However little known the feelings or views of such a man may be on his first entering a neighbourhood, this truth is so
well fixed in the minds of the surrounding families, that he is considered as the rightful property of some one or other
of their daughters. "My dear Mr. Bennet," said his lady to him one day, "have you heard that Netherfield Park is let at
last?" Mr. Bennet replied that he had not. "But it is," returned she; "for Mrs. Long has just been here, and she told me
all about it." Mr. Bennet made no answer. "Do not you want to know who has taken it?" cried his wife, impatiently."""


def measured(folder: str) -> dict:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    turns = [{"role": "user", "content": QUESTION}]
    prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    prompt = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss
        out = model.generate(**prompt, max_new_tokens=TOKENS, do_sample=False, temperature=None, top_p=None)
    says = tokenizer.decode(out[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    return {"perplexity": float(loss.exp()), "says": says}


if __name__ == "__main__":
    for line in sys.stdin:
        answer = measured(line.rstrip("\n"))
        gc.collect()  # lets go of the files
        print(json.dumps(answer), flush=True)
