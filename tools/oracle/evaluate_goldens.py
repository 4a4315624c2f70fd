#!/usr/bin/env python3
"""What `drupe evaluate` must find on the tiny Llama (tests/golden/tiny/llama) with the
tokenizer of tests/cli/toy, by torch and transformers.

tests/golden/evaluate/evaluate.json
    rows, seq_len, blocks   the text as JSON rows, cut as Olive's "join"
    edit                    config.json of the second model: the same weights, other rotations
    text                    per figure [mean, standard error of the mean over blocks]:
                            loss of each, loss more, KL(first || second), same top token
    questions               rows of multiple choice
    task                    per model: scores of the choices (sum of log p), acc and acc_norm
                            with standard errors, as lm-evaluation-harness defines them:
                            " " and the choice go on from the context, whose white space at
                            the end goes with them; per character of the choice
    written                 rows with a target; what the first model writes greedily, NEW
                            tokens, up to a line's end; exact matches and word errors (jiwer)
    versions

    python3 tools/oracle/evaluate_goldens.py   (torch, transformers 5, tokenizers, jiwer)
"""
import json
import pathlib
import random

import jiwer
import numpy
import tokenizers
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = ROOT / "tests" / "golden" / "tiny" / "llama"
OUT = ROOT / "tests" / "golden" / "evaluate"
SEQ_LEN, BLOCKS = 24, 5
NEW = 7
EDIT = {"rope_theta": 100.0}
WORDS = "the three thin other weather these north then both path ! ? 12 7 a of".split()


def model(edit):
    config = json.loads((TINY / "config.json").read_text()) | edit
    m = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).eval()
    from safetensors.torch import load_file
    missing, extra = m.load_state_dict(load_file(TINY / "model.safetensors"), strict=False)
    assert not extra and set(missing) <= {"lm_head.weight"}
    m.tie_weights()
    return m


def log_probs(m, ids):
    with torch.no_grad():
        return torch.log_softmax(m(torch.tensor([ids])).logits[0].double(), -1)


def mean_error(values):
    v = numpy.asarray(values, dtype=float)
    return [float(v.mean()), float(v.std(ddof=1) / len(v) ** 0.5)]


def text_figures(first, second, ids):
    out = {k: [] for k in ("loss_before", "loss_after", "loss_more", "kl", "same")}
    for b in range(BLOCKS):
        block = ids[b * SEQ_LEN:(b + 1) * SEQ_LEN]
        p, q = log_probs(first, block), log_probs(second, block)
        next_ids = torch.tensor(block[1:])[:, None]
        before = -p[:-1].gather(1, next_ids).mean().item()
        after = -q[:-1].gather(1, next_ids).mean().item()
        out["loss_before"].append(before)
        out["loss_after"].append(after)
        out["loss_more"].append(after - before)
        out["kl"].append((p.exp() * (p - q)).sum(1).mean().item())
        out["same"].append((p.argmax(1) == q.argmax(1)).double().mean().item())
    return {k: mean_error(v) for k, v in out.items()}


def score(m, tok, context, choice):
    cut = len(context.rstrip())
    continuation = context[cut:] + " " + choice
    context = context[:cut]
    whole = tok.encode(context + continuation, add_special_tokens=False).ids
    alone = len(tok.encode(context, add_special_tokens=False).ids)
    if alone == 0:
        whole, alone = [1] + whole, 1  # <s>
    p = log_probs(m, whole[:-1])
    return sum(p[i - 1, whole[i]].item() for i in range(alone, len(whole)))


def task_figures(m, tok, questions):
    scores, acc, norm = [], [], []
    for q in questions:
        answer = q["answer"]
        gold = ord(answer.upper()) - ord("A") if isinstance(answer, str) else answer
        s = [score(m, tok, q.get("context", q.get("question")), c) for c in q["choices"]]
        scores.append(s)
        acc.append(int(numpy.argmax(s)) == gold)
        norm.append(int(numpy.argmax(
            [x / len(c) for x, c in zip(s, q["choices"])])) == gold)
    return {"scores": scores, "acc": mean_error(acc), "acc_norm": mean_error(norm)}


def written(m, tok, contexts):
    rows, texts, hits, wrong, words = [], [], [], 0, 0
    for i, context in enumerate(contexts):
        ids = tok.encode(context.rstrip(), add_special_tokens=False).ids or [1]
        new = m.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=NEW,
                         eos_token_id=2, pad_token_id=2)[0, len(ids):].tolist()
        new = new[:new.index(2)] if 2 in new else new
        text = (tok.decode(new).lstrip().split("\n") or [""])[0].strip()
        right = text if text else "none"
        target = [right, "other words", [right + " more", "x"], ["y", right]][i % 4]
        targets = [target] if isinstance(target, str) else target
        errors = [jiwer.process_words(t, text) if text else None for t in targets]
        edits = [e.substitutions + e.deletions + e.insertions if e else len(t.split())
                 for e, t in zip(errors, targets)]
        best = int(numpy.argmin(edits))
        wrong, words = wrong + edits[best], words + len(targets[best].split())
        hits.append(int(text in targets))
        texts.append(text)
        rows.append({"context": context, "target": target})
    return {"new_tokens": NEW, "rows": rows, "texts": texts,
            "exact_match": mean_error(hits), "wer": wrong / words}


def main():
    rng = random.Random(5)
    tok = tokenizers.Tokenizer.from_file(str(ROOT / "tests/cli/toy/tokenizer.json"))
    rows = [" ".join(rng.choice(WORDS) for _ in range(6 + i)) for i in range(8)]
    ids = []
    for row in rows:
        ids += tok.encode(row, add_special_tokens=False).ids
        ids += tok.encode("\n\n", add_special_tokens=False).ids
    assert len(ids) > BLOCKS * SEQ_LEN
    questions = []
    for i in range(9):
        choices = [" ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 4)))
                   for _ in range(2 + i % 3)]
        answer = rng.randrange(len(choices))
        questions.append({
            "question" if i % 2 else "context":
                " ".join(rng.choice(WORDS) for _ in range(i % 5)) + (" " if i == 4 else ""),
            "choices": choices, "answer": "ABCD"[answer] if i % 3 == 0 else answer})
    first, second = model({}), model(EDIT)
    golden = {
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__,
                     "tokenizers": tokenizers.__version__},
        "rows": rows, "seq_len": SEQ_LEN, "blocks": BLOCKS, "edit": EDIT,
        "text": text_figures(first, second, ids), "questions": questions,
        "task": {"first": task_figures(first, tok, questions),
                 "second": task_figures(second, tok, questions)},
        "written": written(first, tok, rows[:7] + ["the "])}
    OUT.mkdir(exist_ok=True)
    (OUT / "evaluate.json").write_text(json.dumps(golden, indent=1) + "\n")
    print(json.dumps(golden["text"], indent=1))
    print(golden["task"]["first"]["acc"], golden["task"]["first"]["acc_norm"])
    print(golden["task"]["second"]["acc"], golden["task"]["second"]["acc_norm"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
