"""Checks of the doctor, by what they look at: one small function per thing that can keep a checkout from working."""
