"""Renders random Go templates over random conversations on two servers and shows where they differ.

    compare_templates.py http://127.0.0.1:11500 http://127.0.0.1:11434 --count 2000 --seed 1
    compare_templates.py http://127.0.0.1:11500 --count 150 --record tests/core/prompt/rendered.json

With one server it only records new cases; tools/record renews the answers of recorded ones. Nothing is generated:
`_debug_render_only` asks for the prompt alone.
"""

import argparse
import hashlib
import json
import random
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

MODEL = Path(__file__).parents[1] / "tests/models/scripted.gguf"
NAME = "compare-templates"
# Characters that Go's escapers, its quoting and its lengths in bytes treat in a special way.
TEXTS = ["hi", "<b>&'q'", "é😀", " two\nlines ", "", '{"a":1}', "x y", "\u2028end", "tab\t"]
# By the kind of the dot: fields that it has, some that it has not, and some of the root.
FIELDS = {
    "root": ".Messages .Tools .System .Response .Prompt .Think .ThinkLevel .IsThinkSet .Nope $.Tools $.System $ .",
    "turns": ".System .Prompt .Response .Think .Nope $.Response .Nope.x (.Response)",
    "message": ".Role .Content .Thinking .ToolCalls .ToolName .ToolCallID .Images .Nope . $.System $.Tools",
    "call": ".ID .Function .Function.Name .Function.Arguments .Function.Index .Function.Arguments.a .",
    "tool": ".Type .Function .Function.Name .Function.Description .Function.Parameters .Items . $.Messages "
    ".Function.Parameters.Properties .Function.Parameters.Required",
    "property": ".Type .Description .Enum .Items .Required .AnyOf .Properties . $.System",
    "any": ". .a .z $.System",
}
LITERALS = ['"a"', '""', "1", "0", "2.5", "true", "false", "nil", '"user"', '"assistant"', "`raw`", "'c'", "1e3"]
# By the kind of the dot: the lists to loop over, and the kind of their elements. Repeated entries are drawn more often.
LOOPS = {
    "root": [(".Messages", "message")] * 3 + [(".Tools", "tool"), ("3", "any"), ("slice .Messages 1", "message")],
    "turns": [("2", "any"), (".System", "any")],
    "message": [(".ToolCalls", "call")] * 2 + [("$.Tools", "tool"), ("$.Messages", "message"), (".Images", "any")],
    "call": [(".Function.Arguments", "any"), ("$.Tools", "tool")],
    "tool": [(".Function.Parameters.Properties", "property"), (".Function.Parameters.Required", "any")],
    "property": [(".Enum", "any"), (".Required", "any"), (".Type", "any"), (".AnyOf", "property")],
    "any": [(".", "any"), ("$.Messages", "message")],
}
PIPED = (
    'json len print,printf "%v|%s" 1,html not,eq "user",js,index .Messages,and true,or .Nope,toTypeScriptType,.Content'
)
FORMATS = ["%s", "%v", "%d", "%q", "%5v", "%-4s|", "%T", "%x", "%t", "%+v", "%%", "%s %s", "%.2f", "%03d", "%c", "no"]
THINKING = "{{ range .Messages }}{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ end }}{{ .ThinkLevel }}"


