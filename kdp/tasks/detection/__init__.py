"""Object detection: YOLO11."""
