"""Contract tests of tokenizing and detokenizing."""

from puna.backend import LoadedModel, UnsupportedError
from puna.testing.answers import refusal
from puna.testing.harness import ContractBase

TEXTS = ("Zoë said: 🙂\nyes", "a", "  two  spaces\tand a tab", "日本語 ÅÄÖ ñ", '{"x": [1, 2]}', "word " * 40)


class TokenTests(ContractBase):
    """Texts become tokens, and tokens become the same texts."""

    def test_tokens_come_back_as_text(self) -> None:
        """Tokens give back the text, including line breaks and characters of several bytes.

        If it fails: `detokenize` returns the bytes of each token, which need not be whole characters.
        """

        async def test(model: LoadedModel) -> None:
            if not model.facts.tokenizer:
                error = await refusal(model.tokenize("a", add_special=False, parse_special=False))
                assert isinstance(error, UnsupportedError), f"facts.tokenizer is False, but tokenize raised {error!r}"
                return
            for text in TEXTS:
                tokens = await model.tokenize(text, add_special=False, parse_special=False)
                pieces = await model.detokenize(tokens, special=False)
                assert len(pieces) == len(tokens), "detokenize returns the bytes of each token"
                # SentencePiece tokenizers put a space in front, which is not part of the text.
                raw = b"".join(pieces).decode()
                assert text in (raw, raw.removeprefix(" ")), f"{text!r} came back as {raw!r}"
                assert tokens == await model.tokenize(text, add_special=False, parse_special=False)
                parts = [(await model.detokenize([token], special=False))[0] for token in tokens[:20]]
                assert parts == list(pieces[:20]), "a token has other bytes alone than among others"
            assert await model.tokenize("", add_special=False, parse_special=False) == []
            assert await model.detokenize([], special=False) == []

        self.run_any(test)

    def test_special_tokens_are_recognised_only_if_asked_for(self) -> None:
        """`parse_special` makes the text of a special token that token; without it, the text is only text.

        If it fails: pass `parse_special` and `special` on to the tokenizer. Text of users is tokenized without it, so
        that no text becomes a token that ends the turn.
        """

        async def test(model: LoadedModel) -> None:
            facts = model.facts
            if not facts.tokenizer:
                return
            for token, text in ((facts.bos_id, facts.bos_text), (facts.eos_id, facts.eos_text)):
                if token < 0 or not text:
                    continue
                around = f"a{text}b"
                parsed = await model.tokenize(around, add_special=False, parse_special=True)
                plain = await model.tokenize(around, add_special=False, parse_special=False)
                assert token in parsed, f"parse_special does not recognise {text!r}"
                assert token not in plain, f"{text!r} became a special token without parse_special"
                written = b"".join(await model.detokenize(plain, special=False)).decode()
                assert written.removeprefix(" ") == around, f"{around!r} came back as {written!r}"
                shown = b"".join(await model.detokenize(parsed, special=True)).decode()
                hidden = b"".join(await model.detokenize(parsed, special=False)).decode()
                assert text in shown, f"detokenize with special leaves {text!r} out"
                assert text not in hidden, f"detokenize without special writes {text!r}"

        self.run_any(test)
