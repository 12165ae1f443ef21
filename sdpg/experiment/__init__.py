"""What a run is made of, and how it is started: composition, base models. Sees every other package."""
