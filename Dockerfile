# The project with the environment of its lock. In a clone:
#
#   docker build --tag sdpg .                                 # or --build-arg FLAVOUR=cuda
#   docker run --rm --ipc=host --volume "$PWD/results:/sdpg/results" sdpg                # make reproduce: scale cpu
#   docker run --rm --ipc=host --volume "$PWD/results:/sdpg/results" sdpg make smoke     # the whole chain in minutes
#
# Where FLAVOUR=cuda: with --gpus all, and with `make reproduce SCALE=gsm8k` or another scale for GPUs: vLLM needs one there.
# --ipc=host: processes of one run share memory, of which a container has 64 MB otherwise.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

ARG FLAVOUR=cpu

# Not pinned: a base image has one version of each. On a GPU Triton compiles a file of C, with Python's headers (which the image
# has), when the first kernel starts, and torch.compile some of C++.
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends git make \
  && if [ "${FLAVOUR}" = cuda ]; then apt-get install --yes --no-install-recommends gcc g++ libc6-dev; fi \
  && rm -rf /var/lib/apt/lists/*

WORKDIR /sdpg

# The environment first: this layer is made again only where the lock changes.
COPY Makefile pyproject.toml README.md LICENSE ./
COPY requirements requirements
COPY sdpg/__init__.py sdpg/__init__.py
COPY baselines/__init__.py baselines/__init__.py
RUN make setup FLAVOUR=${FLAVOUR} && rm -rf /root/.cache

COPY . .
ENV PATH=/sdpg/.venv/bin:$PATH
CMD ["make", "reproduce"]
