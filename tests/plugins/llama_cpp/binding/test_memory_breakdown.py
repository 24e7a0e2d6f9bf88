import ctypes

import pytest

from puna.backend import UnsupportedError
from puna_llama_cpp.binding import memory_breakdown


def node(key, *values, left=None, right=None):
    """Return the memory of a node, as the standard library lays it out."""
    memory = ctypes.create_string_buffer(32 + 8 * (1 + len(values)))
    address = ctypes.addressof(memory)
    places = (ctypes.c_size_t * (5 + len(values))).from_address(address)
    places[2], places[3] = (ctypes.addressof(each) if each else 0 for each in (left, right))
    places[4:] = (key, *values)
    return memory


def tree(root, count):
    found = memory_breakdown._Map(count=count)
    found.header.parent = ctypes.addressof(root) if root else None
    return found


def test_every_node_of_a_tree_is_read():
    low, high = node(1, 10, 11, 12), node(9, 90, 91, 92)
    top = node(5, 50, 51, 52, left=low, right=high)
    found = dict(memory_breakdown._entries(tree(top, 3), 3))
    assert found == {1: (10, 11, 12), 5: (50, 51, 52), 9: (90, 91, 92)}
    assert list(memory_breakdown._entries(tree(None, 0), 3)) == []


def test_a_layout_that_makes_no_sense_is_not_believed():
    top, huge = node(5, 50), node(5, 1 << 60)
    for wrong in (tree(top, 0), tree(None, 1), tree(top, 2), tree(top, 1000), tree(huge, 1)):
        with pytest.raises(UnsupportedError):
            list(memory_breakdown._entries(wrong, 1))
