"""Format text: what the prompt format of GLM 4.7 and GLM-OCR prescribes word for word.

The models were trained on prompts with these words. `{signatures}` is filled in.
"""

from typing import Final

TOOLS: Final = """<|system|>
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{signatures}
</tools>

For each function call, output the function name and arguments within the following XML format:
<tool_call>{{function-name}}<arg_key>{{arg-key-1}}</arg_key><arg_value>{{arg-value-1}}</arg_value>\
<arg_key>{{arg-key-2}}</arg_key><arg_value>{{arg-value-2}}</arg_value>...</tool_call>"""
"""The list of tools with the instructions for calls."""
