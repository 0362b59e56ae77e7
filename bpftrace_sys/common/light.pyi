# To type checkers these are Python's own.

import signal as signal
from collections import OrderedDict as OrderedDict
from collections import deque as deque
from contextlib import suppress as suppress
