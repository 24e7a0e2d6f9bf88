"""Format text: what the prompt format of Glimmer prescribes word for word.

The models were trained on prompts with these words. `{today}`, `{spaces}` and `{functions}` are filled in.
"""

from typing import Final

DEFAULT_SYSTEM: Final = "You are a helpful AI assistant.\nKnowledge cutoff: 2026-01-04.\nCurrent date: {today}."
"""The system message of a conversation without one."""
TOOLS: Final = """In this environment you have access to a set of tools you can use to answer the user's question.

You can invoke a function by writing a "<atem:function_calls>" block like the following:
<atem:function_calls>
<atem:invoke name="$FUNCTION_NAME">
<atem:parameter name="$PARAMETER_NAME">$PARAMETER_VALUE</atem:parameter>
...
</atem:invoke>
</atem:function_calls>

String and scalar parameters should be specified as is, while lists and objects should use JSON format. Note that \
spaces for string values are not stripped. The output is not expected to be valid XML and is parsed with regular \
expressions.
Here are the functions available in JSONSchema format:
// Tool metadata
{spaces}
// Function schemas
{functions}

Here's an example of how to call a function in the tool set:
(If the tool namespace is not specified, invoke the function directly as `example_function_name` rather than \
`example_tool_name.example_function_name`)

to=example_tool_name.example_function_name

<atem:function_calls>
<atem:invoke name="example_tool_name.example_function_name">
<atem:parameter name="example_parameter_1">value_1</atem:parameter>
<atem:parameter name="example_parameter_2">This is the value for the second parameter
that can span
"multiple" lines
</atem:parameter>
</atem:invoke>
</atem:function_calls>

"""
"""The list of tools with the instructions for calls."""
