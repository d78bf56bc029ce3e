"""Reading PTX: text to tokens to units, units linked to one program, functions cut into blocks."""
