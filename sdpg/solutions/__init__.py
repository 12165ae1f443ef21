"""Worked solutions for training problems that have none, kept only if the verifier accepts their final answer.

local.py, endpoint.py, from_file.py   the writers: a local model, an OpenAI-compatible endpoint, a user's file
writing.py                            tries until one is accepted; cost, resuming, progress
journal.py                            every answer as it came, so that nothing is asked, or paid for, twice
accepting.py                          what makes a response a solution
prompt.py, worked.yaml                what a writer is asked
"""
