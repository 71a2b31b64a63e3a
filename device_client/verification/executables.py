"""Which programs of an artifact may run: what lies on the disk against the list that the component's team signed."""

from device_client.trees import Tree
from protocol.executables import ExecutableList, check_executables, is_executable
from protocol.manifest import Artifact


def check_programs(tree: Tree, artifact: Artifact, listed: ExecutableList) -> None:
    """See that what can be run in an extracted tree is what the list names.

    Raises:
        ContentError: E_EXEC_UNLISTED or E_EXEC_SIGNATURE.
    """
    named = [(file.path or artifact.name, file) for file in tree.files]
    check_executables(
        [(path, file.sha256) for path, file in named if is_executable(path, file.mode, file.head)], listed
    )
