from operator import mul

from playwright.sync_api import expect
from tests.dashboard.conftest import shot

QUERY = "Why is the sky blue?"
TEXTS = ["How do I bake bread?", "the color of the sky", "The capital of Norway is Oslo."]


def test_the_nearest_text_comes_first_with_its_cosine_similarity(looker, server, accessible):
    page = looker.open(server, "embeddings")
    page.get_by_label("Model", exact=True).select_option("llamita-embed")
    page.get_by_label("Texts", exact=True).fill("\n".join(TEXTS))
    query = page.get_by_label("Query", exact=True)
    query.fill(QUERY)
    query.press("Enter")
    rows = page.locator("tbody tr")
    expect(rows).to_have_count(len(TEXTS))
    shown = {row.locator("td").nth(1).inner_text(): row.locator("td").nth(0).inner_text() for row in rows.all()}
    asked, *vectors = server.json("/api/embed", {"model": "llamita-embed", "input": [QUERY, *TEXTS]})["embeddings"]
    similarity = {text: sum(map(mul, asked, vector)) for text, vector in zip(TEXTS, vectors, strict=True)}
    assert list(shown) == sorted(TEXTS, key=similarity.get, reverse=True)
    assert {text: round(float(value), 3) for text, value in shown.items()} == {
        text: round(value, 3) for text, value in similarity.items()
    }
    assert next(iter(shown)) == "the color of the sky"
    expect(page.locator("#announcements")).to_contain_text("3 texts compared · vectors of 128 values")
    accessible(page)
    shot(page, "embeddings")


def test_mistakes_and_texts_that_are_too_long_are_named(looker, server):
    looker.refused = True
    page = looker.open(server, "embeddings")
    page.get_by_label("Model", exact=True).select_option("llamita-embed")
    compare = page.get_by_role("button", name="Compare")
    texts = page.get_by_label("Texts", exact=True)
    error = page.locator(".panel > .error")
    texts.fill(" \n ")
    compare.click()
    expect(error.filter(has_text="A query and at least one text are needed.")).to_be_visible()
    page.locator("summary").click()
    page.get_by_label("Dimensions").fill("many")
    compare.click()
    expect(error.filter(has_text="Dimensions: many is not a whole number.")).to_be_visible()
    page.get_by_label("Dimensions").fill("16")
    page.get_by_label("Cut texts").uncheck()
    texts.fill("short\n" + "long " * 20_000)
    compare.click()
    # The others are compared nevertheless.
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_text("“long long", exact=False)).to_contain_text("context length")
    expect(page.get_by_text("1 texts compared · vectors of 16 values").first).to_be_visible()
    shot(page, "embeddings-too-long")
