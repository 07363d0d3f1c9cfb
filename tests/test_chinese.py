"""README, Start, Learn and claims say the same in Chinese and English; what has changed in one language is named."""

import re

import chinese
import languages
import pytest

BLOCK = re.compile(r"^```(?:python|sh|shell)\n.*?^```$", re.MULTILINE | re.DOTALL)
CODE = """# Title here

First `code` line,
wrapped.

| one word | `x` |
|---|---|
| a \\| b words | 3 |

term here
: what it is

```python
x = "First line"
```
"""


def test_nothing_has_changed_in_one_language_only():
    assert chinese.complaints() == []


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A catalogue, and what is written from it, that may be changed."""
    for name in ("PO", "README", "SPOKEN"):
        there = getattr(chinese, name)
        (tmp_path / there.name).write_bytes(there.read_bytes())
        monkeypatch.setattr(chinese, name, tmp_path / there.name)
    return chinese.PO


def test_a_paragraph_that_has_changed_is_named(shelf):
    before = shelf.read_text(encoding="utf-8")
    shelf.write_text(before.replace('msgid "Where to go"', 'msgid "Where to begin"'), encoding="utf-8")
    assert chinese.complaints() == [
        "docs/index.md: changed or new in English only: 'Where to go'",
        "docs/index.md: gone from the English: 'Where to begin'",
    ]
    chinese.update()
    assert chinese.complaints() == [
        "docs/index.md: changed in English only: the Chinese is of an older one (marked fuzzy): 'Where to go'"
    ]
    assert "Where to go" not in chinese.chinese()

    shelf.write_text(before.replace("从哪里开始", "到哪里去"), encoding="utf-8")
    assert chinese.complaints() == ["docs/index.md: changed in Chinese only, to '到哪里去': 'Where to go'"]
    chinese.update()
    assert chinese.complaints() == []


def test_code_links_and_numbers_are_those_of_the_english(shelf):
    before = shelf.read_text(encoding="utf-8")
    shelf.write_text(before.replace('"[161 个张量，25 M', '"[160 个张量，25 M'), encoding="utf-8")
    chinese.update()
    assert chinese.complaints() == [
        "README.md: other numbers in Chinese: "
        "'[161 tensors, 25 M weights, on an H200](docs/benchmarks.md#one-step-on-a-gpu)'",
    ]


def test_what_is_said_of_claims_is_that_of_the_catalogue(shelf):
    chinese.SPOKEN.write_text(chinese.SPOKEN.read_text(encoding="utf-8").replace("至多", "最多"), encoding="utf-8")
    assert chinese.complaints() == [
        "src/downslope/claims/zh.json: not what the catalogue says; it is written, not edited"
    ]


def test_blocks_are_the_same_in_both_languages():
    for path in chinese.PAGES:
        text = (chinese.ROOT / path).read_text(encoding="utf-8")
        assert BLOCK.findall(chinese.translated(text, chinese.chinese())) == BLOCK.findall(text)
    assert len(BLOCK.findall(chinese.README.read_text(encoding="utf-8"))) > 5


def test_a_page_is_translated_around_its_code():
    words = {
        "Title here": "标题",
        "First `code` line, wrapped.": "第一行 `code`。",
        "one word": "一个词",
        "a | b words": "甲 | 乙",
        "term here": "术语",
        "what it is": "它是什么",
    }
    assert (
        chinese.translated(CODE, words)
        == """# 标题

第一行 `code`。

| 一个词 | `x` |
|---|---|
| 甲 \\| 乙 | 3 |

术语
: 它是什么

```python
x = "First line"
```
"""
    )
    assert [content for _, _, content in chinese.paragraphs(CODE)] == [
        *("Title here", "First `code` line,\nwrapped.", "one word", "a | b words", "term here", "what it is")
    ]


def test_an_address_is_the_same_in_both_languages():
    assert languages.slug("三个问题") == "three-questions"
    assert languages.slug("Adam") == "adam"


def test_any_short_piece_of_chinese_is_found():
    found = languages.Search({}).split("偏差校正 of Adam")
    assert {"偏差校正", "校正", "Adam"} <= {*found}
    stemmer = languages.Search.js_stemmer_rawcode  # the file in which a page finds it by the name of the language
    assert stemmer == f"{languages.Search.language_name.lower()}-stemmer.js"
