"""The tables, one module each with `build(results) -> Table`; layout.py turns a table into Markdown, LaTeX and CSV."""
