"""Prompts and the prefix cache of a replica."""

from tools.simulate.prompts import PrefixCache, Prompt


def test_equal_parts_are_equal_beginnings():
    root = Prompt()
    one, other = root.then("system", 100).unique(10), root.then("system", 100).unique(10)
    cache = PrefixCache(1000)
    cache.use(one)
    assert (cache.match(one), cache.match(other), cache.match(root.then("another", 5))) == (110, 100, 0)
    assert cache.tokens == 110


def test_what_was_used_longest_ago_goes_first_and_beginnings_last():
    moves = []
    root = Prompt()
    system = root.then("system", 100)
    first, second, third = (system.unique(50) for _ in range(3))
    cache = PrefixCache(210, lambda prompt, gained: moves.append((prompt, gained)))
    cache.use(first)
    cache.use(second)
    cache.use(first)
    cache.use(third)
    assert [cache.match(each) for each in (first, second, third)] == [150, 100, 150]
    assert moves[-2:] == [(third, True), (second, False)]
    cache.clear()
    assert (cache.tokens, cache.match(first)) == (0, 0)


def test_a_prompt_larger_than_the_cache_leaves_one_beginning():
    cache = PrefixCache(100)
    prompt = Prompt().then("long", 500)
    cache.use(prompt)
    cache.use(Prompt().then("other", 400))
    assert cache.match(prompt) == 0
