"""What a preview demands of the memory limit, against what the daemons take."""

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
