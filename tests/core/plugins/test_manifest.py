import os

import pytest

from puna.plugins import Capabilities, Host, ManifestError, read
from puna.plugins.manifest import MAX_BYTES, Check

FULL = """
contract = 1
name = "echo"
description = "Repeats the prompt."
formats = ["gguf", "safetensors"]
preference = -3
requires = ["llama_cpp"]
install = "make"
quantizer = "puna_echo.quantize"

[host]
command = ["./echo-host", "--fast"]
shared = true
environment = ["OPENAI_API_KEY"]
memory = false

[options]
required = ["mode"]
[options.properties.kernels]
type = "boolean"
description = "Own kernels."
[options.properties.mode]
enum = ["a", "b"]
type = "string"
x-scope = "request"
[options.properties.key]
type = "string"
x-scope = "model"
x-secret = true

[capabilities]
chat = true
tokenizer = false
tools = true
constraints = ["regex"]
sampling = ["seed"]

[check]
model = "small.model"
prompt = "Hi"
context_length = 64
"""
LEAST = 'contract = 1\nname = "a"\nformats = []\n'


@pytest.fixture
def reading(tmp_path):
    def reading(content, **arguments):
        path = tmp_path / "backend.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read(path, **arguments)

    return reading


def test_every_field_is_read(reading, tmp_path):
    manifest = reading(FULL)
    assert (manifest.name, manifest.description, manifest.formats) == (
        "echo",
        "Repeats the prompt.",
        ("gguf", "safetensors"),
    )
    assert (manifest.preference, manifest.requires, manifest.install) == (-3, ("llama_cpp",), "make")
    assert (manifest.quantizer, manifest.path) == ("puna_echo.quantize", tmp_path / "backend.toml")
    assert manifest.host == Host(
        command=("./echo-host", "--fast"), shared=True, environment=("OPENAI_API_KEY",), memory=False
    )
    assert manifest.capabilities == Capabilities(
        chat=True, tokenizer=False, tools=True, constraints=("regex",), sampling=("seed",)
    )
    assert manifest.check == Check(model="small.model", prompt="Hi", context_length=64)
    assert manifest.required_options == ("mode",)
    scopes = {name: (each.scope, each.has_secrets) for name, each in manifest.options.items()}
    assert scopes == {"kernels": ("operator", False), "mode": ("request", False), "key": ("model", True)}


def test_the_least_manifest_leaves_the_class_to_the_entry_point(reading):
    manifest = reading(LEAST, python_class="puna_a:Backend")
    assert manifest.host == Host(python_class="puna_a:Backend")
    assert manifest.capabilities == Capabilities()
    with pytest.raises(ManifestError, match="host: needs a class or a command"):
        reading(LEAST)


def test_a_class_in_the_manifest_wins(reading):
    manifest = reading(f'{LEAST}host.class = "puna_b:B"', python_class="puna_a:A")
    assert manifest.host.python_class == "puna_b:B"


