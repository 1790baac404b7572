"""Any Hugging Face image-classification data set seen as a task: columns found, labels numbered, images drawn."""

from hf_zoosel.tasks.decoding import ImageError
from hf_zoosel.tasks.images import Encoded
from hf_zoosel.tasks.rows import SourceRows, open_rows
from hf_zoosel.tasks.storage import Images
from hf_zoosel.tasks.task import Task, load_task

__all__ = ["Encoded", "ImageError", "Images", "SourceRows", "Task", "load_task", "open_rows"]
