#!/usr/bin/env python3
"""Small tokenizers, strings with their ids and texts, and rendered chat templates.

tests/golden/tok/
    phi3/ llama3/ meta/ gpt2/ bert/ t5/ bytes/ words/
                  tokenizer.json as tok_models.py trains it, and cases.json:
                  [[text, ids, ids put before with special tokens, decoded, decoded without
                  special tokens, ids put behind (if any)], ...]; a decoded text equal to the
                  text is null
    chat.json     models: templates by name; talks, sets: messages and names that cases use;
                  cases: [{template, source (if it is no model's), talk, names, prompt, text,
                  says}]; text null: must fail, and the error must contain says
    manifest.json versions, seed, sha256

    python3 tools/oracle/tok_goldens.py [--train]  (tokenizers, sentencepiece, transformers 5)

--train: new tokenizers in place of those that are there; not all trainers do the same twice.
"""
import hashlib
import json
import pathlib
import sys

import jinja2
import sentencepiece
import tokenizers
import transformers
from transformers.utils.chat_template_utils import _compile_jinja_template

import tok_models
from tok_strings import strings
from tok_templates import DATA, FEATURES, MODELS, REFUSED

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/tok"
SEED = 7
PIECES = {"phi3": 1100, "llama3": 700, "meta": 420, "gpt2": 520, "bert": 500, "t5": 600, "bytes": 560, "words": 300}
CASES = {"phi3": 130, "llama3": 140, "meta": 80, "gpt2": 60, "bert": 90, "t5": 90, "bytes": 80, "words": 60}
TEXT_MAX = 170  # characters of a case: CI's files are small

TOOLS = [{"type": "function", "function": {
    "name": "get_weather", "description": "Weather \u2014 \"now\"",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                   "required": ["city"]}, "return": {"type": "number"}}}]
TALK = [
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": " Be brief. \n"}, {"role": "user", "content": "  What's 2+2?\n"},
     {"role": "assistant", "content": "4 "}, {"role": "user", "content": "\u00bfY 3\u00d73? \U0001F600 <|end|>"}],
    [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    [{"role": "user", "content": "q"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nyes"},
     {"role": "user", "content": ""}],
    [{"role": "assistant", "content": "x"}],
    [],
]
CALLS = [
    {"role": "user", "content": "Weather in Oslo?"},
    {"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "id": "abc123def", "function": {"name": "get_weather", "arguments": {"city": "Oslo", "days": 2}}}]},
    {"role": "tool", "content": "rain, 7\u00b0", "tool_call_id": "abc123def"},
    {"role": "assistant", "content": "Rain."},
]
PARTS = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " look "}]}]
NAMES = {"bos_token": "<s>", "eos_token": "</s>", "date_string": "26 Jul 2024"}


def tokenizer_cases(name):
    file = OUT / name / "tokenizer.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    if "--train" in sys.argv or not file.exists():
        spec = tok_models.build(name, PIECES[name])
        file.write_text(json.dumps(spec, ensure_ascii=False, separators=(",", ":")))
    text = file.read_text()
    spec = json.loads(text)
    hf = tokenizers.Tokenizer.from_str(text)
    cases = []
    for t in strings(CASES[name], SEED, [a["content"] for a in spec["added_tokens"]]):
        t = t[:TEXT_MAX]
        ids, special = (hf.encode(t, add_special_tokens=s).ids for s in (False, True))
        decoded = [hf.decode(ids, skip_special_tokens=s) for s in (False, True)]
        before = next(i for i in range(len(special) + 1) if special[i:i + len(ids)] == ids)
        before, after = special[:before], special[before + len(ids):]
        assert special == before + ids + after
        cases.append([t, ids, before] + [None if x == t else x for x in decoded] + [after] * bool(after))
    (file.parent / "cases.json").write_text("[\n" + ",\n".join(
        json.dumps(c, ensure_ascii=False, separators=(",", ":")) for c in cases) + "\n]\n")


def rendered(template, messages, prompt, names):
    context = {"tools": None, "documents": None} | NAMES | names
    try:
        text = _compile_jinja_template(template).render(
            messages=messages, add_generation_prompt=prompt, **context)
    except (jinja2.exceptions.TemplateError, TypeError):
        return {"text": None}
    return {"text": text}


def chat_cases():
    talks = TALK + [CALLS, CALLS[:1], PARTS]
    sets = {"plain": {}, "data": DATA, "tools": {"tools": TOOLS},
            "options": {"tools": TOOLS, "tools_in_user_message": False, "enable_thinking": False,
                        "documents": [{"text": "d1"}, {"id": 7, "text": "d2"}], "controls": {"citations": True},
                        "inner_tools": ["shell", "get_weather"], "reasoning_effort": "low"}}
    asked = [(i, i % 2 == 0, "plain") for i in range(len(TALK))]
    asked += [(len(TALK), False, "tools"), (len(TALK), True, "options"), (len(TALK) + 1, True, "options"),
              (len(TALK) + 2, True, "plain")]
    cases = [{"template": name, "talk": talk, "prompt": prompt, "names": names} for name in MODELS
             for talk, prompt, names in asked]
    cases = [c | rendered(MODELS[c["template"]], talks[c["talk"]], c["prompt"], sets[c["names"]]) for c in cases]
    none = TALK.index([])
    for i, template in enumerate(FEATURES):
        got = rendered(template, [], False, DATA)
        assert got["text"] is not None, (template, got)
        cases.append({"template": f"feature{i}", "source": template, "talk": none, "prompt": False, "names": "data"} | got)
    for i, (template, says) in enumerate(REFUSED):
        cases.append({"template": f"refused{i}", "source": template, "talk": none, "prompt": False,
                      "names": "data", "text": None, "says": says})
    return {"models": MODELS, "names": NAMES, "sets": sets, "talks": talks, "cases": cases}


def main():
    for name in PIECES:
        tokenizer_cases(name)
    (OUT / "chat.json").write_text(json.dumps(chat_cases(), ensure_ascii=False, indent=None, separators=(",", ":")).replace('{"template"', '\n{"template"') + "\n")
    files = sorted(p for p in OUT.rglob("*.json") if p.name != "manifest.json")
    manifest = {"seed": SEED, "versions": {m.__name__: m.__version__ for m in (tokenizers, sentencepiece, transformers, jinja2)},
                "sha256": {str(p.relative_to(OUT)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}}
    (OUT / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    print(sum(p.stat().st_size for p in OUT.rglob("*.json")), "bytes")


if __name__ == "__main__":
    main()
