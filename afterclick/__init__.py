"""What other programs may import of Afterclick."""
