#!/usr/bin/env python3
"""llama.cpp's logits of a GGUF file, as JSON: a row for each token, one by one.

    python3 tools/oracle/gguf_logits.py FILE.gguf ID ID ...     (cyllama 0.2.18)
"""
import json
import os
import sys

from cyllama.llama import llama_cpp



class Model(llama_cpp.LlamaModel):
    """What the package forgets."""

    @property
    def n_vocab(self):
        return self.get_vocab().n_vocab


llama_cpp.llama_backend_init()
if "LLAMA_LOG" not in os.environ:
    llama_cpp.disable_logging()
model = Model(sys.argv[1], llama_cpp.LlamaModelParams())
params = llama_cpp.LlamaContextParams()
params.n_ctx = 64
params.n_threads = params.n_threads_batch = 1
params.flash_attn_type = 0
params.type_k = params.type_v = 0  # float32
context = llama_cpp.LlamaContext(model, params)
ids, rows = [int(i) for i in sys.argv[2:]], []
for n in range(len(ids)):  # the package gives one row of a batch
    batch = llama_cpp.LlamaBatch(n_tokens=1, embd=0, n_seq_max=1)
    batch.add(ids[n], n, [0], True)
    context.decode(batch)
    rows.append(list(map(float, context.get_logits())))
print(json.dumps(rows))
