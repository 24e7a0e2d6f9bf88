"""Markdown of answers, rendered by the page's module in the browser."""

import pytest

RENDER = """async (texts) => {
    const { MarkdownView } = await import("./pages/markdown.js");
    const root = document.createElement("div");
    const view = new MarkdownView(root);
    for (const text of texts) view.update(text);
    return root.innerHTML.replaceAll(' tabindex="0"', "");
}"""


@pytest.fixture(scope="module")
def render(browser, server):
    page = browser.new_page()
    page.goto(f"{server.url}/dashboard/")
    yield lambda *texts: page.evaluate(RENDER, texts)
    page.close()


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("plain", "<p>plain</p>"),
        (f"#{' ' * 100_000}Long{' ' * 100_000}b ##", f"<h4>Long{' ' * 100_000}b</h4>"),
        (f"~~~{' ' * 100_000}`", f"<p>~~~{' ' * 100_000}`</p>"),
        ("one\n\ntwo", "<p>one</p><p>two</p>"),
        ("# Title\ntext", "<h4>Title</h4><p>text</p>"),
        (
            "a **strong** and *soft* and ~~gone~~ `c*d*`",
            "<p>a <strong>strong</strong> and <em>soft</em> and <del>gone</del> <code>c*d*</code></p>",
        ),
        ("- a\n- b\n  1. c", "<ul><li>a</li><li>b<ol><li>c</li></ol></li></ul>"),
        ("3. c\n4. d", '<ol start="3"><li>c</li><li>d</li></ol>'),
        ("> said", "<blockquote>said</blockquote>"),
        ("a\n\n---\n\nb", "<p>a</p><hr><p>b</p>"),
        (
            "```py\nx = '<b>'\n```",
            '<pre class="code-block" data-language="py"><code>x = \'&lt;b&gt;\'</code></pre>',
        ),
        ("```\nnot closed", '<pre class="code-block"><code>not closed</code></pre>'),
        ("snake_case_name and 2 * 3 * 4", "<p>snake_case_name and 2 * 3 * 4</p>"),
        ("**never closed", "<p>**never closed</p>"),
        (
            "[a](http://127.0.0.1/) ![b](http://127.0.0.1/b.png)",
            "<p>[a](http://127.0.0.1/) ![b](http://127.0.0.1/b.png)</p>",
        ),
        ("<img src=x onerror=alert(1)>", "<p>&lt;img src=x onerror=alert(1)&gt;</p>"),
    ],
)
def test_markdown(render, text, html):
    assert render(text) == html


def test_a_text_that_grows_ends_as_the_whole_text_at_once(render):
    text = "# T\n\nSome *text*, `code` and\n\n- a\n  - b **c**\n- d\n\n```js\nlet x;\n```\n> q\n\nend"
    assert render(*(text[:end] for end in range(len(text) + 1))) == render(text)


def test_the_depth_of_lists_has_a_bound(render):
    html = render("\n".join(f"{' ' * depth}- a" for depth in range(5000)))
    assert html.startswith("<ul><li>a<ul><li>a")
    assert html.count("<ul>") == 41
