"""Owns docs/reference/exit-codes.md."""

from __future__ import annotations

from cli.exitcodes import BROKEN_PIPE, DIAGNOSIS_CODES, EXIT_CODES, INTERRUPTED
from medforged.contract.exitcodes import ExitCode
from ops.reference.markdown import anchor, code, document, table
from ops.reference.source import attribute_docs


def page() -> str:
    """The page, whole."""
    docs = attribute_docs(ExitCode)
    rows = [[code(told.value), told.name, docs.get(told.name, "Done.")] for told in ExitCode]
    rows += [
        [code(INTERRUPTED), "", "Interrupted by Ctrl-C (128 and the number of SIGINT)."],
        [code(BROKEN_PIPE), "", "Whoever read its output closed it (128 and the number of SIGPIPE)."],
    ]
    return document(
        "# Exit codes",
        "Every MedForge program ends with one of these. They follow `sysexits.h`, so that scripts and supervisors "
        "can tell kinds of failure apart without reading messages. A failure also says one sentence on stderr: what "
        "could not be done, why, and what to do about it.",
        table(["code", "name", "meaning"], rows),
        "`medforgectl status` ends with 1 when the daemon answers that it is degraded, and with 0 when it is well. "
        "`medforgectl sessions stop` ends with 1 when a session ended in status `error`, and with 75 when one had not "
        "ended within `--timeout`. Where several sessions failed, the first failure decides. `medforgectl reconcile` "
        "ends with 1 when something is pending or failed, `medforgectl cleanup` when something other than a workspace "
        "could not be removed, either when a part of the host could not be looked at, and `medforgectl gpus recheck` "
        "when the GPU is still unhealthy or in quarantine.",
        "`medforgectl doctor` ends with the code of the first of these kinds in which something has failed, and with 0 "
        "when there are warnings alone: "
        + ", ".join(f"{kind.value} {code(told.value)}" for kind, told in DIAGNOSIS_CODES.items())
        + ".",
        "## What medforgectl makes of the answers of daemon and facade",
        "A socket that may not be opened ends with 77; one that does not exist, or that nobody serves, with 69.",
        table(
            ["error code", "exit code"],
            [
                [f"[{code(error.value)}](rpc.md#{anchor('Error codes')})", f"{code(told.value)} {told.name}"]
                for error, told in EXIT_CODES.items()
            ],
        ),
    )
