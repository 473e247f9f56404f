"""`user` and `group`: what the daemon runs as, once its sockets are open."""

from __future__ import annotations

import grp
import logging
import os
import pwd
from collections.abc import Iterable
from pathlib import Path

from homerd.errors import ConfigError

log = logging.getLogger("homerd.worker")


def drop(user: str, group: str, own: Iterable[Path] = ()) -> None:
    """Become *user* and *group* for good, with the groups that the user has elsewhere too.

    user, group: names or numbers, "" to stay; without a group that of the user.  own: files made so
    far that are to belong to them.  ConfigError when it cannot be done; then nothing has changed.
    """
    if not user and not group:
        return
    uid, name, own_gid = _user(user) if user else (os.getuid(), "", os.getgid())
    gid = _group(group) if group else own_gid
    if (uid, gid) == (os.getuid(), os.getgid()):
        if uid == 0:
            log.warning(
                'privileges are kept user=root help="name a user without rights, or leave user out"'
            )
        return
    if os.geteuid() != 0:
        raise ConfigError(
            f"{_told(user, group)}: only root can become somebody else, and homerd was started as"
            f" {_name_of(os.getuid())}: start it as root, or leave user and group out"
        )
    for path in own:
        os.chown(path, uid, gid)
    os.setgroups(os.getgrouplist(name, gid) if name else [gid])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def check_folder(folder: Path, what: str) -> None:
    """ConfigError when files cannot be made in *folder*, which may be yet to be made itself."""
    there = folder.absolute()
    while not os.path.exists(there):  # False too where we may not look
        there = there.parent
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        name = _name_of(os.geteuid())
        raise ConfigError(
            f"{what} {folder}: the user {name} may not write in {there}:"
            f" chown {name} {there}, or name another folder"
        )


def _user(text: str) -> tuple[int, str, int]:
    """Number, name and group of a user; a number needs no name."""
    try:
        found = pwd.getpwuid(int(text)) if text.isdecimal() else pwd.getpwnam(text)
    except KeyError:
        if text.isdecimal():
            return int(text), "", int(text)
        raise ConfigError(f'user "{text}": this machine has no such user') from None
    return found.pw_uid, found.pw_name, found.pw_gid


def _group(text: str) -> int:
    if text.isdecimal():
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise ConfigError(f'group "{text}": this machine has no such group') from None


def _told(user: str, group: str) -> str:
    told = (("user", user), ("group", group))
    return ", ".join(f'{name} "{value}"' for name, value in told if value)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
