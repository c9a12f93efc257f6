"""What can go wrong, each with a sentence that says what, to whom, why, and what to do."""

from __future__ import annotations


class ExecpoolError(Exception):
    """Everything that execpool raises of its own."""


class ConfigurationError(ExecpoolError, ValueError):
    """A setting is missing or can't be understood."""


class InvalidExecution(ExecpoolError, ValueError):
    """An execution's id, deadline or labels are not what execpool takes."""


class ExecutionExists(ExecpoolError):
    """Another process has an execution of that id open."""


class ExecutionEnded(ExecpoolError):
    """The execution has ended, and a straggler wants to connect in its name."""


class SidecarError(ExecpoolError):
    """The sidecar does not do what it was asked."""


class SidecarUnavailable(SidecarError):
    """The sidecar is not there, or does not answer."""


class SidecarRefused(SidecarError):
    """The sidecar answers, and refuses: it says so, or it is too old to know what was asked."""

    def __init__(self, status: int, code: str, detail: str, hint: str) -> None:
        said = f"the execpool sidecar refuses ({status} {code}): {detail}"
        super().__init__(f"{said}. {hint}" if hint else said)
        self.status = status
        """The HTTP status."""
        self.code = code
        """The problem's code, as in docs/control-api.md."""
        self.detail = detail
        """What is wrong."""
        self.hint = hint
        """What to do."""

    @property
    def is_passing(self) -> bool:
        """Whether the same may be granted soon: it is starting, ending or full."""
        return self.status == 503
