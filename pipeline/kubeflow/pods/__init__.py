"""What runs inside the pods of a compiled package."""
