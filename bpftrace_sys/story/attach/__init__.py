"""How programs become attached, and to what."""
