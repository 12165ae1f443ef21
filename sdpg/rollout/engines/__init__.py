"""The rollout engines, one file each."""
