"""What a run leaves behind: tables, and a summary of them."""

from fedmtl.records.recorder import Recorder
from fedmtl.records.schemas import SCHEMAS, read_table
from fedmtl.records.setting import partition_table, write_devices, write_partition
from fedmtl.records.summary import read_summary, summarise, write_summary

__all__ = [
    "SCHEMAS",
    "Recorder",
    "partition_table",
    "read_summary",
    "read_table",
    "summarise",
    "write_devices",
    "write_partition",
    "write_summary",
]
