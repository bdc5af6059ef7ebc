#!/usr/bin/env python3
"""The answers of model directories to a question, by greedy decoding.

generate.py transformers|mistralrs QUESTION DIR...; the last line printed is a JSON list of them.
"""

import json
import sys

TOKENS = 24


def by_transformers(folder: str, question: str) -> str:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    turns = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        out = model.generate(**ids, max_new_tokens=TOKENS, do_sample=False, temperature=None, top_p=None)
    return tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def by_mistralrs(folder: str, question: str) -> str:
    from mistralrs import Architecture, ChatCompletionRequest, Runner, Which

    runner = Runner(which=Which.Plain(model_id=folder, arch=Architecture.Llama))
    turns = [{"role": "user", "content": question}]
    request = ChatCompletionRequest(model="default", messages=turns, max_tokens=TOKENS, temperature=0.0, top_k=1)
    return runner.send_chat_completion_request(request).choices[0].message.content


if __name__ == "__main__":
    engine, question, *folders = sys.argv[1:]
    answer = {"transformers": by_transformers, "mistralrs": by_mistralrs}[engine]
    print("\n" + json.dumps([answer(folder, question) for folder in folders]))
