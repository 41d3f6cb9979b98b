"""Pulmo: chest X-ray classification (NORMAL or PNEUMONIA), from raw films to an answer with its uncertainty."""
