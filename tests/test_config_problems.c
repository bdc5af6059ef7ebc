/* What a merge file with mistakes in it is told: every problem, its place, the words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "config.h"

struct report_case {
    const char *yaml;
    const char *report; /* a line a problem, without the name of the file */
};

static const struct report_case syntax_cases[] = {
    {"a:\n"
     "\tb: c\n",
     "2:1: a tab cannot indent in YAML: use spaces\n"},
    {"a:\n"
     "  \tb: c\n",
     "2:3: a tab cannot indent in YAML: use spaces\n"},
    {"a: 1\n"
     " b: 2\n",
     "2:3: a `:` where no key can stand: check the indentation, or quote the value\n"},
    {"a: @x\n", "1:4: this character cannot begin a value: put the value in quotes\n"},
    {"a: b: c\n", "1:5: a `:` where no key can stand: check the indentation, or quote the value\n"},
    {"- a\n"
     "b: c\n",
     "2:1: this line does not fit the list above: check the indentation, or add the `-`\n"},
    {"a: [1, 2\n"
     "b: 3\n",
     "1:4: the list that begins here does not end: add a `,` or the `]`\n"},
    {"a: {b: 1\n"
     "c: 3\n",
     "1:4: the mapping that begins here does not end: add a `,` or the `}`\n"},
    {"a: 1\n"
     "b: \"x\n"
     "c: 2\n",
     "2:4: the quotes that begin here do not end: close them\n"},
    {"a: 'x\n", "1:4: the quotes that begin here do not end: close them\n"},
    {"a: |\n"
     "  x\n"
     " y\n",
     "3:2: this line does not fit those above: check the indentation\n"},
    {"word\n"
     "other: 3\n",
     "2:6: a `:` where no key can stand: check the indentation, or quote the value\n"},
    {"a: - b\n", "1:4: a `-` where no list can begin: put it on a line of its own\n"},
    {"%FOO\n"
     "---\n"
     "a: b\n",
     "1:5: this is no YAML: found unknown directive name\n"},
    {"a: *b\n", "1:4: no anchor `&b` stands before this alias\n"},
    {"a: &b [1, *b]\n", "1:11: alias `*b` stands inside its own anchor\n"},
    {"? [a]\n"
     ": b\n",
     "1:3: a key must be a word, not a list or a mapping\n"},
    {"{{ a }}: 1\n", "1:1: a key must be a word, not a list or a mapping\n"},
    {"*b : 3\n", "1:1: no anchor `&b` stands before this alias\n"},
    {"a: \"x\\0y\"\n", "1:4: this text holds a NUL: take the `\\0` out\n"},
    {"\303\251: \303\274: 1\n",
     "1:7: a `:` where no key can stand: check the indentation, or quote the value\n"},
    {"---\n"
     "a: 1\n"
     "...\n"
     "---\n"
     "b: [\n",
     "6:1: something is missing here: a value, or the end of a list or mapping\n"},
};

static const struct report_case yaml_errors_cases[] = {
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "  model: b\n",
     "4:3: key `model` is given twice, first in line 3: keep one\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "merge_method: slerp\n"
     "merge_method: ties\n",
     "4:1: key `merge_method` is given twice, first in line 1: keep one\n"
     "5:1: key `merge_method` is given twice, first in line 1: keep one\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "x-a: &b 1\n"
     "x-b: &b 2\n",
     "5:6: anchor `&b` is given twice, first in line 4\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "x-a: !foo b\n"
     "x-b: !!int c\n"
     "x-c: !!binary aa==\n"
     "x-d: !!set {a}\n"
     "x-e: !!seq {a: b}\n",
     "4:6: tag `!foo` does not fit here: leave it out\n"
     "5:6: tag `!!int` does not fit here: leave it out\n"
     "6:6: tag `!!binary` does not fit here: leave it out\n"
     "7:6: tag `!!set` does not fit here: leave it out\n"
     "8:6: tag `!!seq` does not fit here: leave it out\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "<<: 3\n",
     "4:5: `<<` takes an alias of a mapping, or a list of such\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "<<: [{x-a: 1}, 3]\n",
     "4:16: `<<` takes an alias of a mapping, or a list of such\n"},
};

