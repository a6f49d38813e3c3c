"""Result folder → one HTML file that needs nothing else."""

from spectralmamba.report.compare import write_comparison
from spectralmamba.report.critical_difference import critical_difference_svg, write_critical_difference
from spectralmamba.report.page import write_report
from spectralmamba.report.summary import write_summary_report

__all__ = [
    "critical_difference_svg",
    "write_comparison",
    "write_critical_difference",
    "write_report",
    "write_summary_report",
]
