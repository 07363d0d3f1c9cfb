from each_backend import assert_all_checks_pass


def test_all_checks_pass_on_torch():
    assert_all_checks_pass("torch")
