"""Pages for notebooks, parsed."""

import html.parser
import re

VOID = {"input", "br", "hr", "img", "meta"}
LARGEST = 100_000


class Page(html.parser.HTMLParser):
    """Parses a page; fails where tags are not closed in order, and collects what it says."""

    def __init__(self, page):
        super().__init__()
        self.stack, self.tags, self.texts, self.cells = [], [], [], []
        self.feed(page)
        self.close()
        assert not self.stack, f"not closed: {self.stack}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack[-1:] != ["style"]:
            self.texts.append(data)
            if self.stack[-1:] == ["td"]:
                self.cells.append(data)


def page_of(obj):
    """The parsed page of an object, after what holds for all pages."""
    text = obj._repr_html_()
    page = Page(text)
    assert len(text) < LARGEST
    assert "script" not in page.tags
    assert "display:none" in text, "hidden where the style is not allowed"
    [plain] = re.findall("<pre class='xtd-text'>(.*?)</pre>", text, re.DOTALL)
    assert html.unescape(plain)[:100] == repr(obj)[:100]
    return page