static const struct report_case document_cases[] = {
    {"", " the file is empty: it needs at least `merge_method:`\n"},
    {"# nothing\n"
     "---\n"
     "...\n",
     " the file is empty: it needs at least `merge_method:`\n"},
    {"- a\n", "1:1: a merge file must be a mapping of `key: value`, not a list\n"},
    {"word\n", "1:1: a merge file must be a mapping of `key: value`, not a text\n"},
    {"merge_method: linear\n", "1:1: there is nothing to merge: add `models:`, `slices:` or `modules:`\n"},
    {"models: [{model: a}]\n", "1:1: there is no `merge_method:`: add one, such as `merge_method: linear`\n"},
    {"merge_method:\n"
     "models: [{model: a}]\n",
     "1:1: `merge_method` has no value\n"},
    {"merge_method: 3\n"
     "models: [{model: a}]\n",
     "1:15: `merge_method` must be a text and `3` is a number in YAML: put it in quotes\n"},
    {"merge_method: [a]\n"
     "models: [{model: a}]\n",
     "1:15: `merge_method` must be a text, not a list\n"},
    {"merge_method: ''\n"
     "models: [{model: a}]\n",
     "1:15: `merge_method` is empty\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "slices: []\n"
     "modules: {}\n",
     "4:1: `slices` beside `models` in line 2: keep one of the two\n"
     "5:1: `modules` beside `models` in line 2: keep one of the two\n"},
    {"merge_method: linear\n"
     "models:\n",
     "1:1: there is nothing to merge: add `models:`, `slices:` or `modules:`\n"
     "warning: 2:1: `models` has no value: as if it were not there\n"},
    {"merge_method: linear\n"
     "models: []\n",
     "2:9: `models` is empty: add an entry that begins with `- model:`\n"},
    {"merge_method: linear\n"
     "models: {model: a}\n",
     "2:9: `models` must be a list, not a mapping: begin each entry with `- model:`\n"},
    {"merge_method: linear\n"
     "models: a\n",
     "2:9: `models` must be a list, not a text: begin each entry with `- model:`\n"},
    {"merge_method: linear\n"
     "models: [a]\n",
     "2:10: an entry of `models:` is a mapping: write `- model: a`\n"},
    {"merge_method: linear\n"
     "models: [[a]]\n",
     "2:10: an entry of `models:` must be a mapping of `key: value`, not a list\n"},
    {"merge_method: linear\n"
     "models: [{}]\n",
     "2:10: this entry names no model: add `model:`\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "- model: b\n"
     "- model: a\n",
     "5:10: model `a` is there twice, first in line 3: keep one\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "dtype: bf16\n"
     "out_dtype: torch.half\n",
     "4:8: `dtype: bf16` is not known: write `bfloat16`\n"
     "5:12: `out_dtype: torch.half` is not known: write `float16`\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "dtype: int8\n"
     "out_dtype: BFloat16\n",
     "4:8: `dtype` cannot be `int8`: it is float32, float16, bfloat16 or float64\n"
     "5:12: `out_dtype: BFloat16` is not known: write `bfloat16`\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "dtype: 16\n",
     "4:8: `dtype` must be a text and `16` is a number in YAML: put it in quotes\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "dtype:\n",
     "warning: 4:1: `dtype` has no value: as if it were not there\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "tokenizer: {source: base}\n"
     "tokenizer_source: union\n",
     "5:1: `tokenizer_source` beside `tokenizer` in line 4: keep one of the two\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "tokenizer: union\n",
     "4:12: `tokenizer` must be a mapping of `key: value`, not a text\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "tokenizer: {pad_to_multiple_of: 0, tokens: [a], source: 3}\n",
     "4:33: `pad_to_multiple_of` must be a whole number above 0\n"
     "4:44: `tokens` must be a mapping of token to `source:`, not a list\n"
     "4:57: `source` must be a text and `3` is a number in YAML: put it in quotes\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "tokenizer: {pad_to_multiple_of: x, tokenz: {}}\n",
     "4:33: `pad_to_multiple_of` must be a whole number above 0\n"
     "warning: 4:36: unknown key `tokenz` in `tokenizer`: did you mean `tokens`?\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "chat_template: 3\n",
     "4:16: `chat_template` must be a text and `3` is a number in YAML: put it in quotes\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "base_model: {path: x}\n",
     "4:13: `base_model` as a mapping needs `model:` inside: {model: {path: ...}}\n"
     "warning: 4:14: unknown key `path` in a model written as a mapping\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "base_model: {model: {revision: r}}\n",
     "4:21: `model` needs a `path:`\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "base_model: {model: m, lora: 3, override_architecture: X, z: 1}\n",
     "4:30: `lora` must be a text and `3` is a number in YAML: put it in quotes\n"
     "warning: 4:33: `override_architecture` has no effect: models are read by their tensors\n"
     "warning: 4:59: unknown key `z` in a model written as a mapping\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "base_model: ''\n",
     "4:13: `base_model` is empty\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "base_model: 7\n",
     "4:13: `base_model` must be a text and `7` is a number in YAML: put it in quotes\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "base_model:\n",
     "warning: 4:1: `base_model` has no value: as if it were not there\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "base_model: {model: , lora: }\n",
     "4:14: `model` has no value\n"
     "warning: 4:23: `lora` has no value: as if it were not there\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "base_model: {model:, lora:}\n",
     "4:19: a blank must follow this `:`\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "meldfs: {mismatch: foo}\n",
     "4:20: `mismatch` cannot be `foo`: it is error, base or truncate\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "meldfs: {mismatches: base, names: [a], dtype: x}\n",
     "4:10: unknown key `mismatches` in `meldfs:`: did you mean `mismatch`?\n"
     "4:35: `names` must be a mapping of ALIAS: MODEL, not a list\n"
     "4:40: `dtype` belongs at the top level of the file: in `meldfs:` it has no effect\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "meldfs: {names: {a: 1}}\n",
     "4:21: `a` must be a text and `1` is a number in YAML: put it in quotes\n"},
    {"merge_method: linear\n"
     "models: [{model: x/a}, {model: b}]\n"
     "meldfs: {names: {a: b, c: x/a, c/d: b, e=: b, '': b, 12: b, f: y/a, g: , \"h\\t\": b}}\n",
     "3:18: `a` is what `x/a` goes by: choose another alias\n"
     "3:32: `c/d` cannot be the alias of a model: a `=`, a `/`, a tab or a new line cannot be part of it\n"
     "3:40: `e=` cannot be the alias of a model: a `=`, a `/`, a tab or a new line cannot be part of it\n"
     "3:47: `` cannot be the alias of a model: it is empty\n"
     "3:54: `12` cannot be the alias of a model: digits alone are a model's position\n"
     "3:64: `y/a` is none of this document's models: write it as it is there\n"
     "3:69: the alias `g` has no model\n"
     "3:74: `h?` cannot be the alias of a model: a `=`, a `/`, a tab or a new line cannot be part of it\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "meldfs: 3\n",
     "4:9: `meldfs:` must be a mapping of `key: value`, not a number\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "name: x\n",
     "warning: 4:7: `name` has no effect in a file of one document\n"},
};

