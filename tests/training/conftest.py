"""training/ is a package of the repository's root, which goes last on the path: the pack's own
nodes/ must not hide ComfyUI's nodes module."""

import sys

from support.tools import ROOT

sys.path.append(str(ROOT))
sys.path.append(str(ROOT / "tests" / "training"))
