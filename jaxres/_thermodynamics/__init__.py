"""Energy and entropy that collisions exchange, per collision and per unit time."""