static const struct report_case unknown_cases[] = {
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "paramters: {}\n",
     "warning: 4:1: unknown key `paramters` in a merge file: did you mean `parameters`?\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "modle: {}\n",
     "warning: 4:1: unknown key `modle` in a merge file: did you mean `models`?\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "random_seed: 3\n",
     "warning: 4:1: unknown key `random_seed` in a merge file\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "t: 0.5\n"
     "normalize: true\n",
     "warning: 4:1: `t` belongs under `parameters:`: here it has no effect, indent it below that key\n"
     "warning: 5:1: `normalize` belongs under `parameters:`: here it has no effect, indent it below that "
     "key\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "x-anchors: {a: 1}\n"
     "X-b: 1\n",
     "warning: 5:1: unknown key `X-b` in a merge file\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "  weight: 0.5\n"
     "  dtype: float32\n"
     "  layer_range: [0, 1]\n"
     "  paramters: {}\n",
     "warning: 4:3: `weight` belongs under `parameters:`: here it has no effect, indent it below that key\n"
     "warning: 5:3: `dtype` belongs at the top level of the file: in an entry of `models:` it has no effect\n"
     "warning: 6:3: `layer_range` has no effect in an entry of `models:`: only the sources of `slices:` have "
     "one\n"
     "warning: 7:3: unknown key `paramters` in an entry of `models:`: did you mean `parameters`?\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "  parameters:\n"
     "    base_model: b\n"
     "    weight: 1\n",
     "warning: 5:5: `base_model` is no parameter: it belongs at the top level of the file\n"},
    {"merge_method: x\n"
     "slices:\n"
     "- sources: [{model: a, layer_range: [0, 1], density: 1}]\n"
     "  t: 0\n"
     "  residual_weight: 0.5\n"
     "  sorces: 1\n",
     "warning: 3:45: `density` belongs under `parameters:`: here it has no effect, indent it below that key\n"
     "warning: 4:3: `t` belongs under `parameters:`: here it has no effect, indent it below that key\n"
     "warning: 5:3: `residual_weight` has no effect: leave it out\n"
     "warning: 6:3: unknown key `sorces` in a slice: did you mean `sources`?\n"},
    {"merge_method: x\n"
     "modules:\n"
     "  text: {models: [{model: a}], base_model: b, lambda: 1}\n",
     "warning: 3:32: `base_model` belongs at the top level of the file: in a module it has no effect\n"
     "warning: 3:47: `lambda` belongs under `parameters:`: here it has no effect, indent it below that "
     "key\n"},
};

