"""One file for each thing that is made from results: summaries, claims, figures, tables, the report, the manifest."""
