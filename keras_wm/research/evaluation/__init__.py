"""Requirements report: the fidelity, robustness and security of a mark in a model.

Run `keras-wm evaluate MODEL --key KEY`, or in Python:

```python
from keras_wm.research.evaluation import evaluate, write_report

evaluation = evaluate("marked.keras", key, load_examples("digits"))
write_report(evaluation, "evaluation")
```
"""

from keras_wm.research.evaluation.evaluation import Evaluation
from keras_wm.research.evaluation.evaluator import evaluate
from keras_wm.research.evaluation.html_report import write_report

__all__ = ["Evaluation", "evaluate", "write_report"]
