"""Rollouts: the engines behind one interface (engine.py), one file each (engines/)."""
