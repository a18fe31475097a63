"""What calls return: values with the reference's field names and printed forms."""

from __future__ import annotations

from asyncelt.info.packages import (
    JobFileInfo as JobFileInfo,
    LoadJobInfo as LoadJobInfo,
    LoadPackageInfo as LoadPackageInfo,
    extracted_info as extracted_info,
    package_info as package_info,
)
from asyncelt.info.report import RunReport as RunReport, StageReport as StageReport
from asyncelt.info.steps import (
    ExtractInfo as ExtractInfo,
    ExtractMetrics as ExtractMetrics,
    LoadInfo as LoadInfo,
    LoadJobMetrics as LoadJobMetrics,
    LoadMetrics as LoadMetrics,
    NormalizeInfo as NormalizeInfo,
    NormalizeMetrics as NormalizeMetrics,
    StepInfo as StepInfo,
    WriterMetrics as WriterMetrics,
)
from asyncelt.info.trace import PipelineTrace as PipelineTrace, StepTrace as StepTrace
