"""Part of building the site: files outside of docs that pages link to come along.

Pages are also read where the repository is, so their links name such files as they lie
there, `../configs/full.yaml`. In the site they are at `files/configs/full.yaml`.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_OUTSIDE = re.compile(r"\]\(\.\./([^)#]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside of docs that a page links to."""
    root = Path(config.docs_dir).parent
    linked = {
        path
        for page in files.documentation_pages()
        for path in _OUTSIDE.findall(page.content_string)
    }
    for path in sorted(linked):
        files.append(File.generated(config, f"files/{path}", abs_src_path=str(root / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_) -> str:
    """Name them as they are in the site."""
    return _OUTSIDE.sub(r"](files/\1)", markdown)