@pytest.mark.parametrize("field", ["contract", "name", "formats"])
def test_what_is_missing_is_named(reading, field):
    lines = [line for line in LEAST.splitlines() if not line.startswith(field)]
    with pytest.raises(ManifestError, match=rf"backend\.toml: {field}: is missing$"):
        reading("\n".join(lines))


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ("naem = 1", "naem: a manifest has no such field here (known: capabilities, "),
        ("host.class = 1", "host.class: must be a text"),
        ('host.class = "a b:c"', 'host.class: must be a class in the form "module:Class"'),
        ('host.class = "a"', 'host.class: must be a class in the form "module:Class"'),
        ('host = {class = "a:b", command = ["c"]}', "host: has either a class or a command, not both"),
        ("host.command = []", "host.command: must name a program"),
        ("host.command = ['']", "host.command: must name a program"),
        ('host.command = "rm -rf"', "host.command: must be a list of texts"),
        ("host.command = [1]", "host.command: must be a list of texts"),
        ("host.shared = 1", "host.shared: must be true or false"),
        ("host.environment = ['A=B']", "host.environment: must be names of environment variables"),
        ("host.threads = 1", "host.threads: a manifest has no such field here"),
        ("host = []", "host: must be a table"),
        ('preference = "high"', "preference: must be a whole number"),
        ("preference = true", "preference: must be a whole number"),
        ("preference = 3.5", "preference: must be a whole number"),
        ("preference = 99999999999", "preference: must be a whole number"),
        ("requires = ['a.b']", "requires: must be names of top-level Python modules"),
        ("quantizer = 'a; rm'", "quantizer: must be the name of a Python module"),
        ('description = "\\u001b[31m"', "description: must have at most 1000 characters, all printable"),
        ('install = "a\\nb"', "install: must have at most 1000 characters, all printable"),
        (f'description = "{"a" * 1001}"', "description: must have at most 1000 characters, all printable"),
        ("capabilities.tools = true", "capabilities.tools: belongs to the chat level"),
        ("capabilities.thinking = true", "capabilities.thinking: belongs to the chat level"),
        ("capabilities.vision = 1", "capabilities.vision: must be true or false"),
        ("capabilities.sight = true", "capabilities.sight: a manifest has no such field here"),
        ("capabilities.constraints = ['xml']", "capabilities.constraints: 'xml' is not one of json_schema, gbnf"),
        ("check.model = 1", "check.model: must be a text"),
        ("check.modell = 'a'", "check.modell: a manifest has no such field here"),
        ("capabilities.sampling = ['luck']", "capabilities.sampling: 'luck' is not one of temperature"),
        ("options.properties.a.type = 'text'", "options.properties.a.type: must be one of boolean, integer"),
        ("options.properties.a.minimun = 1", "options.properties.a.minimun: is not a keyword that options may use"),
        ("options.properties.a.minimum = nan", "options.properties.a.minimum: must be a finite number"),
        ("options.properties.a.enum = []", "options.properties.a.enum: must be a list of values"),
        ("options.properties.a.pattern = '('", "options.properties.a.pattern: must be a regular expression"),
        ("options.properties.a.multipleOf = 0", "options.properties.a.multipleOf: must be a number above 0"),
        ("options.properties.a.'$ref' = 'file:///etc/passwd'", "options.properties.a.$ref: is not a keyword"),
        ("options.properties.a.items.type = 1", "options.properties.a.items.type: must be one of"),
        ("options.properties.a.anyOf = [{typo = 1}]", "options.properties.a.anyOf[0].typo: is not a keyword"),
        ("options.properties.a = 1", "options.properties.a: must be a table"),
        ("options.properties.'a b' = {}", "options.properties.a b.name: must be at most 64 characters"),
        ("options.properties.a.x-scope = 'client'", "options.properties.a.x-scope: must be one of operator, model"),
        ("options.properties.a.x-secret = 1", "options.properties.a.x-secret: must be true or false"),
        ("options.properties.a = {x-secret = true}", 'options.properties.a: a secret has the type "string"'),
        (
            "options.properties.a.items = {x-secret = true}",
            'options.properties.a.items: a secret has the type "string"',
        ),
        (
            "options.properties.a.anyOf = [{type = 'string', x-secret = true}]",
            "options.properties.a.anyOf[0]: a secret must lie in properties, additionalProperties or items",
        ),
        ("options.required = ['z']", "options.required: 'z' is not declared"),
        ("options.additionalProperties = true", "options.additionalProperties: must be false"),
        ("options.type = 'array'", 'options.type: must be "object"'),
        ("options.oneOf = []", "options.oneOf: a manifest has no such field here"),
    ],
)
def test_a_wrong_field_is_named_with_what_it_must_be(reading, more, text, tmp_path):
    with pytest.raises(ManifestError) as caught:
        reading(LEAST + more, python_class="a:b")
    assert str(caught.value).startswith(f"{tmp_path / 'backend.toml'}: {text}")


@pytest.mark.parametrize("name", ["", "A", "a b", "a/b", "../a", "ä", "a" * 65, "a\\u0000", "a\\n"])
def test_a_name_has_few_characters(reading, name):
    with pytest.raises(ManifestError, match="name: must "):
        reading(LEAST.replace('"a"', f'"{name}"'), python_class="a:b")