static const struct report_case slices_cases[] = {
    {"merge_method: x\n"
     "slices: []\n",
     "2:9: `slices` is empty: add an entry that begins with `- sources:`\n"},
    {"merge_method: x\n"
     "slices: {sources: []}\n",
     "2:9: `slices` must be a list, not a mapping: begin each entry with `- sources:`\n"},
    {"merge_method: x\n"
     "slices:\n"
     "- model: a\n",
     "warning: 3:3: unknown key `model` in a slice\n"
     "3:3: this slice has no `sources:`: add a list of models with their layers\n"},
    {"merge_method: x\n"
     "slices:\n"
     "- sources:\n",
     "3:3: `sources` has no value\n"},
    {"merge_method: x\n"
     "slices:\n"
     "- sources: []\n",
     "3:12: `sources` is empty: add an entry that begins with `- model:`\n"},
    {"merge_method: x\n"
     "slices:\n"
     "- sources: {model: a}\n",
     "3:12: `sources` must be a list, not a mapping: begin each entry with `- model:`\n"},
    {"merge_method: x\n"
     "slices: [a]\n",
     "2:10: a slice must be a mapping of `key: value`, not a text\n"},
    {"merge_method: x\n"
     "slices:\n"
     "- sources: [a]\n",
     "3:13: a source of a slice must be a mapping of `key: value`, not a text\n"},
    {"merge_method: x\n"
     "slices:\n"
     "- sources:\n"
     "  - model: a\n"
     "    layer_range: 0-3\n",
     "5:18: `layer_range` must be two whole numbers from 0 in brackets, such as [0, 16]: the first layer and "
     "the one after the last\n"},
    {"merge_method: x\n"
     "slices:\n"
     "- sources:\n"
     "  - model: a\n"
     "    layer_range: [0]\n",
     "5:18: `layer_range` must be two whole numbers from 0 in brackets, such as [0, 16]: the first layer and "
     "the one after the last\n"},
    {"merge_method: x\n"
     "slices:\n"
     "- sources:\n"
     "  - model: a\n"
     "    layer_range: [0, 1, 2]\n",
     "5:18: `layer_range` must be two whole numbers from 0 in brackets, such as [0, 16]: the first layer and "
     "the one after the last\n"},
    {"merge_method: x\n"
     "slices:\n"
     "- sources:\n"
     "  - model: a\n"
     "    layer_range: [0.5, 2]\n",
     "5:18: `layer_range` must be two whole numbers from 0 in brackets, such as [0, 16]: the first layer and "
     "the one after the last\n"},
    {"merge_method: x\n"
     "slices:\n"
     "- sources:\n"
     "  - model: a\n"
     "    layer_range: [-1, 2]\n",
     "5:18: `layer_range` must be two whole numbers from 0 in brackets, such as [0, 16]: the first layer and "
     "the one after the last\n"},
    {"merge_method: x\n"
     "slices:\n"
     "- sources:\n"
     "  - model: a\n"
     "    layer_range: [8, 2]\n",
     "5:18: `layer_range` [8, 2] runs backwards: the smaller number comes first\n"},
    {"merge_method: x\n"
     "slices:\n"
     "- sources:\n"
     "  - model: a\n"
     "    layer_range: [a, 2]\n",
     "5:18: `layer_range` must be two whole numbers from 0 in brackets, such as [0, 16]: the first layer and "
     "the one after the last\n"},
    {"merge_method: x\n"
     "slices:\n"
     "- sources:\n"
     "  - model: a\n"
     "    layer_range: [true, 2]\n",
     "5:18: `layer_range` must be two whole numbers from 0 in brackets, such as [0, 16]: the first layer and "
     "the one after the last\n"},
    {"merge_method: x\n"
     "slices:\n"
     "- sources:\n"
     "  - model: a\n"
     "    layer_range: [0, 1e10]\n",
     "5:18: `layer_range` must be two whole numbers from 0 in brackets, such as [0, 16]: the first layer and "
     "the one after the last\n"},
    {"merge_method: x\n"
     "slices:\n"
     "- sources:\n"
     "  - model: a\n"
     "    layer_range: \n",
     "5:5: `layer_range` has no value\n"},
    {"merge_method: x\n"
     "slices:\n"
     "- sources:\n"
     "  - model: a\n"
     "    layer_range: [0,]\n",
     "5:18: `layer_range` must be two whole numbers from 0 in brackets, such as [0, 16]: the first layer and "
     "the one after the last\n"},
    {"merge_method: x\n"
     "slices:\n"
     "- sources:\n"
     "  - model: a\n"
     "    layer_range: {a: b}\n",
     "5:18: `layer_range` must be two whole numbers from 0 in brackets, such as [0, 16]: the first layer and "
     "the one after the last\n"},
    {"merge_method: x\n"
     "slices:\n"
     "- sources:\n"
     "  - layer_range: [3, 1]\n"
     "  - model: a\n"
     "  - model:\n"
     "    layer_range: [0, 1]\n",
     "4:5: this source names no model: add `model:`\n"
     "4:18: `layer_range` [3, 1] runs backwards: the smaller number comes first\n"
     "5:5: this source has no `layer_range:`: add one, or use `models:` to merge whole models\n"
     "6:5: `model` has no value\n"},
    {"merge_method: x\n"
     "slices:\n"
     "- sources:\n"
     "  - {model: a, layer_range: [0, 8]}\n"
     "  - {model: b, layer_range: [0, 7]}\n"
     "  - {model: c, layer_range: [8, 16]}\n",
     "5:29: `layer_range` has 7 layers and the first source of the slice 8: make them equal\n"},
    {"merge_method: x\n"
     "slices:\n"
     "- sources:\n"
     "  - {model: a@r, layer_range: [0, 8]}\n"
     "  - {model: {model: {path: a, revision: r}}, layer_range: [8, 16]}\n"
     "  - {model: a, layer_range: [8, 16]}\n",
     "5:13: model `a@r` is there twice, first in line 4: keep one\n"},
    {"merge_method: x\n"
     "modules: [a]\n",
     "2:10: `modules` must be a mapping of module names to `models:` or `slices:`\n"},
    {"merge_method: x\n"
     "modules: {}\n",
     "2:10: `modules` must be a mapping of module names to `models:` or `slices:`\n"},
    {"merge_method: x\n"
     "modules: {a: 3, b: {}, c: {models: [{model: a}], slices: []}, d: , e: {models: []}}\n",
     "2:14: a module must be a mapping of `key: value`, not a number\n"
     "2:17: module `b` has neither `models:` nor `slices:`: add one\n"
     "2:24: module `c` has both `models:` and `slices:`: keep one\n"
     "2:66: a module must be a mapping of `key: value`, not nothing\n"
     "2:80: `models` is empty: add an entry that begins with `- model:`\n"},
};

