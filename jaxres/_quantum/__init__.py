"""The system and its states: levels, operators, density matrices, maps, and the quantities computed from them."""
