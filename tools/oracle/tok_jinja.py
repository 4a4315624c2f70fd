#!/usr/bin/env python3
"""drupe's Jinja against transformers' on random templates.

    tok_jinja.py DRIVER [--count 20000] [--seed 1] [--show 10]

DRIVER is build/tests/unit/tok/tok_driver.  Expressions, filters, tests, methods, loops,
macros and white space are drawn from a grammar that knows a little of types.  What must
hold: where both render, the texts are the same; where only one does, it is counted, with
drupe's words when it is drupe that refuses.  The exit code is 1 when texts differ, or when
drupe renders what Python refuses (but for names of filters that Python misses before it
comes to them).  Not part of CI.
"""

import argparse
import collections
import copy
import json
import random
import struct
import subprocess
import sys
import warnings

from transformers.utils.chat_template_utils import _compile_jinja_template

NAMES = {
    "i": 3,
    "k": -2,
    "f": 2.5,
    "s": " a,B\u00e9 c\n",
    "t": "xyxx",
    "e": "",
    "n": None,
    "y": True,
    "l": [3, 1, 2],
    "z": [],
    "w": ["b", "A", "c"],
    "d": {"b": 1, "a": "q", "items": [1]},
    "m": [{"r": "u", "c": " hi "}, {"r": "v", "c": "x\ny", "p": 2}],
    "q": 'it\'s <b>"&" \U0001f600',
}


KINDS = """defined none string number mapping sequence iterable boolean integer float true
    undefined callable"""