static const struct report_case values_cases[] = {
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "  parameters: [weight]\n",
     "4:15: `parameters` must be a mapping such as `weight: 0.5`, not a list: leave the dashes out\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "  parameters: 3\n",
     "4:15: `parameters` must be a mapping such as `weight: 0.5`, not a number\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "  parameters:\n",
     "warning: 4:3: `parameters` has no value: as if it were not there\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "  parameters:\n"
     "    weight:\n",
     "5:5: `weight` has no value\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "  parameters:\n"
     "    weight: [1, ~]\n",
     "5:17: `weight` has no value\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "  parameters:\n"
     "    weight: [1, [2]]\n",
     "5:17: `weight` holds a list inside a list: a gradient is one list of numbers\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "  parameters:\n"
     "    weight: [[1, 2]]\n",
     "5:14: `weight` holds a list inside a list: a gradient is one list of numbers\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "  parameters:\n"
     "    weight: {filter: a}\n",
     "5:13: `weight` has a `filter` without a `value`: add `value:` beside it\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "  parameters:\n"
     "    weight: {self_attn: 0.5}\n",
     "5:13: `weight` is a mapping without `value:`: write a number, or `filter:` and `value:`\n"
     "warning: 5:14: unknown key `self_attn` in a value with a filter\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "  parameters:\n"
     "    weight: {}\n",
     "5:13: `weight` is a mapping without `value:`: write a number, or `filter:` and `value:`\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "  parameters:\n"
     "    weight: {filter: 3, value: {a: 1}}\n",
     "5:22: `filter` must be a text and `3` is a number in YAML: put it in quotes\n"
     "5:32: `weight` holds a mapping where a number must stand\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "  parameters:\n"
     "    weight: {filter: [a], value: }\n",
     "5:22: `filter` must be a text, not a list\n"
     "5:27: `value` has no value\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "  parameters:\n"
     "    weight: [{filter: a, value: 1}, 0.5]\n",
     "5:37: `weight` mixes numbers and `filter:` entries: write this one as `- value: ...`\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "  parameters:\n"
     "    weight: [0.5, {value: 1}]\n",
     "5:14: `weight` mixes numbers and `filter:` entries: write this one as `- value: ...`\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "  parameters:\n"
     "    weight: {value: 1, filters: a}\n",
     "warning: 5:24: unknown key `filters` in a value with a filter: did you mean `filter`?\n"},
    {"merge_method: linear\n"
     "models:\n"
     "- model: a\n"
     "  parameters:\n"
     "    weight: [{filter: a}, {value: [{}]}]\n",
     "5:14: `weight` has a `filter` without a `value`: add `value:` beside it\n"
     "5:36: `weight` holds a mapping where a number must stand\n"},
};

