"""What only the live machine knows."""
