"""Result folder → one HTML file that needs nothing else."""

from spectralmamba.report.page import write_report
from spectralmamba.report.summary import write_summary_report

__all__ = ["write_report", "write_summary_report"]
