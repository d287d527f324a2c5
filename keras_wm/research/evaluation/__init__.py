"""What a mark is worth in a given model: the requirements report.

`keras-wm evaluate MODEL --key KEY`, or:

```python
from keras_wm.research.evaluation import evaluate

report = evaluate("marked.keras", key, load_examples("digits"))
report.save("evaluation")
```
"""

from keras_wm.research.evaluation.evaluation import Evaluation
from keras_wm.research.evaluation.evaluator import evaluate

__all__ = ["Evaluation", "evaluate"]
