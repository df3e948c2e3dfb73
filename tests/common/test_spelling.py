"""Arguments in messages have the names that they were given by."""

import threading

from xtorch_data.common.spelling import spelled, spelling


def test_arguments_are_spelled_as_in_python_or_as_a_context_asks():
    assert spelled("input_dims") == "input_dims"
    assert spelled("input_dims", "x") == "input_dims['x']"
    with spelling(lambda argument, *keys: "/".join([argument.upper(), *keys])):
        assert spelled("input_dims", "x") == "INPUT_DIMS/x"
        found = []
        other = threading.Thread(target=lambda: found.append(spelled("input_dims", 3)))
        other.start()
        other.join()
        assert found == ["input_dims[3]"]  # who calls from Python meanwhile
    assert spelled("input_dims", "x") == "input_dims['x']"
