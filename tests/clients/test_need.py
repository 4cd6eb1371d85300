"""A client that is missing is told by its name."""

import pytest

from tests.clients.host import need

pytestmark = pytest.mark.clients


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["no-such-client"], "no-such-client is not installed"),
        (["sh", "sh", "-c", "exit 1"], "sh lacks what sh -c exit 1 needs"),
    ],
)
def test_a_client_that_is_missing_is_passed_by_but_fails_the_run_that_must_have_all(
    monkeypatch, command, reason
):
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match=reason):
        need(*command)

    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=reason):
        need(*command)
