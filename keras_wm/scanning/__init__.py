"""Searches of many model files for many keys."""

from keras_wm.scanning.scan_report import FileResult, KeyResult, ScanReport
from keras_wm.scanning.scanner import scan

__all__ = ["FileResult", "KeyResult", "ScanReport", "scan"]
