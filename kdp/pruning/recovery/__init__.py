"""Recovery without training: layers that read pruned units are refitted in closed form."""
