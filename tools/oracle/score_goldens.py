#!/usr/bin/env python3
"""Figures of classes and of written texts, for tests/golden/evaluate/scores.json.

    cases   truth, chosen, scores of classes; f1, precision and recall by average, auroc
            (null where a class is no or every question's answer), by scikit-learn, and
            held against torchmetrics
    words   text, target, edits and words, by jiwer

    python3 tools/oracle/score_goldens.py   (scikit-learn, torchmetrics, jiwer)
"""
import json
import pathlib
import random

import jiwer
import numpy
import sklearn
import torch
import torchmetrics
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "evaluate"


def case(rng, classes, n, ties):
    truth = [rng.randrange(classes) for _ in range(n)]
    raw = numpy.array([[rng.randrange(4) / 4 if ties else rng.random() for _ in range(classes)]
                       for _ in range(n)]) + 0.1
    scores = raw / raw.sum(1, keepdims=True)
    chosen = scores.argmax(1).tolist()
    out = {"classes": classes, "truth": truth, "chosen": chosen, "scores": scores.tolist()}
    for average in ("binary", "macro", "micro", "weighted"):
        if average == "binary" and classes != 2:
            continue
        p, r, f, _ = precision_recall_fscore_support(truth, chosen, average=average,
                                                     zero_division=0)
        out[average] = {"f1": f, "precision": p, "recall": r}
        task = "binary" if average == "binary" else "multiclass"
        kind = {} if task == "binary" else {"num_classes": classes, "average": average}
        mine = torchmetrics.functional.f1_score(torch.tensor(chosen), torch.tensor(truth),
                                                task=task, **kind)
        assert abs(mine.item() - f) < 1e-6, (average, mine, f)
    everywhere = [truth.count(k) for k in range(classes)]
    if min(everywhere) == 0 or max(everywhere) == n:
        out["auroc"] = None
    elif classes == 2:
        out["auroc"] = roc_auc_score(truth, scores[:, 1])
    else:
        out["auroc"] = roc_auc_score(truth, scores, multi_class="ovr", average="macro")
    return out


def words(rng):
    vocabulary = "a b c the The cat sat, mat".split()
    target = " ".join(rng.choice(vocabulary) for _ in range(rng.randint(1, 9)))
    text = " ".join(rng.choice(vocabulary) for _ in range(rng.randint(1, 9)))
    if rng.random() < 0.5:
        parts = target.split()
        parts.insert(rng.randrange(len(parts) + 1), "x")
        parts.pop(rng.randrange(len(parts)))
        text = " ".join(parts) or "x"
    o = jiwer.process_words(target, text)
    return {"text": text, "target": target, "words": len(target.split()),
            "wrong": o.substitutions + o.deletions + o.insertions}


def main():
    rng = random.Random(8)
    golden = {
        "versions": {"scikit-learn": sklearn.__version__,
                     "torchmetrics": torchmetrics.__version__},
        "cases": [case(rng, classes, n, ties) for classes in (2, 3, 5)
                  for n in (1, 6, 40) for ties in (False, True)],
        "words": [words(rng) for _ in range(40)]}
    (OUT / "scores.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
