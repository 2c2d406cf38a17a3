"""One self-contained page of validation results, in the look of Great Expectations' Data Docs.

Data Docs load Bootstrap, jQuery, Font Awesome and Vega from content delivery networks. Here the same content blocks go
through Great Expectations' own renderer and templates, inside a page of ours that loads nothing: `templates/` holds the
page, its stylesheet and the two blocks which need scripts otherwise.
"""

from __future__ import annotations

import base64
import html
import json
from importlib import resources
from pathlib import Path
from typing import Any

from great_expectations.core.expectation_validation_result import (
    ExpectationSuiteValidationResult,
    ExpectationSuiteValidationResultSchema,
)
from great_expectations.render import RenderedDocumentContent, RenderedSectionContent
from great_expectations.render.renderer import ValidationResultsPageRenderer
from great_expectations.render.view import DefaultJinjaPageView
from jinja2 import ChoiceLoader, FileSystemLoader, pass_context

_TEMPLATES = Path(__file__).parent / "templates"
_LOGO = "static/images/logo-long.png"
_TABLE_LEVEL = "Table-Level Expectations"


class _OfflinePageView(DefaultJinjaPageView):
    """Data Docs' view, with our page around the blocks and every value of the data escaped."""

    _template = "data_docs.j2"

    def __init__(self) -> None:
        super().__init__()
        gx_templates = self.env.loader
        assert gx_templates is not None
        self.env.loader = ChoiceLoader([FileSystemLoader(_TEMPLATES), gx_templates])

    @pass_context
    def render_content_block(self, jinja_context: Any, content_block: Any, *args: Any, **kwargs: Any) -> Any:
        """Escape bare strings: the templates put unexpected values into cells as they are."""
        if isinstance(content_block, str):
            return html.escape(content_block)
        if isinstance(content_block, list):
            content_block = [html.escape(item) if isinstance(item, str) else item for item in content_block]
        return super().render_content_block(jinja_context, content_block, *args, **kwargs)

    def render_string_template(self, template: Any) -> Any:
        """Escape code and names of columns, which come as templates rather than as their parameters."""
        tag = template.get("tag") if isinstance(template, dict) else None
        if tag == "code":
            return f"<code>{html.escape(template['template'])}</code>"
        if tag == "h5":
            template = {**template, "template": html.escape(template["template"])}
        return super().render_string_template(template)


def data_docs_page(results: dict[str, ExpectationSuiteValidationResult]) -> str:
    """Render the results of several suites as one HTML page that opens offline.

    Args:
        results: What each suite found, by the title it gets on the page, in the page's order.

    Returns:
        The page: an index of the suites, then each suite's Data Docs sections.
    """
    sections: list[RenderedSectionContent] = []
    suites: dict[int, dict[str, Any]] = {}
    for title, result in results.items():
        suite_sections = _sections(title, result)
        suites[len(sections) + 1] = _suite(title, result, suite_sections, first=len(sections) + 1)
        sections += suite_sections
    document = RenderedDocumentContent(sections=sections, renderer_type="ValidationResultsPageRenderer")
    page: str = _OfflinePageView().render(document, suites=suites, logo=_logo())
    return page


def _sections(title: str, result: ExpectationSuiteValidationResult) -> list[RenderedSectionContent]:
    """A suite's sections, without the link to its page on a Data Docs site, which is not there."""
    # The renderer expects results as read back from a store: it fails on numbers of numpy, and it changes what it gets.
    stored = ExpectationSuiteValidationResultSchema().load(json.loads(json.dumps(result.to_json_dict())))
    sections: list[RenderedSectionContent] = ValidationResultsPageRenderer().render(stored).sections
    overview = sections[0].content_blocks[0].subheader.string_template
    overview["params"]["data_asset_name"] = title
    del overview["styling"]["params"]["expectation_suite_name"]
    return sections


def _suite(
    title: str, result: ExpectationSuiteValidationResult, sections: list[RenderedSectionContent], first: int
) -> dict[str, Any]:
    """What the index and the table of contents say about a suite."""
    failed = {
        item.expectation_config.kwargs.get("column", _TABLE_LEVEL)
        for item in result.results
        if item.expectation_config is not None and not item.success
    }
    return {
        "title": title,
        "success": result.success,
        "statistics": result.statistics,
        "contents": [
            {"index": index, "name": section.section_name, "failed": section.section_name in failed}
            for index, section in enumerate(sections[1:], start=first + 1)
        ],
    }


def _logo() -> str:
    image = resources.files("great_expectations.render.view").joinpath(_LOGO).read_bytes()
    return f"data:image/png;base64,{base64.b64encode(image).decode()}"
