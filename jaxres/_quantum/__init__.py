"""The system and its states: levels, operators, density matrices, maps of them, and what is read off these."""
