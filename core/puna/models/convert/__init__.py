"""Converting safetensors to GGUF, in a process of its own.

`conversion` runs in the server and starts the process; the rest runs there, with numpy and gguf. A conversion passes
these steps:

1. `folder` restores the names of the uploaded files as links and reads their JSON. `safetensors` maps the weights.
2. `families` chooses a family by config.json. The family says which keys it writes, which GGUF name each tensor gets,
   which shapes are expected, and how values are reordered.
3. `plan` matches the tensors of the folder with the names and shapes. An unknown, missing or wrong tensor ends the
   conversion with its name. No value has been read so far.
4. `vocabulary` reads the tokenizer and the chat templates.
5. `output` writes the keys and then one tensor after the other, so that no more than one tensor is in memory.
"""
