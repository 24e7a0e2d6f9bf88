#!/usr/bin/env python3
"""Record or check the conformance cases against a running server.  Standard library only.

    conformance.py check  http://127.0.0.1:11434 [--only REGEX] [--show N] [--cases cases.py] [--golden golden.json]
    conformance.py record http://127.0.0.1:11434 [--cases …] [--golden …]      (the reference server's answers)

The server must start with an empty model store; the model files of models/ are uploaded as blobs first.
Each answer gets one of these marks, best first:
    exact       the same status, content type and bytes, volatile values (times, durations, ids, digests) aside
    equivalent  the same JSON values, other key order, escapes or number forms
    rechunked   the same once the streamed pieces are joined
    different   anything else
The last line counts them.  Exit status 0 only if every case is exact, equivalent or rechunked.
"""
import argparse
import base64
import hashlib
import http.client
import importlib.util
import json
import re
import struct
import sys
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).parent
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)"
KEPT_HEADERS = ("content-type", "allow", "location", "server", "vary")
CORS_HEADERS = ("access-control-allow-origin", "access-control-allow-methods", "access-control-allow-headers", "access-control-max-age")


def send(base, case, timeout=60):
    parts = urlsplit(base)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    body = case["raw"] if "raw" in case else json.dumps(case["body"]) if "body" in case else None
    headers = {"Content-Type": "application/json"} if body is not None else {}
    headers.update(case.get("headers", {}))
    connection.putrequest(case["method"], case["path"], skip_host="Host" in headers, skip_accept_encoding=True)
    data = body.encode() if isinstance(body, str) else body
    if data is not None:
        headers["Content-Length"] = str(len(data))
    for key, value in headers.items():
        connection.putheader(key, value)
    connection.endheaders(data)
    response = connection.getresponse()
    text = response.read().decode("utf-8", "surrogateescape")
    kept = {k: v for k, v in ((k.lower(), v) for k, v in response.getheaders())
            if k in KEPT_HEADERS or (case.get("cors") and k in CORS_HEADERS)}
    connection.close()
    return {"status": response.status, "headers": kept, "body": text}


def scrub(text, case):
    """Replace what differs from run to run by a mark; a value of the wrong form stays and so shows up."""
    text = re.sub(rf'"(created_at|modified_at|expires_at)":"{TIME}"', r'"\1":"TIME"', text)
    text = re.sub(r'"(\w*_duration)":\d+', r'"\1":0', text)
    if case["path"] == "/api/ps":  # memory, which is the engine's own
        text = re.sub(r'"(size|size_vram)":\d+', r'"\1":0', text)
    text = re.sub(r"sha256[:-][0-9a-f]{12,64}", "sha256:DIGEST", text)
    text = re.sub(r'"digest":"[0-9a-f]{64}"', '"digest":"DIGEST"', text)
    text = re.sub(r"open /[^\s\"]*/(blobs|manifests)/", r"open /STORE/\1/", text)
    text = re.sub(r"FROM /[^\s\"\\]*/blobs/", "FROM /STORE/blobs/", text)
    text = re.sub(r'(?<=:)"(chatcmpl-|cmpl-|call_|msg_|resp_|fc_|rs_|toolu_|req_)[A-Za-z0-9_]+"', r'"\1ID"', text)
    text = text.replace('"quantization_level":"unknown"', '"quantization_level":"F32"')  # of an F32 file: a defect not to copy
    # lists whose order the reference leaves to chance: models of the same second, parameters
    text = re.sub(r'"parameters":"((?:[^"\\]|\\.)*)"', lambda m: '"parameters":"' + "\\n".join(sorted(m[1].split("\\n"))) + '"', text)
    text = re.sub(r"((?:PARAMETER [^\n]*?\\n)+)", lambda m: "\\n".join(sorted(m[1].split("\\n"))), text)
    if case["path"] in ("/api/tags", "/v1/models") and text.startswith("{"):
        try:
            value = json.loads(text)
        except ValueError:
            return text
        for items in value.values():
            if isinstance(items, list):
                items.sort(key=lambda i: i.get("name") or i.get("id") or "")
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False) + ("\n" if text.endswith("\n") else "")
    text = re.sub(r'"id":"[A-Za-z0-9]{32}"', '"id":"call_ID"', text)  # of a tool call parsed by the engine
    for key in case.get("volatile", []):
        text = re.sub(rf'"{key}":("(?:[^"\\]|\\.)*"|-?[\d.e+]+)', lambda m, k=key: f'"{k}":' + ('"*"' if m[1][0] == '"' else "0"), text)
    return text


def parse(text):
    """The JSON values of an answer: of an object, of NDJSON lines or of an event stream; None if it is not JSON."""
    values = []
    for line in text.splitlines():
        line = line.strip()
        if not line:
            continue
        if line.startswith("event:"):
            values.append(line)
            continue
        line = line.removeprefix("data:").strip()
        try:
            values.append(json.loads(line) if line != "[DONE]" else line)
        except ValueError:
            return None
    return values


def same(a, b, approx):
    if isinstance(a, bool) or isinstance(b, bool) or a is None or b is None:
        return a is b
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return abs(a - b) <= 5e-4 + 1e-4 * abs(a) if approx else a == b
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k], approx) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y, approx) for x, y in zip(a, b))
    if a != b and approx and isinstance(a, str) and (x := floats(a)) and (y := floats(b)):
        return same(x, y, approx)
    if a != b and isinstance(a, str) and a[:1] == b[:1] == "{":  # arguments as text: the reference shuffles their keys
        try:
            return same(json.loads(a), json.loads(b), approx)
        except ValueError:
            return False
    return a == b


