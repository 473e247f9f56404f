import os
import pwd

import pytest

from homerd.core import privileges
from homerd.errors import ConfigError


@pytest.fixture
def as_somebody():
    """Runs a call in a process that is not root; gives the ConfigError's text, "" without one."""
    if os.geteuid() != 0:
        pytest.skip("privilege: only root becomes somebody else")

    def run(call):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.setresuid(65534, 65534, 65534)
            try:
                call()
            except ConfigError as error:
                os.write(write, str(error).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as told:
            text = told.read()
        assert os.waitpid(child, 0)[1] == 0
        return text

    return run


def test_without_a_user_nothing_happens():
    privileges.drop("", "")


def test_who_is_somebody_already_needs_not_be_root(as_somebody):
    assert as_somebody(lambda: privileges.drop("65534", str(os.getgid()))) == ""


def test_only_root_becomes_somebody_else(as_somebody):
    name = pwd.getpwuid(65534).pw_name
    assert as_somebody(lambda: privileges.drop("0", "")) == (
        f'user "0": only root can become somebody else, and homerd was started as {name}:'
        " start it as root, or leave user and group out"
    )


def test_a_folder_that_cannot_be_written_is_told(as_somebody, tmp_path):
    tmp_path.chmod(0o755)
    told = as_somebody(lambda: privileges.check_folder(tmp_path / "a" / "b", "spool_dir"))
    assert told.startswith(f"spool_dir {tmp_path}/a/b: the user ")
