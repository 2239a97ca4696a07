"""How well defects are found: this project's models and four references on the same images (`make bench-detection`)."""
