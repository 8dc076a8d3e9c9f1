"""What a KDSR says of degradations: descriptors of photographs and tasks, their file, and how much they tell."""