def floats(text):
    """The little-endian float32 values of a base64 text; None if it is none."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return list(struct.unpack(f"<{len(data) // 4}f", data)) if data and len(data) % 4 == 0 else None


def framed(text, content_type):
    """Whether the lines of a stream end as they must: a client's reader depends on it."""
    if content_type.startswith("text/event-stream"):
        return re.fullmatch(r"((event: [\w.]+\n)?data: [^\n]+\n\n)*", text) is not None
    if content_type.startswith("application/x-ndjson"):
        return re.fullmatch(r"([^\n]+\n)*", text) is not None
    return True


def digits(text):
    return max((len(m.replace(".", "").lstrip("0")) for m in re.findall(r"\d+\.\d+", text)), default=0)


TEXT = ("response", "content", "thinking", "text", "reasoning", "delta", "partial_json", "arguments")


def join(values):
    """Join the text of consecutive streamed pieces that say nothing else that differs."""
    out = []
    for value in values:
        texts, rest = [], json.loads(json.dumps(value))

        def take(node, path=()):
            if isinstance(node, dict):
                for k in list(node):
                    if k in TEXT and isinstance(node[k], str):
                        texts.append((path + (k,), node[k]))
                        node[k] = ""
                    else:
                        take(node[k], path + (k,))
            elif isinstance(node, list):
                for i, item in enumerate(node):
                    take(item, path + (i,))

        take(rest)
        if out and out[-1][0] == rest:
            for path, text in texts:
                out[-1][1][path] = out[-1][1].get(path, "") + text
        else:
            out.append((rest, dict(texts)))
    return out


def mark(case, want, got):
    if want["status"] != got["status"] or want["headers"] != got["headers"]:
        return "different"
    a, b = scrub(want["body"], case), scrub(got["body"], case)
    if a == b:
        return "exact"
    va, vb = parse(a), parse(b)
    kind = want["headers"].get("content-type", "")
    if va is None or vb is None or framed(a, kind) != framed(b, kind) or a.endswith("\n") != b.endswith("\n"):
        return "different"
    approx = case.get("approx", False)
    if same(va, vb, approx):
        number = r"-?\d+(\.\d+)?(e[-+]?\d+)?"
        as_text = r'"embedding":"[A-Za-z0-9+/=]+"'
        alike = [re.sub(number, "#", re.sub(as_text, "#", t)) for t in (a, b)]
        return "exact" if approx and alike[0] == alike[1] and digits(b) <= digits(a) + 1 else "equivalent"
    if same([list(map(str, (r, sorted(map(str, t.items()))))) for r, t in join(va)], [list(map(str, (r, sorted(map(str, t.items()))))) for r, t in join(vb)], approx):
        return "rechunked"
    return "different"


def load_cases(path, digests):
    spec = importlib.util.spec_from_file_location("cases", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.cases(digests)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=("record", "check"))
    p.add_argument("base")
    p.add_argument("--cases", type=Path, default=HERE / "cases.py")
    p.add_argument("--golden", type=Path, default=HERE / "golden.json")
    p.add_argument("--models", type=Path, default=HERE.parent / "models")
    p.add_argument("--only", default="")
    p.add_argument("--show", type=int, default=5, help="how many differing answers to print")
    args = p.parse_args()
    digests = {}
    for file in sorted(args.models.glob("*.gguf")):
        data = file.read_bytes()
        digests[file.name] = "sha256:" + hashlib.sha256(data).hexdigest()
        answer = send(args.base, dict(method="POST", path="/api/blobs/" + digests[file.name], raw=data))
        if answer["status"] not in (200, 201):
            sys.exit(f"uploading {file.name}: {answer}")
    cases = load_cases(args.cases, digests)
    assert len({c["id"] for c in cases}) == len(cases), "ids repeat"
    golden = {} if args.what == "record" else json.loads(args.golden.read_text())
    marks = {}
    for case in cases:
        needed = case["id"].startswith(("create-", "blob-", "copy", "delete"))
        if args.only and not needed and not re.search(args.only, case["id"]):
            continue
        try:
            answer = send(args.base, case)
        except Exception as e:
            answer = {"status": 0, "headers": {}, "body": f"{type(e).__name__}: {e}"}
        if args.what == "record":
            golden[case["id"]] = answer
            continue
        if case["id"] not in golden:
            continue
        marks[case["id"]] = m = mark(case, golden[case["id"]], answer)
        if m == "different" and args.show > 0:
            args.show -= 1
            print(f"--- {case['id']}: {case['method']} {case['path']} {json.dumps(case.get('body', case.get('raw')))[:400]}")
            for name, a in (("want", golden[case["id"]]), ("got ", answer)):
                print(name, a["status"], a["headers"], scrub(a["body"], case)[:1500])
    if args.what == "record":
        args.golden.write_text(json.dumps(golden, indent=1, ensure_ascii=True) + "\n")
        print(f"recorded {len(golden)} answers")
        return
    bad = [k for k, v in marks.items() if v == "different"]
    if bad:
        print("different:", " ".join(bad))
    counts = {m: sum(v == m for v in marks.values()) for m in ("exact", "equivalent", "rechunked", "different")}
    print(f"{len(marks)} cases:", ", ".join(f"{n} {m}" for m, n in counts.items()))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
