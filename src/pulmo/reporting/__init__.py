"""Every picture and page that people look at. Numbers come in, nothing is measured here."""
