"""What every notifier keeps to."""

from __future__ import annotations

from typing import get_args

import pytest

from relay.notifier import NotifierConfig, of_notifiers, types


def test_all_types_are_found_by_their_file_names() -> None:
    assert set(types()) == {"email", "webhook"}


@pytest.mark.parametrize("name", types())
def test_a_type_is_named_like_its_file(name: str) -> None:
    model = types()[name].Config
    assert issubclass(model, NotifierConfig)
    assert get_args(model.model_fields["type"].annotation) == (name,)


def test_no_advice_names_a_key_that_notifiers_do_not_have() -> None:
    for advice in ("it as", "its certificate as"):
        said = of_notifiers(f"the certificate is odd (name {advice} to.tls.ca to trust it)")
        assert said == f"the certificate is odd (add {advice.removesuffix(' as')} to what this machine trusts)"
