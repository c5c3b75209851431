"""The unrelated distribution ``agentbudget`` installs a package of our name: one of the two overwrites the other."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from agentbudget.errors import InvalidRequest


def refuse_unrelated_distribution(folders: Iterable[str] | None = None) -> None:
    """Refuse to start beside the unrelated distribution ``agentbudget``: files of both would be mixed in one package.

    Looks at names only, in ``folders`` (default: the folders that Python imports from). Raises
    :class:`~agentbudget.errors.InvalidRequest` that names the folder and says what to do.
    """
    for folder in sys.path if folders is None else folders:
        found = _metadata_of_the_other(folder)
        if found is not None:
            raise InvalidRequest(
                f"the unrelated distribution 'agentbudget' is installed in {folder} ({found}); its package has the "
                "same name as that of 'agentbudget-runtime', so files of the two are mixed. Uninstall both with pip, "
                "then install 'agentbudget-runtime' alone",
                "installation",
            )


def _metadata_of_the_other(folder: str) -> str | None:
    try:
        names = os.listdir(folder or os.curdir)
    except OSError:  # an entry that is no readable folder: a zip file, or one that is gone
        return None
    return next((name for name in names if name.startswith("agentbudget-") and name.endswith(_METADATA)), None)


_METADATA = (".dist-info", ".egg-info")  # ours is agentbudget_runtime-*, the integrations' agentbudget_<framework>-*
