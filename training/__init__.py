"""How the shipped model and its data were made; run from a checkout, not part of the installed package."""
