"""The figures, one module each with `draw(results) -> (Figure, DataFrame)`: the picture, and a row for each point in it.

They share style.py, and those of curves over the training steps curves.py.
"""
