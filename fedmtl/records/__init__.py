"""What a run leaves behind: tables, and a summary of them."""

from fedmtl.records.recorder import Recorder
from fedmtl.records.schemas import SCHEMAS, read_table
from fedmtl.records.setting import partition_table, write_devices, write_partition

__all__ = ["SCHEMAS", "Recorder", "partition_table", "read_table", "write_devices", "write_partition"]