class Maker:
    def __init__(self, seed):
        self.r = random.Random(seed)
        self.depth = 0

    def any_of(self, words):
        return self.r.choice(words.split())

    def pick(self, *options):
        choice = self.r.choice(options)
        return choice() if callable(choice) else choice

    def expr(self, kind=None):
        self.depth += 1
        kind = (
            kind
            or self.r.choices(
                ("int", "str", "list", "bool", "dict", "any"), (4, 6, 4, 3, 1, 2)
            )[0]
        )
        out = (
            self.leaf(kind)
            if self.depth > 4 or self.r.random() < 0.25
            else getattr(self, kind)()
        )
        self.depth -= 1
        return out

    def leaf(self, kind):
        leaves = {
            "int": ("i", "k", "0", "7", "f", "loop.index", "l[0]", "2"),
            "str": ("s", "t", "e", "q", "'x'", "', '", "m[0].c", "w[1]"),
            "list": ("l", "z", "w", "m", "[1, 'a']", "(1, 2)", "range(3)"),
            "bool": ("y", "true", "false", "n", "u is defined"),
            "dict": ("d", "m[1]", "{}", "{'a': 1}"),
            "any": ("i", "s", "n", "u", "l", "d", "f", "none", "x0"),
        }
        return self.r.choice(leaves[kind])

    def int(self):
        a, b = lambda: self.expr("int"), lambda: self.expr("int")
        return self.pick(
            lambda: f"{a()} {self.r.choice(('+', '-', '*', '//', '%', '/'))} {b()}",
            lambda: f"({a()} + {b()})",
            lambda: f"-{a()}",
            lambda: f"{self.expr(self.any_of('str list dict'))}|length",
            lambda: f"{self.expr('list')}|{self.any_of('sum min max first last')}",
            lambda: f"{self.expr('any')}|int",
            lambda: f"{a()}|abs",
            lambda: f"{self.expr('str')}.{self.any_of('find count rfind')}({self.leaf('str')})",
            lambda: f"{self.expr('str')}|float",
            lambda: f"{a()} ** 2",
            lambda: f"{a()} if {self.expr('bool')} else {b()}",
            lambda: f"({a()})|string|int(4)",
            lambda: f"{self.expr('list')}.{self.any_of('count index')}({self.expr()})",
        )

    def str(self):
        a, leaf = lambda: self.expr("str"), lambda: self.leaf("str")
        return self.pick(
            lambda: f"{a()} ~ {self.expr()}",
            lambda: f"({a()} + {a()})",
            lambda: f"{a()}|{self.any_of('trim upper lower capitalize title string reverse')}",
            lambda: f"{a()}.{self.any_of('strip lstrip rstrip upper lower title capitalize')}()",
            lambda: f"{a()}.{self.any_of('strip lstrip rstrip removeprefix removesuffix')}({leaf()})",
            lambda: f"{a()}|replace({leaf()}, {leaf()})",
            lambda: f"{a()}.replace('x', {leaf()})",
            lambda: f"{self.expr()}|tojson",
            lambda: f"{self.expr('list')}|join({leaf()})",
            lambda: f"{self.expr()}|tojson(indent={self.r.randint(0, 3)})",
            lambda: f"{a()}|indent({self.r.randint(0, 3)})",
            lambda: f"{a()}[{self.slice()}]",
            lambda: f"{self.expr()}|string",
            lambda: f"{self.expr()}|default({leaf()})",
            lambda: f"{a()}|default({leaf()}, true)",
            lambda: f"{a()} * {self.r.randint(-1, 3)}",
            lambda: f"{a()} if {self.expr('bool')}",
            lambda: f"{leaf()}.join({self.expr('list')})",
            lambda: f"m|map(attribute={self.r.choice(('chr(0)', repr('c'), repr('p')))})|join('-')",
            lambda: f"(m|selectattr('p')|list)[0].c",
            lambda: f"m0({self.expr()})",
            lambda: f"' {self.r.randint(0, 999)}{self.r.choice(('', '.5', 'e2', 'x', ' '))}'|{self.any_of('int float')}|string",
            lambda: f"m0(a={self.expr()}, b={self.leaf('any')})",
        )

    def list(self):
        a = lambda: self.expr("list")
        return self.pick(
            lambda: f"[{self.expr()}, {self.expr()}]",
            lambda: f"({self.expr()},)",
            lambda: f"{a()}|{self.r.choice(('list', 'sort', 'reverse', 'unique', 'map(' + repr('string') + ')'))}|list",
            lambda: f"{a()}[{self.slice()}]",
            lambda: f"{self.expr('str')}.split({self.r.choice(('', repr(','), repr('x'), 'none, 1', repr(' ') + ', 1'))})",
            lambda: f"{self.expr('str')}|list",
            lambda: f"{a()}|{self.any_of('select reject')}|list",
            lambda: f"l|{self.any_of('select reject')}('{self.any_of('odd gt in ne')}'{self.r.choice((', 1', ', [1, 2]', ''))})|list",
            lambda: f"{a()} + {a()}",
            lambda: f"{self.expr('dict')}|items|list",
            lambda: f"{self.expr('dict')}.{self.any_of('items keys values')}()|list",
            lambda: f"{self.expr('dict')}|dictsort",
            lambda: f"m|{self.any_of('selectattr rejectattr')}('r', 'equalto', 'u')|list",
            lambda: f"m|map(attribute='r')|list",
            lambda: f"{a()} * 2",
            lambda: f"{self.expr('str')}.splitlines()",
            lambda: f"m|sort(attribute='c', reverse=true)|list",
            lambda: f"w|sort(case_sensitive=true)",
            lambda: f"range({self.r.randint(-1, 4)}, {self.r.randint(-1, 6)}, {self.r.choice((1, 2, -1))})|list",
        )

    def bool(self):
        return self.pick(
            lambda: f"{self.expr()} == {self.expr()}",
            lambda: f"{self.expr('int')} {self.r.choice(('<', '>', '<=', '>=', '!='))} {self.expr('int')}",
            lambda: f"not {self.expr()}",
            lambda: f"{self.expr()} {self.any_of('and or')} {self.expr()}",
            lambda: f"{self.expr()} {self.r.choice(('in', 'not in'))} {self.expr(self.any_of('list str dict'))}",
            lambda: f"{self.expr()} is {self.r.choice(('', 'not '))}{self.any_of(KINDS)}",
            lambda: f"{self.expr('int')} is {self.r.choice(('odd', 'even', 'divisibleby 2', 'divisibleby(3)'))}",
            lambda: f"{self.expr('str')}.{self.any_of('startswith endswith')}({self.leaf('str')})",
            lambda: f"{self.expr('str')}.{self.any_of('isdigit isalpha isspace isupper islower isalnum')}()",
            lambda: f"{self.expr('str')} < {self.expr('str')}",
            lambda: f"1 < {self.expr('int')} < 3",
            lambda: f"{self.expr('str')} is {self.any_of('upper lower')}",
            lambda: f"{self.expr()} is sameas {self.leaf('bool')}",
        )

    def dict(self):
        return self.pick(
            lambda: f"{{'k': {self.expr()}, {self.leaf('str')}: {self.expr()}}}",
            "d",
            lambda: f"dict(a={self.expr()})",
            "m[0]",
            lambda: f"m[{self.leaf('int')}]",
        )

    def any(self):
        return self.pick(
            lambda: f"({self.expr()})",
            lambda: f"d.{self.any_of('a b zz')}",
            lambda: f"d[{self.expr('str')}]",
            lambda: f"d.get({self.expr()}, {self.expr()})",
            lambda: f"{self.expr('list')}[{self.expr('int')}]",
            lambda: f"{self.expr('list')}|first",
            lambda: f"u.{self.any_of('x y')}",
            lambda: f"{self.expr()}.r",
            lambda: self.expr(),
        )

    def slice(self):
        part = lambda: self.r.choice(("", "", "1", "-1", "2", "-3", "9", "0", "i"))
        return f"{part()}:{part()}" + self.r.choice(("", "", ":-1", ":2", ":"))

    def space(self):
        return self.r.choice(("", "", " ", "\n", "\n\n", "  \n", "\t", "x", "a\n", " b "))

    def tag(self, text):
        return (
            "{%"
            + self.r.choice(("", "", "-", "+"))
            + " "
            + text
            + " "
            + self.r.choice(("", "", "-"))
            + "%}"
        )

    def body(self):
        return "".join(self.statement() for _ in range(self.r.randint(1, 2)))

    def statement(self):
        self.depth += 1
        kind = self.r.choices(
            (
                "print",
                "text",
                "if",
                "for",
                "set",
                "block",
                "ns",
                "with",
                "filter",
                "flow",
                "comment",
            ),
            (
                (9, 2, 2, 3, 3, 1, 1, 1, 1, 1, 1)
                if self.depth < 4
                else (9, 2, 0, 0, 2, 0, 1, 0, 0, 1, 1)
            ),
        )[0]
        save, self.depth = self.depth, min(self.depth, 2)
        e = lambda: self.expr()
        if kind == "print":
            out = (
                "{{"
                + self.r.choice(("", "", "-"))
                + " "
                + e()
                + " "
                + self.r.choice(("", "", "-"))
                + "}}"
            )
        elif kind == "text":
            out = self.r.choice(("text", "é{", "} %", " \t", "# x"))
        elif kind == "set":
            out = self.tag(f"set {self.any_of('x0 x1')} = {e()}")
        elif kind == "ns":
            out = self.tag("set ns.v = " + e()) + "{{ ns.v }}"
        elif kind == "comment":
            out = "{#" + self.r.choice(("", "-")) + " c " + self.r.choice(("", "-")) + "#}"
        elif kind == "flow":
            out = (
                self.tag("if " + self.expr("bool"))
                + self.tag(self.r.choice(("break", "continue")))
                + self.tag("endif")
                if self.inside
                else ""
            )
        else:
            self.depth = save
            inside, self.inside = self.inside, self.inside or kind == "for"
            if kind in ("with", "filter", "block"):
                self.inside = False  # Python refuses break in there, as it is a function
            inner = self.space() + self.body() + self.space()
            self.inside = inside
            if kind == "if":
                other = self.tag("else") + self.body() if self.r.random() < 0.5 else ""
                out = self.tag("if " + e()) + inner + other + self.tag("endif")
            elif kind == "for":
                head = self.r.choice(
                    (
                        "x0 in " + self.expr("list"),
                        "x0 in " + e(),
                        "a, b in d.items()",
                        "x0 in l if x0 " + self.r.choice(("> 1", "is odd", "!= i")),
                    )
                )
                out = self.tag("for " + head) + inner + self.tag("endfor")
            elif kind == "with":
                out = self.tag("with x0 = " + e()) + inner + self.tag("endwith")
            elif kind == "filter":
                out = (
                    self.tag(
                        "filter " + self.r.choice(("upper", "trim", "replace('a', 'b')"))
                    )
                    + inner
                    + self.tag("endfilter")
                )
            else:
                out = (
                    self.tag("set x0" + self.r.choice(("", "|trim")))
                    + inner
                    + self.tag("endset")
                    + "{{ x0 }}"
                )
        self.depth = save - 1
        return out + self.space()

    def template(self):
        self.depth, self.inside = 0, False
        return (
            "{%- set ns = namespace(v=0) %}{% macro m0(a, b='d') %}[{{ a }}{{ b }}]{% endmacro %}"
            + "".join(self.space() + self.statement() for _ in range(self.r.randint(1, 4)))
        )


