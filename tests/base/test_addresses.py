import pytest

from pulmo.base.addresses import hide_secrets, show_address

SECRET = {
    "postgresql://user:secret@host:5432/mlflow": "postgresql://host:5432",
    "postgresql://user:pa/secret@host/mlflow": "postgresql://host",
    "postgresql://user:p@secret@host/mlflow": "postgresql://host",
    "postgresql://user:p@s/secret:1@host/mlflow": "postgresql://host",
    "postgresql://user:p%40secret@host/mlflow": "postgresql://host",
    "postgresql://user:p?secret@host/mlflow": "postgresql://***",
    "postgresql://user:p#secret@host/mlflow": "postgresql://***",
    "postgresql+psycopg2://user:secret@[::1]:5432/mlflow": "postgresql+psycopg2://[::1]:5432",
    "postgresql//user:secret@host/mlflow": "postgresql//host",
    "//user:secret@host": "//host",
    "user:secret@host": "***",
    "https://secret@host/mlflow": "https://host",
    "https://host/mlflow?token=secret": "https://host",
    "https://host?token=a@secret": "https://***",
    "https://host/a/secret": "https://host",
    "https://user:secret": "https://user",
    "sqlite:////home/a@b/mlflow.db?key=secret": "sqlite:////home/a@b/mlflow.db",
}


@pytest.mark.parametrize(("address", "shown"), SECRET.items())
def test_scheme_and_host_alone_are_shown(address, shown):
    assert show_address(address) == shown


@pytest.mark.parametrize("address", [address for address in SECRET if "secret" in address])
def test_a_text_tells_nothing_secret_of_the_address_in_it(address):
    assert "secret" not in hide_secrets(f"cannot connect to '{address}': refused", address)


@pytest.mark.parametrize("address", [address for address in SECRET if "//" in address and "?" not in address])
def test_addresses_in_a_text_are_seen_by_themselves(address):
    assert "secret" not in hide_secrets(f"cannot connect to {address}, refused")


def test_what_a_driver_tells_piece_by_piece_is_hidden():
    text = "password authentication failed for user nobody with pa/ss"
    assert hide_secrets(text, "postgresql://nobody:pa/ss@host/b") == text.replace("pa/ss", "***")
    port = "Port could not be cast to integer value as 'pa', see the path"
    assert hide_secrets(port, "postgresql://nobody:pa/ss@host/b") == port.replace("'pa'", "'***'")
    assert hide_secrets("no /home/a b", "sqlite:////home/a@b") == "no /home/a b", "a path holds no password"
    assert hide_secrets("no user tok3n", "https://tok3n@host") == "no user ***"
    assert hide_secrets("with url: /api?token=a%20b and a b", "https://host?token=a%20b").count("***") == 2


@pytest.mark.parametrize(
    "text", ["no such file: /a//b/c.png", "sqlite:////x/mlflow.db", "file:///x/model", "mlflow.db", ""]
)
def test_what_is_not_secret_stays(text):
    assert hide_secrets(text) == text
