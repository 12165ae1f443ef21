"""From result files to estimates with intervals, tables and the report. Reads files only; no deep-learning imports."""
