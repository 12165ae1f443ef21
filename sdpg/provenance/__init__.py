"""What made a result: source files and their fingerprints, Snakemake's records, and the check of results against them."""