static const struct report_case stages_cases[] = {
    {"merge_method: linear\n"
     "models: [{model: a}]\n"
     "---\n"
     "merge_method: linear\n"
     "models: [{model: b}]\n",
     "4:1: a second document without `name:`, after that in line 1: only the result has none\n"},
    {"name: a\n"
     "merge_method: linear\n"
     "models: [{model: x}]\n"
     "---\n"
     "name: b\n"
     "merge_method: linear\n"
     "models: [{model: a}]\n",
     "5:1: every document has a `name:`: take it off the one that is the result\n"
     "warning: 5:7: no other document takes `b` as a model\n"},
    {"name: a\n"
     "merge_method: linear\n"
     "models: [{model: x}]\n"
     "---\n"
     "name: a\n"
     "merge_method: linear\n"
     "models: [{model: y}]\n"
     "---\n"
     "merge_method: linear\n"
     "models: [{model: a}]\n",
     "warning: 1:7: no other document takes `a` as a model\n"
     "5:7: the name `a` is given twice, first in line 1: rename one of the documents\n"},
    {"name: a\n"
     "merge_method: linear\n"
     "models: [{model: a}]\n"
     "---\n"
     "merge_method: linear\n"
     "models: [{model: a}]\n",
     "3:18: stage `a` takes itself as a model: name another\n"},
    {"name: a\n"
     "merge_method: linear\n"
     "models: [{model: b}]\n"
     "---\n"
     "name: b\n"
     "merge_method: linear\n"
     "models: [{model: c}]\n"
     "---\n"
     "name: c\n"
     "merge_method: linear\n"
     "models: [{model: b}]\n"
     "---\n"
     "merge_method: linear\n"
     "models: [{model: a}]\n",
     "11:18: stages need each other in a circle: `c` needs `b`, which in the end needs `c`\n"},
    {"name: a\n"
     "merge_method: linear\n"
     "models: [{model: x}]\n"
     "---\n"
     "merge_method: linear\n"
     "models: [{model: y}]\n",
     "warning: 1:7: no other document takes `a` as a model\n"},
    {"name: 3\n"
     "merge_method: linear\n"
     "models: [{model: x}]\n"
     "---\n"
     "merge_method: linear\n"
     "models: [{model: y}]\n",
     "1:7: `name` must be a text and `3` is a number in YAML: put it in quotes\n"},
};

