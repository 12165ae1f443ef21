"""How many logits the lm-head holds at once. No torch here: `sdpg plan` counts them before anything is loaded."""

# Logits of one chunk: on the CPU 64 MiB in float32; on CUDA 1 GiB in bf16, 3,533 rows of a vocabulary of 152k.
# C rows move 2 + 2 + 8 bytes for each of the weight's V d entries (read by two products; float32 gradient read and written) and
# take 6 V d C FLOPs: at an H100's 3.35 TB/s and 60% of its 990 TFLOP/s the traffic is 352 / C of the products' time, here 10%.
CHUNK_ELEMENTS = {"cpu": 2**24, "cuda": 2**29}
LEAST_ROWS = 64  # of a chunk, unless the caller asks for less
TILE_ELEMENTS = {"cpu": 2**19, "cuda": 2**26}  # of a tile in plain torch, whose temporaries are float32: 2 and 256 MiB each
