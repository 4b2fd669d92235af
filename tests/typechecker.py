"""The run-time type checker of the tests: beartype, an int being good for a float."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
