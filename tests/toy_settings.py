"""Settings that several test modules share."""

from pulmo.base.params import AugmentParams

# Every random change of a film, each strong enough to be seen.
EVERY_CHANGE = AugmentParams(
    flip=0.5,
    rotation=10.0,
    zoom=0.1,
    aspect=0.1,
    translation=0.1,
    edge=0.5,
    brightness=0.1,
    contrast=0.1,
    blur=1.5,
    noise=0.05,
    jpeg=50,
    spectrum=0.5,
)
# Addresses that hold a secret, in every place in which people put one.
SECRET_ADDRESSES = (
    "https://user:pa/secret@host/x",
    "https://user:p@secret@host/x",
    "https://secret@host/x",
    "https://host?token=secret",
    "https://host/#token=secret",
    "https://host;token=secret",
    "postgresql//user:secret@host/x",
)
