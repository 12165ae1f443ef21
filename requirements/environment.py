"""Print environment.yml, the conda form of cpu.lock; `make lock` runs this."""

from pathlib import Path

HEADER = """\
# The environment of requirements/cpu.lock for conda users; written by `make lock`, compared with the lock by a test.
#
#   PIP_NO_DEPS=1 conda env create -f environment.yml && conda activate sdpg
#   snakemake reproduce-all        # what `make reproduce` runs
#   pytest                         # what `make test` runs
#
# PIP_NO_DEPS=1 because the list is complete, and leaves out packages that would break it (requirements/excludes.txt).
# If pip does not find the CPU build of torch, name PyTorch's CPU index in PIP_EXTRA_INDEX_URL.
name: sdpg
channels:
  - conda-forge
dependencies:
  - python >=3.11,<3.14
  - pip
  - pip:
"""


def main() -> None:
    """Write the file to standard output."""
    lock = Path(__file__).with_name("cpu.lock").read_text(encoding="utf-8")
    print(HEADER + "\n".join(f"      - {line}" for line in lock.splitlines()))


if __name__ == "__main__":
    main()