static const struct report_case many_cases[] = {
    {"merge_method: ties\n"
     "models:\n"
     "  - model: a\n"
     "    weight: 1\n"
     "  - model: a\n"
     "  - b\n"
     "slices:\n"
     "  - sources: []\n"
     "parameters:\n"
     "  - density: 0.5\n"
     "dtype: fp16\n"
     "base_model:\n"
     "  path: x\n",
     "warning: 4:5: `weight` belongs under `parameters:`: here it has no effect, indent it below that key\n"
     "5:12: model `a` is there twice, first in line 3: keep one\n"
     "6:5: an entry of `models:` is a mapping: write `- model: b`\n"
     "7:1: `slices` beside `models` in line 2: keep one of the two\n"
     "10:3: `parameters` must be a mapping such as `weight: 0.5`, not a list: leave the dashes out\n"
     "11:8: `dtype: fp16` is not known: write `float16`\n"
     "warning: 13:3: unknown key `path` in a model written as a mapping\n"
     "13:3: `base_model` as a mapping needs `model:` inside: {model: {path: ...}}\n"},
};

static void report_text(const struct report *report, char *out, size_t size)
{
    size_t len = 0;

    out[0] = '\0';
    for (size_t i = 0; i < report->n; i++) {
        const struct problem *problem = &report->problems[i];
        assert_int_equal(strncmp(problem->text, "m.yml:", 6), 0);
        len += (size_t)snprintf(out + len, size - len, "%s%s\n",
                                problem->severity == SEVERITY_ERROR ? "" : "warning: ", problem->text + 6);
        assert_true(len < size);
    }
}

static void check_case(const struct report_case *expected)
{
    struct report report = {0};
    struct config *config;
    char text[4096];
    int ret = config_parse("m.yml", expected->yaml, strlen(expected->yaml), NULL, &config, &report);

    report_text(&report, text, sizeof(text));
    assert_string_equal(text, expected->report);
    assert_int_equal(ret, report.n_errors ? -EINVAL : 0);
    assert_int_equal(config == NULL, report.n_errors > 0);
    config_free(config);
    report_fini(&report);
}

static void check_cases(const struct report_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++)
        check_case(&cases[i]);
}

static void test_syntax(void **state)
{
    (void)state;
    check_cases(syntax_cases, sizeof(syntax_cases) / sizeof(*syntax_cases));
}

static void test_yaml_errors(void **state)
{
    (void)state;
    check_cases(yaml_errors_cases, sizeof(yaml_errors_cases) / sizeof(*yaml_errors_cases));
}

static void test_document(void **state)
{
    (void)state;
    check_cases(document_cases, sizeof(document_cases) / sizeof(*document_cases));
}

static void test_unknown(void **state)
{
    (void)state;
    check_cases(unknown_cases, sizeof(unknown_cases) / sizeof(*unknown_cases));
}

static void test_slices(void **state)
{
    (void)state;
    check_cases(slices_cases, sizeof(slices_cases) / sizeof(*slices_cases));
}

static void test_values(void **state)
{
    (void)state;
    check_cases(values_cases, sizeof(values_cases) / sizeof(*values_cases));
}

static void test_stages(void **state)
{
    (void)state;
    check_cases(stages_cases, sizeof(stages_cases) / sizeof(*stages_cases));
}

static void test_many(void **state)
{
    (void)state;
    check_cases(many_cases, sizeof(many_cases) / sizeof(*many_cases));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_syntax),  cmocka_unit_test(test_yaml_errors), cmocka_unit_test(test_document),
        cmocka_unit_test(test_unknown), cmocka_unit_test(test_slices),      cmocka_unit_test(test_values),
        cmocka_unit_test(test_stages),  cmocka_unit_test(test_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
