from puna_llama_cpp.generation.ngram_index import NgramIndex


def test_places_are_found_the_latest_first():
    index = NgramIndex([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3])
    index.update()
    assert index.followers((1, 2, 3), 9) == [7, 3]  # and not the end, which nothing follows
    assert index.followers((1, 2, 3), 1) == [7]
    assert index.followers((9, 9, 9), 9) == []


def test_the_index_grows_with_its_tokens():
    tokens = []
    index = NgramIndex(tokens)
    whole = [1, 2, 3, 1, 2, 3, 1, 2, 3, 4, 4, 4, 4]
    for token in whole:
        tokens.append(token)
        index.update()
    at_once = NgramIndex(whole)
    at_once.update()
    assert index.followers((1, 2, 3), 9) == at_once.followers((1, 2, 3), 9) == [9, 6, 3]
    assert index.followers((4, 4, 4), 9) == at_once.followers((4, 4, 4), 9) == [12]
