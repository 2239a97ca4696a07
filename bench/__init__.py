"""`make bench`: what this project claims about speed, measured side by side on the machine at hand."""
