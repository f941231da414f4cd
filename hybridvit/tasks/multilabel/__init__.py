"""Several labels per image, or none: each class is a question of its own."""
