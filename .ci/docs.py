#!/usr/bin/env python3
"""Build the web site of the notebooks in _docs: with Quarto where it is installed, else as plain HTML pages.

The plain site has one page a notebook, a list of all pages on each of them, and no scripts. Nothing is run: outputs are those in the notebooks.
"""
import html
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

from readme import HIDDEN, ROOT, for_readers

DOCS = ROOT / '_docs'
# Exported cells are the library; a reader of the site wants to see them.
LEFT_OUT = HIDDEN - {'export', 'exporti', 'exports'}
STYLE = """
body { display: flex; gap: 2rem; max-width: 70rem; margin: 0 auto; padding: 1rem; font: 16px/1.6 system-ui, sans-serif; color: #222; }
nav { flex: 0 0 11rem; position: sticky; top: 1rem; align-self: flex-start; font-size: .9rem; }
nav a { display: block; padding: .15rem 0; color: #24527a; text-decoration: none; }
nav a[aria-current] { font-weight: bold; }
main { flex: 1; min-width: 0; }
pre { padding: .6rem .8rem; overflow-x: auto; font-size: .85rem; line-height: 1.45; background: #f6f8fa; }
.output pre { background: none; border-left: 3px solid #ddd; }
table { border-collapse: collapse; font-size: .9rem; }
td, th { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: left; }
blockquote { margin-left: 0; color: #555; }
img { max-width: 100%; }
.prompt, .anchor-link { display: none; }
@media (max-width: 45rem) { body { display: block; } nav { position: static; } }
"""
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} – {site}</title>
<link rel="stylesheet" href="style.css">
</head>
<body>
<nav>{nav}</nav>
<main>{body}</main>
</body>
</html>
"""


def with_quarto():
    "Build with nbdev and Quarto; README.md stays what make readme wrote."
    (ROOT / 'README.md').touch()
    return subprocess.run([str(Path(sys.executable).with_name('nbdev_docs'))], cwd=ROOT, stdin=subprocess.DEVNULL).returncode


def title_of(nb, path):
    "The first heading of `nb`, else the name of its file."
    found = (re.search(r'^# +(.+)', cell.source, re.M) for cell in nb.cells if cell.cell_type == 'markdown')
    return next((match[1].strip() for match in found if match), path.stem)


def plain():
    "Write the plain site to `DOCS` and return the number of its pages."
    import nbformat
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    cfg = ConfigParser(delimiters=['='])
    cfg.read(ROOT / 'settings.ini', encoding='utf-8')
    paths = sorted((p for p in (ROOT / 'nbs').glob('*.ipynb') if p.name[0] not in '._'), key=lambda p: (p.stem != 'index', p.stem))
    nbs = {path: nbformat.read(path, as_version=4) for path in paths}
    titles = {path: title_of(nb, path) for path, nb in nbs.items()}
    shutil.rmtree(DOCS, ignore_errors=True)
    DOCS.mkdir()
    exporter = HTMLExporter(template_name='basic')
    for path, nb in nbs.items():
        body, _ = exporter.from_notebook_node(for_readers(nb, LEFT_OUT))
        body = re.sub(r'href="(?!\w+:|/|#)([^"]+)\.ipynb"', r'href="\1.html"', body)
        here = {path: ' aria-current="page"'}
        links = [f'<a href="{p.stem}.html"{here.get(p, "")}>{html.escape(titles[p])}</a>' for p in paths]
        page = PAGE.format(title=html.escape(titles[path]), site=cfg['DEFAULT']['lib_name'], nav='\n'.join(links), body=body)
        (DOCS / f'{path.stem}.html').write_text(page, encoding='utf-8')
    (DOCS / 'style.css').write_text(STYLE + HtmlFormatter(style='default').get_style_defs('.highlight'), encoding='utf-8')
    (DOCS / '.nojekyll').touch()
    return len(paths)


if __name__ == '__main__':
    if shutil.which('quarto'): sys.exit(with_quarto())
    print(f'{plain()} pages in {os.path.relpath(DOCS)}, made without Quarto: open {os.path.relpath(DOCS)}/index.html')
