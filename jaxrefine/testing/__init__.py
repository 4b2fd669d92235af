"""A test kit for custom scores.

```python
from jaxrefine.testing import check_score


def test_my_score():
    check_score(MyScore(box=(40, 40), side=24))
```
"""

from jaxrefine.testing.random_data import random_particle as random_particle
from jaxrefine.testing.score_check import ScoreError as ScoreError
from jaxrefine.testing.score_check import check_score as check_score