class Templates:
    """Makes random templates. Most are valid; in the others the error of text/template is compared."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def template(self) -> str:
        chance = self.chance
        kind = "turns" if chance.random() < 0.2 else "root"
        out = self.body(kind, [], 0, False)
        if kind == "root":
            out += THINKING if chance.random() < 0.3 else ""
            # Ollama finds a model's capabilities by the fields that its template mentions, and refuses tools without
            # .Tools.
            out += "{{ if .Tools }}{{ end }}" if chance.random() < 0.7 else ""
            # A template without .Messages is rendered turn by turn, which the kind `turns` covers.
            out += "" if ".Messages" in out else "{{ range .Messages }}{{ .Role }}{{ end }}"
        if "sub" in out:
            out = (
                chance.choice(['{{ define "sub" }}[{{ . }}]{{ end }}', '{{- define "sub" }}{{ len . }}{{ end -}}'])
                + out
            )
        # One template in twelve is damaged in one place, so that the errors of the parser are compared too.
        if chance.random() < 0.08:
            at = chance.randrange(len(out))
            out = out[:at] + chance.choice(["", "{{", "}}", "(", ")", "|", '"', "\n", ".", "$", "-"]) + out[at + 1 :]
        return out

    def body(self, kind: str, names: list[str], depth: int, loop: bool) -> str:
        out = self.text()
        for _ in range(self.chance.randint(1, 3)):
            out += self.node(kind, names, depth, loop) + self.text()
        return out

    def node(self, kind: str, names: list[str], depth: int, loop: bool) -> str:
        roll = self.chance.random()
        if roll < 0.45 or depth > 2:
            return self.action(self.pipe(kind, names))
        if roll < 0.6:
            out = self.action("if " + self.pipe(kind, names)) + self.body(kind, names, depth + 1, loop)
            if self.chance.random() < 0.4:
                out += self.action("else") + self.body(kind, names, depth + 1, loop)
            return out + self.action("end")
        if roll < 0.85:
            over, inner = self.chance.choice(LOOPS[kind])
            names_ = self.chance.choice([[], ["$e"], ["$i", "$e"]])
            head = f"range {', '.join(names_)} := {over}" if names_ else f"range {over}"
            out = self.action(head) + self.body(inner, names + names_, depth + 1, True)
            if self.chance.random() < 0.2:
                out += self.action("else") + self.body(kind, names, depth + 1, loop)
            return out + self.action("end")
        if roll < 0.9:
            return (
                self.action("with " + self.pipe(kind, names)) + self.body("any", names, depth + 1, loop) + "{{ end }}"
            )
        if roll < 0.95:
            # Mostly a declaration. An assignment to an undeclared variable would be an error in every other template.
            known = "$x" in names
            names.append("$x")
            return self.action(
                f"$x {'' if known and self.chance.random() < 0.6 else ':'}= {self.pipe(kind, names[:-1])}"
            )
        if roll < 0.97 and loop:
            return self.action(self.chance.choice(["break", "continue"]))
        return self.chance.choice(["{{- /* c */ -}}", f'{{{{ template "sub" {self.pipe(kind, names)} }}}}'])

    def action(self, inside: str) -> str:
        return self.chance.choice(["{{", "{{ ", "{{- "]) + inside + self.chance.choice(["}}", " }}", " -}}"])

    def text(self) -> str:
        return self.chance.choice(["a", "<|im_start|>", " \n", "\n\n", "é", "[", ": ", "", " x "])

    def pipe(self, kind: str, names: list[str], depth: int = 0) -> str:
        out = self.expression(kind, names, depth)
        while self.chance.random() < 0.07:
            out += " | " + self.chance.choice(
                PIPED.replace(" print", ",print").replace("json len", "json,len").split(",")
            )
        return out

    def expression(self, kind: str, names: list[str], depth: int) -> str:
        chance = self.chance
        if depth > 2 or chance.random() < 0.7:
            return self.atom(kind, names)
        one, two = (self.argument(kind, names, depth + 1) for _ in range(2))
        return chance.choice(
            [
                f"{chance.choice(['eq', 'ne', 'lt', 'le', 'gt', 'ge', 'and', 'or'])} {one} {two}",
                f"{chance.choice(['not', 'len', 'json', 'call', 'toTypeScriptType'])} {one}",
                f"index {one} {chance.choice(['0', '1', '-1', two])}",
                f"slice {one} {chance.choice(['', '0', '1', '0 1', '1 2', '2 1', '1 1 1'])}",
                f"{chance.choice(['print', 'println', 'html', 'js', 'urlquery', 'json'])} {one} {two}",
                f'printf "{chance.choice(FORMATS)}" {one}',
            ]
        )

    def argument(self, kind: str, names: list[str], depth: int) -> str:
        if self.chance.random() < 0.25:
            return f"({self.pipe(kind, names, depth)})" + self.chance.choice(["", "", "", ".Role", ".a"])
        return self.atom(kind, names)

    def atom(self, kind: str, names: list[str]) -> str:
        roll = self.chance.random()
        if names and roll < 0.2:
            return self.chance.choice(names) + self.chance.choice(["", "", ".Role", ".Content", ".a"])
        return self.chance.choice(FIELDS[kind].split() if roll < 0.8 else LITERALS)


class Conversations:
    """Makes random messages and tools, with arbitrary JSON where the API allows it."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def value(self, depth: int = 0) -> Any:  # noqa: ANN401
        roll = self.chance.random()
        if roll < 0.6 or depth > 2:
            return self.chance.choice([*TEXTS, 0, 1, -1, 2.5, 1e6, 1e21, 1e-7, 123456789, 3.0, True, False, None])
        if roll < 0.8:
            return [self.value(depth + 1) for _ in range(self.chance.randint(0, 3))]
        return {key: self.value(depth + 1) for key in self.some(["z", "a", "key 1"])}

    def some(self, of: list[str]) -> list[str]:
        return self.chance.sample(of, self.chance.randint(0, len(of)))

    def message(self) -> dict[str, Any]:
        chance = self.chance
        out: dict[str, Any] = {
            "role": chance.choice(["system", "user", "assistant", "user", "assistant", "tool", "other"])
        }
        out["content"] = chance.choice(TEXTS)
        if chance.random() < 0.2:
            out["thinking"] = chance.choice(TEXTS)
        if chance.random() < 0.3:
            functions = [
                {"name": "f", "arguments": {k: self.value() for k in self.some(["z", "a", "b c"])}},
                {"name": "g"},
            ]
            out["tool_calls"] = [{"id": "c1", "function": each} for each in functions[: chance.randint(0, 2)]]
        if out["role"] == "tool":
            out |= {"tool_name": "f", "tool_call_id": chance.choice(["", "c1"])}
        return out

    def tool(self) -> dict[str, Any]:
        function: dict[str, Any] = {"name": self.chance.choice(["get_weather", "f", ""])}
        if self.chance.random() < 0.7:
            function["description"] = self.chance.choice(TEXTS)
        if self.chance.random() < 0.9:
            properties = {key: self.property() for key in self.some(["z", "a", "city"])}
            function["parameters"] = {"type": "object", "properties": properties, "required": self.some(["z", "a"])}
            function["parameters"] |= {"$defs": self.value()} if self.chance.random() < 0.1 else {}
        return {"type": "function", "function": function}

    def property(self, depth: int = 0) -> dict[str, Any]:
        types = ["string", "integer", "boolean", "array", "object", "weird", ["string", "null"], ["integer"], []]
        out: dict[str, Any] = {"type": self.chance.choice(types)}
        nested = [self.property(depth + 1)] if depth < 2 else []
        extra = {
            "description": self.chance.choice(TEXTS),
            "enum": [self.value(2)],
            "items": self.value(1),
            "default": 1,
            "anyOf": nested,
            "properties": dict.fromkeys(["z", "a"], nested[0]) if nested else {},
            "required": ["z"],
        }
        return out | {key: value for key, value in extra.items() if self.chance.random() < 0.2}


