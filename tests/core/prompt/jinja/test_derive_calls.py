import pytest

from puna.prompt.jinja.template import ChatTemplate
from puna.prompt.layout import CallSyntax, JsonCall, TaggedCall


def derived(call, before="", after=""):
    calls = f"{{% if m.tool_calls %}}{before}{{% for c in m.tool_calls %}}{call}{{% endfor %}}{after}{{% endif %}}"
    return ChatTemplate(
        f"{{% for m in messages %}}<|{{{{ m.role }}}}|>{{{{ m.content }}}}{calls}<|end|>\n{{% endfor %}}"
    ).derived(tools=True)


def test_json_calls_have_the_members_that_the_template_writes():
    found = derived(
        '<call>\n{"tool": {{ c.function.name | tojson }}, "args": {{ c.function.arguments | tojson }}}\n</call>\n'
    )
    assert (found.call_syntax, found.json) == (CallSyntax.JSON, JsonCall(name="tool", arguments="args"))
    assert (found.call_start.strip(), found.call_end.strip(), found.section_start) == ("<call>", "</call>", "")


def test_a_json_array_of_calls_is_one_section():
    call = '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, "id": "{{ c.id }}"}'
    found = derived(call + "{% if not loop.last %}, {% endif %}", "[CALLS][", "]")
    assert (found.json, found.section_start) == (JsonCall(id="id", in_array=True), "[CALLS]")


def test_a_name_between_markers_with_json_arguments():
    found = derived("<call><fn={{ c.function.name }}>{{ c.function.arguments | tojson }}</fn></call>")
    assert found.call_syntax is CallSyntax.TAGGED_JSON
    assert (found.tagged.before_name, found.tagged.after_name, found.tagged.close) == ("<fn=", ">", "</fn>")


def test_every_argument_between_markers():
    pairs = "{% for k, v in c.function.arguments.items() %}<key>{{ k }}</key><value>{{ v }}</value>\n{% endfor %}"
    found = derived(f"<call>{{{{ c.function.name }}}}\n{pairs}</call>")
    assert (found.call_syntax, found.call_start, found.call_end) == (CallSyntax.TAGGED, "<call>", "</call>")
    assert found.tagged == TaggedCall(
        after_name="\n", before_key="<key>", after_key="</key>", before_value="<value>", after_value="</value>\n"
    )


@pytest.mark.parametrize("call", ["", "{{ c.id }}"])
def test_a_template_that_writes_no_names_implies_no_calls(call):
    assert derived(call).call_syntax is CallSyntax.NONE
