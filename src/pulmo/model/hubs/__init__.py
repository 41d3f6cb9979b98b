"""Networks and weights made elsewhere, each hub through a library that an extra of pulmo installs."""