def python(template):
    try:
        return (
            _compile_jinja_template(template).render(
                messages=[],
                tools=None,
                documents=None,
                add_generation_prompt=False,
                **copy.deepcopy(NAMES),
            ),
            None,
        )
    except RecursionError:
        raise
    except Exception as e:  # whatever Python says no with
        return None, f"{type(e).__name__}: {e}"


def drupe(driver, templates):
    records = [
        json.dumps({"template": t, "messages": [], "names": NAMES}).encode()
        for t in templates
    ]
    data = b"".join(struct.pack("=I", len(r)) + r for r in records)
    out, at = (
        subprocess.run(
            [driver, "-", "chat"], input=data, stdout=subprocess.PIPE, check=True
        ).stdout,
        0,
    )
    for _ in templates:
        status, n = struct.unpack_from("=II", out, at)
        yield status, out[at + 8 : at + 8 + n].decode()
        at += 8 + n


def main():
    warnings.simplefilter("ignore", SyntaxWarning)
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("driver")
    args.add_argument("--count", type=int, default=20000)
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--show", type=int, default=10)
    a = args.parse_args()
    templates = [Maker(a.seed * 1000003 + i).template() for i in range(a.count)]
    counts, refused, shown = (
        collections.Counter(),
        collections.Counter(),
        collections.Counter(),
    )
    for template, (status, text) in zip(templates, drupe(a.driver, templates)):
        want, error = python(template)
        if want is None:
            kind = (
                "both refuse"
                if status
                else "Python looks ahead" if "named '" in error else "only Python refuses"
            )
        elif status:
            kind = "only drupe refuses"
            refused[text.split(": ", 1)[-1][:60]] += 1
        else:
            kind = "same" if text == want else "different"
        counts[kind] += 1
        if (
            kind in ("different", "only Python refuses", "only drupe refuses")
            and shown[kind] < a.show
        ):
            shown[kind] += 1
            print(
                f"{kind}: {template!r}\n    Python {want!r} {error or ''}\n    drupe  {text!r}"
            )
    print(dict(counts))
    for text, n in refused.most_common(30):
        print(f"  {n} {text}")
    return counts["different"] > 0 or counts["only Python refuses"] > 0


if __name__ == "__main__":
    sys.exit(main())
