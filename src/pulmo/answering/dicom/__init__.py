"""Answers where hospitals keep films: structured reports and pictures in DICOM, and a listener that sends them."""
