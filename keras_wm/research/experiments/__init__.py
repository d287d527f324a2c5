"""Experiments of the papers and on robustness, with the papers' marks and the default.

Run `keras-wm experiment NAME`, or:

```python
from keras_wm.research.experiments import Settings, run_experiment

tables = run_experiment("embedding", Settings(seeds=3), Path("study"))
```
"""

from keras_wm.research.experiments.catalogue import EXPERIMENTS
from keras_wm.research.experiments.runner import run_experiment
from keras_wm.research.experiments.settings import Settings

__all__ = ["EXPERIMENTS", "Settings", "run_experiment"]
