"""What the paper writes: advantages, divergences, anchors, schedules, surrogates, the reduction, and SDPG itself."""
