"""The gas: the state of a particle, the scatterer that it meets, and how often one comes."""