class Server:
    """An Ollama-compatible server that renders templates."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        data = MODEL.read_bytes()
        self.digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        # The file is sent only to a server that does not have it yet.
        if self.call("HEAD", f"/api/blobs/{self.digest}")[0] != 200:
            self.call("POST", f"/api/blobs/{self.digest}", data)

    def call(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, _json(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _json(error.read())

    def create(self, template: str) -> str:
        body = {"model": NAME, "files": {"m.gguf": self.digest}, "template": template, "stream": False}
        return str(self.call("POST", "/api/create", body)[1].get("error", ""))

    def capabilities(self) -> list[str]:
        return list(self.call("POST", "/api/show", {"model": NAME})[1].get("capabilities", ()))

    def render(self, request: dict[str, Any]) -> dict[str, str]:
        body = {"model": NAME, "stream": False, "_debug_render_only": True, **request}
        answer = self.call("POST", "/api/chat", body)[1]
        if "_debug_info" in answer:
            return {"text": _stable(answer["_debug_info"].get("rendered_template", ""))}
        return {"error": _stable(str(answer.get("error", "")))}


def _json(data: bytes) -> dict[str, Any]:
    value = json.loads(data) if data.startswith(b"{") else {}
    return value if isinstance(value, dict) else {}


def _stable(text: str) -> str:
    # Go prints the addresses of pointers, which differ from run to run.
    return re.sub("0x[0-9a-f]{6,}", "0xc000000000", text)


def main() -> int:
    """Compare or record; the exit status is 1 if the servers differ."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("servers", nargs="+")
    options.add_argument("--count", type=int, default=200)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--record", type=Path)
    given = options.parse_args()
    chance = random.Random(given.seed)
    templates, conversations = Templates(chance), Conversations(chance)
    servers = [Server(url) for url in given.servers]
    cases: list[dict[str, Any]] = []
    differing = 0
    while len(cases) < given.count:
        template = templates.template()
        case: dict[str, Any] = {"template": template}
        # The first server decides whether a template is valid, so a difference there is found as well.
        results = [{"error": text} if (text := server.create(template)) else {} for server in servers]
        if not results[0]:
            # Requests that use what a model cannot do are refused before the template is rendered.
            abilities = servers[0].capabilities()
            case["messages"] = [conversations.message() for _ in range(chance.randint(1, 5))]
            if "tools" in abilities and chance.random() < 0.7:
                case["tools"] = [conversations.tool() for _ in range(chance.randint(1, 2))]
            if "thinking" in abilities:
                case["think"] = chance.choice([True, False, "low", "high"])
            request = {key: value for key, value in case.items() if key != "template"}
            results = [server.render(request) for server in servers]
        cases.append({**case, **results[0]})
        if any(result != results[0] for result in results):
            differing += 1
            print(json.dumps({**case, "results": results}, ensure_ascii=False))
    if given.record:
        lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
        given.record.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"{len(cases)} cases, {differing} differ", file=sys.stderr)
    return min(differing, 1)


if __name__ == "__main__":
    sys.exit(main())
