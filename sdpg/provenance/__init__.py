"""What made a result: source files and their fingerprints, Snakemake's records, and the check of results against them."""

from sdpg.provenance._old import ROOT, algorithm_defaults, algorithm_fields, algorithm_files  # noqa
from sdpg.provenance.git import git_commit  # noqa