@pytest.mark.parametrize("formats", ["None", '"gguf"', '["GGUF"]', "[1]", "1", "{}", '["a b"]'])
def test_formats_are_a_list_of_names(reading, formats):
    with pytest.raises(ManifestError, match=r"formats: must be|it is not TOML"):
        reading(LEAST.replace("[]", formats), python_class="a:b")


@pytest.mark.parametrize(
    ("schema", "fine"),
    [
        ('{type = "boolean"}', True),
        ('{type = "integer", minimum = 0, maximum = 3}', True),
        ('{type = "string", enum = ["a"]}', True),
        ('{type = "string"}', False),
        ('{type = "string", maxLength = 9}', False),
        ('{type = "integer"}', False),
        ('{type = "integer", minimum = 0}', False),
        ('{type = "number", maximum = 1}', False),
        ('{type = "number", minimum = 0, exclusiveMaximum = 1}', False),
        ("{}", False),
        ('{anyOf = [{type = "boolean"}]}', False),
        ('{type = ["boolean", "string"]}', False),
        ('{type = "array", items = {type = "boolean"}}', False),
    ],
)
def test_an_option_without_bounds_is_never_one_for_requests(reading, schema, fine):
    def declared(scope):
        closed = schema.removesuffix("}").rstrip() + (", " if schema != "{}" else "") + f'x-scope = "{scope}"}}'
        return reading(f"{LEAST}options.properties.x = {closed}", python_class="a:b").options["x"]

    assert declared("operator").scope == "operator"
    if fine:
        assert declared("request").scope == "request"
        return
    with pytest.raises(ManifestError, match=r"options\.properties\.x: must be bounded, since a request may set it"):
        declared("request")


@pytest.mark.parametrize("scope", ["operator", "model"])
def test_a_secret_is_never_named_by_a_request(reading, scope):
    secret = '{{type = "string", x-secret = true, x-scope = "{}"}}'
    assert reading(f"{LEAST}options.properties.x = {secret.format(scope)}", python_class="a:b").options["x"].has_secrets
    with pytest.raises(ManifestError, match=r"options\.properties\.x: a secret is set by the operator or a model"):
        reading(f"{LEAST}options.properties.x = {secret.format('request')}", python_class="a:b")


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (2, "needs version 2 of the backend contract, and this Puna speaks version 1: a newer Puna is needed"),
        (0, "needs version 0 .* a newer version of the plugin is needed"),
    ],
)
def test_another_version_of_the_contract_is_refused_in_words(reading, version, words):
    # Also when fields follow that this version does not know.
    with pytest.raises(ManifestError, match=words):
        reading(f'contract = {version}\nname = "a"\nfuture = 1\n')


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x7fELF\x00\xff\xfe", "it is not UTF-8"),
        (b"a" * (MAX_BYTES + 1), f"it has more than {MAX_BYTES} bytes"),
        (b"name = ", "it is not TOML"),
        (b"a = " + b"[" * 20000 + b"]" * 20000, "it is not TOML"),
        (b"", "contract: is missing"),
        (b"contract = 1\nname = 'a'\nformats = [" + b"'a'," * 300 + b"]", "formats: has more than 200 entries"),
        (LEAST.encode() + b"".join(b"x%d = 1\n" % n for n in range(300)), "the file: has more than 200 entries"),
        (
            LEAST.encode() + b"options.properties.a" + b".items" * 20 + b".type = 'string'",
            "has more than 8 levels",
        ),
    ],
)
def test_what_is_no_manifest_is_refused(reading, content, words):
    with pytest.raises(ManifestError, match=words):
        reading(content)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, words in (("pipe", "it is not a file"), ("none", "No such file"), (".", "Is a directory|not a file")):
        with pytest.raises(ManifestError, match=words):
            read(tmp_path / path)


def test_an_error_shows_a_long_or_strange_key_briefly(reading):
    with pytest.raises(ManifestError) as caught:
        reading(f'{LEAST}"\\u001b[31m{"x" * 5000}" = 1', python_class="a:b")
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 500
