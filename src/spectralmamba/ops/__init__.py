"""Operations that have a plain definition and faster versions of it."""

from spectralmamba.ops.selective_scan import from_mamba_ssm, selective_scan

__all__ = ["from_mamba_ssm", "selective_scan"]
