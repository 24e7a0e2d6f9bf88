from puna.backend import ChatInput, ChatMessage, SequenceRequest
from puna.runtime.prompt_memory import BLOCK_CHARACTERS, BLOCK_TOKENS, PromptMemory, blocks_of


def blocks(prompt, **more):
    return blocks_of(SequenceRequest(prompt=prompt, **more))


def text(*letters):
    return "".join(each * BLOCK_CHARACTERS for each in letters)


def test_prompts_share_the_blocks_that_they_begin_with():
    one, other = blocks(text("a", "b", "c") + "rest"), blocks(text("a", "b", "d"))
    assert len(one) == 3
    assert one[:2] == other[:2]
    assert one[2] != other[2]
    assert not set(one) & set(blocks(text("b", "c")))


def test_salts_images_and_token_ids_keep_prompts_apart():
    plain = blocks(text("a"))
    assert blocks(text("a"), cache_salt="s") != plain
    assert blocks(text("a"), media=(b"one",)) != plain
    assert blocks(text("a"), media=(b"one", b"two")) == blocks(text("a"), media=(b"one",))
    assert len(blocks((7,) * (2 * BLOCK_TOKENS + 1))) == 2


def test_a_conversation_counts_with_its_messages():
    def chat(*texts):
        messages = tuple(ChatMessage(role="user", content=each) for each in texts)
        return blocks("", chat=ChatInput(messages=messages))

    assert chat(text("a"), text("b"))[0] == chat(text("a"), text("c"))[0]
    assert chat(text("a")) != chat(text("b"))


def test_a_match_is_the_longest_beginning_that_is_remembered():
    memory = PromptMemory(10)
    memory.use(blocks(text("a", "b", "c")))
    assert memory.match(blocks(text("a", "b", "c", "d"))) == 3
    assert memory.match(blocks(text("a", "b", "x", "c"))) == 2
    assert memory.match(blocks(text("x", "b"))) == 0
    assert memory.match(blocks("")) == 0


def test_the_ends_of_the_oldest_prompts_are_forgotten_first():
    memory = PromptMemory(4)
    memory.use(blocks(text("a", "b", "c")))
    memory.use(blocks(text("x", "y")))
    assert len(memory) == 4
    assert memory.match(blocks(text("a", "b", "c"))) == 2
    assert memory.match(blocks(text("x", "y"))) == 2
    memory.use(blocks(text(*"klmnop")))
    assert memory.match(blocks(text(*"klmnop"))) == 4
    assert len(memory) == 4
