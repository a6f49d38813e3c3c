"""Operations that have a plain definition and faster versions of it."""

from spectralmamba.ops.selective_scan import selective_scan

__all__ = ["selective_scan"]
