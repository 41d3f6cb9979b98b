"""Films before and after they are decoded: their files and names, the patients these tell, their rows."""
