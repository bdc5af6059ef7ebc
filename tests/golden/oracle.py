"""mergekit 0.1.5 as the reference: one thread, stable sorts, in this process.

merge(text, models, out) merges the YAML text with models as working directory. What is not mergekit's
arithmetic but chance is pinned here: the order of equals in sorts, and which model gives the config when there
is no base (the first named, where mergekit takes one of a set).
"""

import functools
import logging
import os
import pathlib
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import yaml
from huggingface_hub.errors import StrictDataclassClassValidationError
from mergekit import config as mergekit_config
from mergekit import merge as mergekit_merge
from mergekit.architecture.auto import infer_architecture_info
from mergekit.io.tasks import LoaderCache
from mergekit.options import MergeOptions
from mergekit.scripts import multimerge
from transformers import PretrainedConfig

torch.set_num_threads(1)
logging.disable(logging.WARNING)


def _stable_sorts() -> None:
    def topk(input, k, dim=-1, largest=True, sorted=True):
        found = torch.sort(input, dim=dim, descending=largest, stable=True)
        return tuple(part.narrow(dim, 0, k) for part in found)

    torch.sort = functools.partial(torch.sort, stable=True)
    torch.argsort = functools.partial(torch.argsort, stable=True)
    torch.topk = topk


def _referenced_in_order(self) -> list:
    sources = list(self.models or [])
    outputs = list(self.modules.values()) if self.modules else []
    slices = list(self.slices or [])
    for module in outputs:
        sources += module.models or []
        slices += module.slices or []
    sources += [source for one in slices for source in one.sources]
    named = [self.base_model] if self.base_model else []
    return list(dict.fromkeys(named + [source.model for source in sources]))


def _saving_config(save):
    """mergekit dies at its last step where a per-layer list is longer or shorter than the layers."""

    def save_pretrained(self, folder, **options):
        try:
            save(self, folder, **options)
        except StrictDataclassClassValidationError:
            pathlib.Path(folder, "config.json").write_text(self.to_json_string())

    return save_pretrained


_stable_sorts()
mergekit_config.MergeConfiguration.referenced_models = _referenced_in_order
PretrainedConfig.save_pretrained = _saving_config(PretrainedConfig.save_pretrained)
OPTIONS = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True, num_threads=1)


def _run(text: str, out: pathlib.Path) -> None:
    documents = list(yaml.safe_load_all(text))
    if len(documents) == 1:
        mergekit_merge.run_merge(
            mergekit_config.MergeConfiguration.model_validate(documents[0]), str(out), OPTIONS, text)  # fmt: skip
        return
    stages = out.with_name(out.name + ".stages")
    source = out.with_name(out.name + ".yml")
    source.write_text(text)
    flags = ["--no-copy-tokenizer", "--no-write-model-card", "--quiet", "--no-lazy"]
    multimerge.main(
        [str(source), "--out-path", str(out), "-I", str(stages), *flags], standalone_mode=False)  # fmt: skip
    shutil.rmtree(stages)
    source.unlink()


def merge(text: str, models: pathlib.Path, out: pathlib.Path) -> None:
    before = os.getcwd()
    os.chdir(models)
    LoaderCache.loaders.clear()  # both remember what models of the same names held elsewhere
    infer_architecture_info.cache_clear()
    try:
        _run(text, out)
    finally:
        os.chdir(before)
